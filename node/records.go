package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
	"github.com/kithnet/kith/xrpc"
)

// Reads do not pass through the actor: they take what is committed, under its
// read lock, and the values from the store.

// Record reads one record. Without an author it is that of the only author who
// has one.
func (n *Node) Record(_ context.Context, id space.ID, author space.DID, path space.Path) (xrpc.Record, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.Record{}, err
	}
	if author == "" {
		if author, err = a.authorOf(path); err != nil {
			return xrpc.Record{}, err
		}
	}
	row, ok, err := a.store.Record(author, path)
	if err != nil {
		return xrpc.Record{}, fmt.Errorf("read %s: %w", path, err)
	}
	if !ok || row.Leaf.CID.IsZero() {
		return xrpc.Record{}, fmt.Errorf("%s: %w", path, space.ErrRecordNotFound)
	}
	return xrpc.Record{
		URI: space.URI{Space: id, Author: author, Path: path}, CID: row.Leaf.CID, Rev: row.Leaf.Stamp.Rev, Value: row.Value,
	}, nil
}

// authorOf finds whose record a path without an author means.
func (a *actor) authorOf(path space.Path) (space.DID, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var authors []space.DID
	for did, r := range a.repos {
		if leaf, ok := r.Leaf(path); ok && !leaf.CID.IsZero() {
			authors = append(authors, did)
		}
	}
	switch len(authors) {
	case 0:
		return "", fmt.Errorf("%s: %w", path, space.ErrRecordNotFound)
	case 1:
		return authors[0], nil
	}
	slices.Sort(authors)
	return "", xrpc.ErrAmbiguous{Authors: authors}
}

// snapshot is every repo as it is now, by author. It costs little: clones
// share what neither side changes.
func (a *actor) snapshot(only space.DID) map[space.DID]*space.Repo {
	a.mu.Lock() // Clone marks the original as shared
	defer a.mu.Unlock()
	out := map[space.DID]*space.Repo{}
	for did, r := range a.repos {
		if only == "" || did == only {
			out[did] = r.Clone()
		}
	}
	return out
}

// Records lists live records by (author, collection, rkey), or backwards.
func (n *Node) Records(_ context.Context, id space.ID, q xrpc.RecordQuery) ([]xrpc.Record, string, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, "", err
	}
	after, err := parseCursor(q.Cursor)
	if err != nil {
		return nil, "", err
	}
	repos := a.snapshot(q.Repo)
	var out []xrpc.Record
	for _, author := range sortedAuthors(repos, q.Reverse) {
		if c := cmp.Compare(author, after.author); after.author != "" && (c < 0 && !q.Reverse || c > 0 && q.Reverse) {
			continue
		}
		var from space.Path
		if author == after.author {
			from = after.path
		}
		list := repos[author].Ascend
		if q.Reverse {
			list = repos[author].Descend
		}
		for path, leaf := range list(from, q.Collection) {
			if path == from {
				continue // the cursor names the last one given
			}
			if len(out) == q.Limit {
				last := out[len(out)-1].URI
				return out, recordCursor{last.Author, last.Path}.String(), nil
			}
			r, ok, err := a.listed(space.URI{Space: id, Author: author, Path: path}, leaf, !q.NoValues)
			if err != nil {
				return nil, "", err
			}
			if ok {
				out = append(out, r)
			}
		}
	}
	return out, "", nil
}

func sortedAuthors(repos map[space.DID]*space.Repo, reverse bool) []space.DID {
	authors := slices.Sorted(maps.Keys(repos))
	if reverse {
		slices.Reverse(authors)
	}
	return authors
}

// listed is a row of a listing. With its value it is the record as the store
// has it now: gone since the listing began, it is left out.
func (a *actor) listed(uri space.URI, leaf space.Leaf, value bool) (xrpc.Record, bool, error) {
	r := xrpc.Record{URI: uri, CID: leaf.CID, Rev: leaf.Stamp.Rev}
	if !value {
		return r, true, nil
	}
	row, ok, err := a.store.Record(uri.Author, uri.Path)
	if err != nil {
		return r, false, fmt.Errorf("read %s: %w", uri.Path, err)
	}
	r.CID, r.Rev, r.Value = row.Leaf.CID, row.Leaf.Stamp.Rev, row.Value
	return r, ok && !r.CID.IsZero(), nil
}

// recordCursor is where a listing of records goes on: after this record.
type recordCursor struct {
	author space.DID
	path   space.Path
}

func (c recordCursor) String() string { return string(c.author) + "/" + c.path.String() }

func parseCursor(s string) (recordCursor, error) {
	if s == "" {
		return recordCursor{}, nil
	}
	did, rest, _ := strings.Cut(s, "/")
	author, err := space.ParseDID(did)
	if err != nil {
		return recordCursor{}, fmt.Errorf("%w: %w", xrpc.ErrCursor, err)
	}
	path, err := space.ParsePath(rest)
	if err != nil {
		return recordCursor{}, fmt.Errorf("%w: %w", xrpc.ErrCursor, err)
	}
	return recordCursor{author, path}, nil
}

