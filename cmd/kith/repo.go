package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"golang.org/x/term"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/car"
)

type repoCmd struct {
	State  repoStateCmd  `cmd:"" help:"Show the head of one author's records."`
	Export repoExportCmd `cmd:"" help:"Write one author's records to stdout as a CAR, verified on the way."`
	Verify repoVerifyCmd `cmd:"" help:"Check a CAR."`
}

type repoStateCmd struct {
	Space string    `arg:"" help:"URI or petname."`
	DID   space.DID `arg:"" help:"The author." name:"did"`
}

// Run shows rev, count, set hash and commit of a repo.
func (c *repoStateCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	st, err := api.RepoState(a.ctx, id, c.DID)
	if err != nil {
		return err
	}
	v := struct {
		DID    space.DID `json:"did"`
		Rev    space.TID `json:"rev"`
		Count  uint64    `json:"count"`
		Hash   string    `json:"hash"`
		Commit any       `json:"commit"` // null until the author has stated one
	}{st.DID, st.Rev, st.Count, hex.EncodeToString(st.Hash[:]), st.Commit}
	return a.answer(v, func(w io.Writer) {
		line(w, "repo", "%s", v.DID)
		line(w, "rev", "%s", v.Rev)
		line(w, "count", "%d", v.Count)
		line(w, "hash", "%s", v.Hash)
		if st.Commit == nil {
			line(w, "commit", "none: the author has not stated one yet")
		} else {
			line(w, "commit", "of rev %s", st.Commit.Rev)
		}
	})
}

type repoExportCmd struct {
	Space     string    `arg:"" help:"URI or petname."`
	DID       space.DID `arg:"" help:"The author." name:"did"`
	IndexOnly bool      `help:"Leave the values out."`
}

// Run writes a snapshot of a repo. What was written is whole and verified only
// if it is done.
func (c *repoExportCmd) Run(a *app) error {
	if f, ok := a.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return usage("kith repo export SPACE DID > F.car", "a CAR is bytes: send it to a file")
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	body, err := api.Repo(a.ctx, id, c.DID, c.IndexOnly)
	if err != nil {
		return err
	}
	defer body.Close()
	of := car.Repo{Space: id, Author: c.DID, Key: keyOf(c.DID), IndexOnly: c.IndexOnly}
	out := bufio.NewWriterSize(a.stdout, 256<<10)
	d, n, err := readCAR(io.TeeReader(body, out), of)
	if err != nil {
		return fmt.Errorf("export %s: what was written is not whole: %w", c.DID, err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the CAR: %w", err)
	}
	a.say("exported", "%d records of %s at %s, %s", n, c.DID, d.Commit.Rev, signature(of))
	return nil
}

// keyOf is the key of a did:key; of another DID nothing here knows it.
func keyOf(did space.DID) atcrypto.PublicKey {
	if !strings.HasPrefix(string(did), "did:key:") {
		return nil
	}
	key, err := atcrypto.ParsePublicDIDKey(string(did))
	if err != nil {
		return nil
	}
	return key
}

func signature(of car.Repo) string {
	if of.Key == nil {
		return "signature not checked"
	}
	return "signed by its author"
}

// readCAR verifies a snapshot to its end and counts the values.
func readCAR(r io.Reader, of car.Repo) (*car.Reader, int, error) {
	d, err := car.NewReader(r, of)
	if err != nil {
		return nil, 0, err
	}
	for n := 0; ; n++ {
		_, _, err := d.Next()
		if errors.Is(err, io.EOF) {
			return d, n, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

type repoVerifyCmd struct {
	File  string    `arg:"" help:"The CAR, or - for stdin."`
	Space string    `help:"URI of its space, to check the signature." placeholder:"URI"`
	Repo  space.DID `help:"Its author, to check the signature." placeholder:"DID"`
	Key   string    `help:"The author's key as a did:key, where the DID is not one." placeholder:"KEY"`
}

// Run verifies a CAR without any node. A CAR does not say whose it is: without
// the names it is only known that its parts belong together.
func (c *repoVerifyCmd) Run(a *app) error {
	of, err := c.repo()
	if err != nil {
		return err
	}
	in := io.Reader(a.stdin)
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return fmt.Errorf("open the CAR: %w", err)
		}
		defer f.Close()
		in = f
	}
	d, n, err := readCAR(in, of)
	if err != nil {
		return &failure{
			code: exitFailed, name: "NotVerified", message: c.File + ": " + reason(err),
			hint: "it is damaged or another's: get it anew from the author's own node, with kith repo export",
		}
	}
	v := struct {
		Rev    space.TID `json:"rev"`
		Count  int       `json:"count"`
		Values int       `json:"values"`
		Hash   string    `json:"hash"`
		Signed bool      `json:"signed"` // the signature was checked
		Commit any       `json:"commit"`
	}{d.Commit.Rev, len(d.Index), n, hex.EncodeToString(d.Commit.Hash[:]), of.Key != nil, d.Commit}
	return a.answer(v, func(w io.Writer) {
		line(w, "rev", "%s", v.Rev)
		line(w, "count", "%d", v.Count)
		line(w, "values", "%d", v.Values)
		line(w, "hash", "%s", v.Hash)
		line(w, "commit", "%s", signature(of))
	})
}

func (c *repoVerifyCmd) repo() (of car.Repo, err error) {
	of.IndexOnly = true
	if c.Space == "" && c.Repo == "" && c.Key == "" {
		return of, nil
	}
	if c.Space == "" || c.Repo == "" {
		return of, usage("--space URI --repo DID", "the signature is over the space and the author: give both")
	}
	if of.Space, err = space.ParseID(c.Space); err != nil {
		return of, usage("the whole URI: ats://DID/TYPE/KEY", "%s", reason(err))
	}
	if of.Author, err = space.ParseDID(string(c.Repo)); err != nil {
		return of, usage("--repo did:key:…", "%s", reason(err))
	}
	if of.Key = keyOf(of.Author); c.Key != "" {
		if of.Key, err = atcrypto.ParsePublicDIDKey(c.Key); err != nil {
			return of, usage("--key did:key:…", "--key: %v", err)
		}
	}
	if of.Key == nil {
		return of, usage("--key did:key:…, its #atproto key", "the key of %s is not part of its name", of.Author)
	}
	return of, nil
}
