package local

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/testnet/testdata"
)

// Caps of an imported forum.
const (
	maxForumLine  = 2 << 20 // bytes of a line: a record and what is around it
	maxForumPosts = 1 << 20
)

// post is one line of a forum:
//
//	{"author":"nick","collection":"com.example.forum.post","rkey":"soil","record":{"$type":…,"text":…}}
//
// The record is written as it stands. author is a name within the file.
type post struct {
	line   int
	author string
	path   space.Path
	record space.Record
	text   string // its member "text", if it has one
	reply  bool   // it has a member "reply"
}

// readForum reads the file, or the built-in forum for "".
func readForum(name string) ([]post, error) {
	if name == "" {
		return parseForum("the built-in forum", bytes.NewReader(testdata.Forum))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	defer f.Close()
	return parseForum(name, f)
}

// parseForum reads JSON lines; empty ones are skipped. Errors begin with
// name:line.
func parseForum(name string, r io.Reader) ([]post, error) {
	type place struct {
		author string
		path   space.Path
	}
	var posts []post
	seen := map[place]int{}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxForumLine)
	line := 0
	for sc.Scan() {
		line++
		b := bytes.TrimSpace(bytes.TrimPrefix(sc.Bytes(), []byte("\uFEFF")))
		if len(b) == 0 {
			continue
		}
		p, err := parsePost(b)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, line, err)
		}
		p.line = line
		at := place{p.author, p.path}
		if first := seen[at]; first != 0 {
			return nil, fmt.Errorf("%s:%d: %s wrote %s before, on line %d; each record of an author needs a path of its own", name, line, p.author, p.path, first)
		}
		seen[at] = line
		if posts = append(posts, p); len(posts) > maxForumPosts {
			return nil, fmt.Errorf("%s:%d: more than %d lines", name, line, maxForumPosts)
		}
	}
	if err := sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("%s:%d: the line is longer than %d bytes", name, line+1, maxForumLine)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(posts) == 0 {
		return nil, fmt.Errorf("%s: there is no line in it; a line is %s", name, `{"author":"nick","collection":"com.example.forum.post","rkey":"key","record":{…}}`)
	}
	return posts, nil
}

func parsePost(b []byte) (post, error) {
	var in struct {
		Author     string          `json:"author"`
		Collection string          `json:"collection"`
		Key        string          `json:"rkey"`
		Record     json.RawMessage `json:"record"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return post{}, fmt.Errorf("not a JSON object with author, collection, rkey and record: %w", err)
	}
	if dec.More() {
		return post{}, errors.New("more than one JSON value on the line")
	}
	p := post{author: in.Author}
	if p.author == "" {
		return post{}, errors.New("author: is missing")
	}
	var err error
	if p.path.Collection, err = space.ParseNSID(in.Collection); err != nil {
		return post{}, fmt.Errorf("collection: %w", err)
	}
	if p.path.Key, err = space.ParseRecordKey(in.Key); err != nil {
		return post{}, fmt.Errorf("rkey: %w", err)
	}
	if len(in.Record) == 0 || in.Record[0] != '{' {
		return post{}, errors.New("record: must be an object")
	}
	if p.record, err = space.RecordFromJSON(in.Record); err != nil {
		return post{}, err // it says record: itself
	}
	if typ := p.record.Type(); typ != "" && typ != in.Collection {
		return post{}, fmt.Errorf("record.$type: is %q, the collection is %s", typ, in.Collection)
	}
	var inside struct {
		Text  any `json:"text"`
		Reply any `json:"reply"`
	}
	if err := json.Unmarshal(in.Record, &inside); err != nil {
		return post{}, fmt.Errorf("record: %w", err)
	}
	p.text, _ = inside.Text.(string)
	p.reply = inside.Reply != nil
	return p, nil
}

// plan says which member writes which posts.
type plan struct {
	shares [][]post // by member, in the file's order
	nicks  int
}

// spread gives each author to the member that has least to write so far, in
// the order in which they appear. Two authors of one member may have used one
// path: the later one's gets "~2" after it, and so on.
func spread(posts []post, members int) plan {
	of := map[string]int{}
	wants := map[string]int{}
	for _, p := range posts {
		wants[p.author]++
	}
	load := make([]int, members)
	pl := plan{shares: make([][]post, members), nicks: len(wants)}
	taken := make([]map[space.Path]bool, members)
	for i := range taken {
		taken[i] = map[space.Path]bool{}
	}
	for _, p := range posts {
		m, known := of[p.author]
		if !known {
			m = least(load)
			of[p.author] = m
			load[m] += wants[p.author]
		}
		free := p.path
		for n := 2; taken[m][free]; n++ {
			free.Key = p.path.Key + space.RecordKey(fmt.Sprintf("~%d", n))
		}
		taken[m][free] = true
		p.path = free
		pl.shares[m] = append(pl.shares[m], p)
	}
	return pl
}

func least(load []int) int {
	m := 0
	for i, n := range load {
		if n < load[m] {
			m = i
		}
	}
	return m
}

// batches cuts one member's posts into requests of at most most writes: first
// what begins a thread, as many as fit at a time, then the replies in their
// order, one by one, as people write them; with all set they are packed too.
func batches(posts []post, most int, all bool) [][]post {
	var threads, replies []post
	for _, p := range posts {
		if p.reply {
			replies = append(replies, p)
		} else {
			threads = append(threads, p)
		}
	}
	size := 1
	if all {
		size = most
	}
	return append(slices.Collect(slices.Chunk(threads, most)), slices.Collect(slices.Chunk(replies, size))...)
}
