package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
)

// The built-in forum is what the house asks of it, and hangs together.
func TestBuiltInForum(t *testing.T) {
	posts, err := readForum("")
	if err != nil {
		t.Fatal(err)
	}
	paths, authors := map[string]bool{}, map[string]int{}
	for _, p := range posts {
		paths[p.path.String()] = true
		authors[p.author]++
	}
	if len(posts) < 80 || len(authors) < 6 || len(paths) != len(posts) {
		t.Errorf("%d posts by %d authors at %d paths", len(posts), len(authors), len(paths))
	}
	for _, p := range posts {
		var rec struct {
			Text, CreatedAt string
			Reply           *struct{ Root, Parent string }
		}
		j, err := p.record.JSON()
		if err == nil {
			err = json.Unmarshal(j, &rec)
		}
		if err != nil || rec.Text == "" || rec.Text != p.text || rec.CreatedAt == "" {
			t.Errorf("line %d: %s, %v", p.line, j, err)
		}
		if p.reply != (p.path.Collection == "com.example.forum.reply") {
			t.Errorf("line %d: a reply or not: %s", p.line, j)
		}
		if r := rec.Reply; r != nil && (!paths[r.Root] || !paths[r.Parent]) {
			t.Errorf("line %d: replies to nothing: %+v", p.line, *r)
		}
	}
}

const goodLine = `{"author":"moss","collection":"com.example.forum.post","rkey":"a","record":{"text":"hi"}}`

func TestParseForum(t *testing.T) {
	in := "\uFEFF" + goodLine + "\r\n\n  \n" +
		`{"author":"Ümit ☂","collection":"com.example.forum.reply","rkey":"b","record":{"$type":"com.example.forum.reply","text":7,"reply":{"root":"a"}}}`
	posts, err := parseForum("f", strings.NewReader(in))
	if err != nil || len(posts) != 2 {
		t.Fatalf("%+v, %v", posts, err)
	}
	a, b := posts[0], posts[1]
	if a.line != 1 || a.author != "moss" || a.path.String() != "com.example.forum.post/a" || a.text != "hi" || a.reply {
		t.Errorf("first: %+v", a)
	}
	if b.line != 4 || b.author != "Ümit ☂" || b.text != "" || !b.reply || b.record.Type() != "com.example.forum.reply" {
		t.Errorf("second: %+v", b)
	}
}

// What is wrong is named with its line.
func TestParseForumRefuses(t *testing.T) {
	swap := func(old, with string) string { return strings.Replace(goodLine, old, with, 1) }
	for _, c := range []struct{ in, want string }{
		{"", "f: there is no line"},
		{"\n\n", "f: there is no line"},
		{goodLine + "\nhello", "f:2: not a JSON object"},
		{goodLine + "\n\n[1]", "f:3: not a JSON object"},
		{goodLine[:30], "f:1: not a JSON object"},
		{goodLine + goodLine, "f:1: more than one JSON value"},
		{swap(`"author"`, `"auhtor"`), `f:1: not a JSON object with author, collection, rkey and record: json: unknown field "auhtor"`},
		{swap(`"moss"`, `""`), "f:1: author: is missing"},
		{swap(`"com.example.forum.post"`, `"post"`), "f:1: collection: "},
		{swap(`"rkey":"a"`, `"rkey":"a b"`), "f:1: rkey: "},
		{swap(`"rkey":"a",`, ``), "f:1: rkey: "},
		{swap(`{"text":"hi"}`, `"hi"`), "f:1: record: must be an object"},
		{swap(`,"record":{"text":"hi"}`, ``), "f:1: record: must be an object"},
		{swap(`"hi"`, `1.5`), "f:1: record: "},
		{swap(`{"text"`, `{"$type":"com.example.other","text"`), `f:1: record.$type: is "com.example.other"`},
		{goodLine + "\n" + swap("moss", "fern") + "\n" + goodLine, "f:3: moss wrote com.example.forum.post/a before, on line 1"},
		{goodLine + "\n" + strings.Repeat(" ", maxForumLine+1), "f:2: the line is longer"},
	} {
		if _, err := parseForum("f", strings.NewReader(c.in)); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.60q: %v, want %s", c.in, err, c.want)
		}
	}
	if _, err := readForum(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzParseForum(f *testing.F) {
	f.Add(goodLine)
	f.Add(goodLine + "\r\n\n" + strings.Replace(goodLine, "moss", "fern", 1))
	f.Fuzz(func(t *testing.T, in string) {
		posts, err := parseForum("f", strings.NewReader(in))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, p := range posts {
			rec, err := p.record.JSON()
			if err != nil {
				t.Fatal(err)
			}
			line, _ := json.Marshal(map[string]any{"author": p.author, "collection": p.path.Collection, "rkey": p.path.Key, "record": json.RawMessage(rec)})
			fmt.Fprintf(&again, "%s\n", line)
		}
		back, err := parseForum("f", strings.NewReader(again.String()))
		if err != nil || len(back) != len(posts) {
			t.Fatalf("%d posts came back as %d: %v", len(posts), len(back), err)
		}
		for i := range posts {
			if back[i].author != posts[i].author || back[i].path != posts[i].path || back[i].record.CID() != posts[i].record.CID() {
				t.Errorf("%+v came back as %+v", posts[i], back[i])
			}
		}
	})
}

// Authors stay whole, the work is spread, and no path is written twice.
func TestSpread(t *testing.T) {
	var posts []post
	for i, author := range strings.Fields("a a a b c c d e e e e") {
		posts = append(posts, post{line: i, author: author, path: space.Path{Collection: forumPost, Key: space.RecordKey(fmt.Sprint(i % 3))}})
	}
	pl := spread(posts, 3)
	if pl.nicks != 5 {
		t.Errorf("%d nicks", pl.nicks)
	}
	member, total := map[string]int{}, 0
	for m, share := range pl.shares {
		total += len(share)
		seen := map[space.Path]bool{}
		for _, p := range share {
			if at, ok := member[p.author]; ok && at != m {
				t.Errorf("%s writes as two members", p.author)
			}
			member[p.author] = m
			if seen[p.path] {
				t.Errorf("member %d writes %s twice", m, p.path)
			}
			seen[p.path] = true
		}
		if !slices.IsSortedFunc(share, func(a, b post) int { return a.line - b.line }) {
			t.Errorf("member %d writes out of order", m)
		}
		if len(share) < 2 || len(share) > 6 {
			t.Errorf("member %d writes %d of 11", m, len(share))
		}
	}
	if total != len(posts) {
		t.Errorf("%d of %d posts", total, len(posts))
	}
}

func TestBatches(t *testing.T) {
	var posts []post
	for i, c := range "prprpprr" {
		posts = append(posts, post{line: i, reply: c == 'r'})
	}
	lines := func(all bool) string {
		var out []string
		for _, b := range batches(posts, 3, all) {
			var s string
			for _, p := range b {
				s += fmt.Sprint(p.line)
			}
			out = append(out, s)
		}
		return strings.Join(out, " ")
	}
	if got := lines(false); got != "024 5 1 3 6 7" {
		t.Errorf("one by one: %s", got)
	}
	if got := lines(true); got != "024 5 136 7" {
		t.Errorf("packed: %s", got)
	}
}
