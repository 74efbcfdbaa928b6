package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kithnet/kith/space"
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
	a.drawing.RLock()
	defer a.drawing.RUnlock()
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
	a.drawing.RLock()
	defer a.drawing.RUnlock()
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
		return recordCursor{}, fmt.Errorf("%w: %v", xrpc.ErrCursor, err)
	}
	path, err := space.ParsePath(rest)
	if err != nil {
		return recordCursor{}, fmt.Errorf("%w: %v", xrpc.ErrCursor, err)
	}
	return recordCursor{author, path}, nil
}