// RepoState is one author's repo as this node has it, with a commit for it:
// signed afresh when it is the owner's, remade from the author's last
// statement otherwise. Without a statement about this very state there is none.
func (n *Node) RepoState(_ context.Context, id space.ID, author space.DID) (xrpc.RepoState, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.RepoState{}, err
	}
	return a.repoState(author)
}

func (a *actor) repoState(author space.DID) (xrpc.RepoState, error) {
	a.mu.RLock()
	r := a.repos[author]
	if r == nil || r.Rev() == 0 {
		a.mu.RUnlock()
		return xrpc.RepoState{}, fmt.Errorf("%s in %s: %w", author, a.id, space.ErrRepoNotFound)
	}
	state, stmt := r.State(), r.stmt
	s := xrpc.RepoState{DID: author, Rev: r.Rev(), Count: r.Count(), Hash: r.Digest()}
	a.mu.RUnlock()
	var err error
	if s.State, err = state.AppendBinary(nil); err != nil {
		return xrpc.RepoState{}, err
	}
	s.Commit, err = a.commitFor(author, s, stmt)
	return s, err
}

func (a *actor) commitFor(author space.DID, s xrpc.RepoState, stmt *space.Statement) (*commit.Commit, error) {
	if author == a.self.did {
		var ikm [32]byte
		rand.Read(ikm[:])
		c, err := commit.Sign(a.self.didKey, ikm, a.id, author, s.Rev, s.Hash)
		if err != nil {
			return nil, fmt.Errorf("sign a commit: %w", err)
		}
		return &c, nil
	}
	if stmt == nil || stmt.Hash != s.Hash {
		return nil, nil
	}
	c, err := commit.FromStatement(a.id, author, s.Rev, stmt.IKM, stmt.Sig, s.Hash)
	if err != nil {
		return nil, fmt.Errorf("remake a commit: %w", err)
	}
	pub, err := authorKey(author)
	if err != nil || c.Verify(pub, a.id, author) != nil {
		return nil, nil // a statement about another rev, or of a key we cannot resolve
	}
	return &c, nil
}

// authorKey is the atproto signing key of a DID. A did:key is its own.
func authorKey(did space.DID) (atcrypto.PublicKey, error) {
	if !strings.HasPrefix(string(did), "did:key:") {
		return nil, fmt.Errorf("key of %s: %w", did, space.ErrUnsupported)
	}
	return atcrypto.ParsePublicDIDKey(string(did))
}

// Repos lists the authors that have written.
func (n *Node) Repos(_ context.Context, id space.ID) ([]xrpc.RepoInfo, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	var out []xrpc.RepoInfo
	for did, r := range a.repos {
		if r.Rev() != 0 {
			out = append(out, xrpc.RepoInfo{DID: did, Rev: r.Rev(), Hash: r.Digest(), Attribution: r.sure.String()})
		}
	}
	return out, nil
}

// RepoOps pages through an author's oplog as it was applied here. The last
// page says the state that the ops lead to.
func (n *Node) RepoOps(_ context.Context, id space.ID, author space.DID, q xrpc.OpsQuery) (xrpc.OpsPage, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.OpsPage{}, err
	}
	state, err := a.repoState(author)
	if errors.Is(err, space.ErrRepoNotFound) {
		return xrpc.OpsPage{}, nil
	} else if err != nil {
		return xrpc.OpsPage{}, err
	}
	var after space.TID
	idx := -1
	if q.Cursor != "" {
		if after, idx, err = xrpc.ParseOpsCursor(q.Cursor); err != nil {
			return xrpc.OpsPage{}, err
		}
	}
	var page xrpc.OpsPage
	for p, err := range a.store.Ops(author, 0) {
		if err != nil {
			return xrpc.OpsPage{}, fmt.Errorf("read the oplog: %w", err)
		}
		for _, row := range p.Rows {
			if row.Rev <= q.Since || row.Rev < after || row.Rev == after && row.Idx <= idx || row.Rev > state.Rev {
				continue
			}
			op := xrpc.RepoOp{Rev: row.Rev, Idx: row.Idx, Path: row.Path, CID: row.CID, Prev: row.Prev}
			if !q.NoValues && !row.CID.IsZero() {
				rec, ok, err := a.store.Record(author, row.Path)
				if err != nil {
					return xrpc.OpsPage{}, fmt.Errorf("read the oplog: %w", err)
				}
				if ok && rec.Leaf.CID == row.CID {
					op.Value = rec.Value
				}
			}
			if page.Ops = append(page.Ops, op); len(page.Ops) == q.Limit {
				page.Cursor = xrpc.FormatOpsCursor(op.Rev, op.Idx)
				return page, nil
			}
		}
	}
	page.State = &state
	return page, nil
}
