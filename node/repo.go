package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"strings"
	"time"
	"weak"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/car"
	"github.com/kithnet/kith/space/commit"
	"github.com/kithnet/kith/xrpc"
)

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
	state, stmt := r.State(), r.said.Statement
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

// repoView is one author's repo held still: what memory and store say of it agree.
type repoView struct {
	*store.View
	a      *actor
	author space.DID
	repo   *space.Repo
	ops    uint64
	stmt   *space.Statement
}

// view holds an author's repo still, until Release. A repo never written fails
// with space.ErrRepoNotFound.
func (a *actor) view(author space.DID) (*repoView, error) {
	a.drawing.RLock()
	defer a.drawing.RUnlock()
	a.still.RLock()
	defer a.still.RUnlock()
	a.mu.Lock() // Clone marks the original as shared
	r := a.repos[author]
	if r == nil || r.Rev() == 0 {
		a.mu.Unlock()
		return nil, fmt.Errorf("%s in %s: %w", author, a.id, space.ErrRepoNotFound)
	}
	v := &repoView{a: a, author: author, repo: r.Clone(), ops: r.ops, stmt: r.said.Statement}
	a.mu.Unlock()
	var err error
	if v.View, err = a.store.View(); err != nil {
		return nil, fmt.Errorf("view a repo: %w", diskError(err))
	}
	return v, nil
}

// index is the repo's, sorted and hashed: that of an earlier reader, if it was of
// this very state and is still in memory.
func (v *repoView) index() *car.Block {
	a := v.a
	a.mu.RLock()
	r := a.repos[v.author]
	var kept sortedIndex
	if r != nil {
		kept = r.sorted
	}
	a.mu.RUnlock()
	if b := kept.block.Value(); b != nil && kept.rev == v.repo.Rev() && kept.hash == v.repo.Digest() {
		return b
	}
	b := car.IndexOf(v.repo.Ascend(space.Path{}, ""), v.repo.Count()).Block()
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.repos[v.author]; r != nil {
		r.sorted = sortedIndex{v.repo.Rev(), v.repo.Digest(), weak.Make(b)}
	}
	return b
}

// sortedIndex is a repo's index at one state, as long as the memory is not
// wanted for anything else.
type sortedIndex struct {
	rev   space.TID
	hash  [32]byte
	block weak.Pointer[car.Block]
}

// state is the repo's, with a commit if there can be one.
func (v *repoView) state() (xrpc.RepoState, error) {
	state := v.repo.State()
	s := xrpc.RepoState{DID: v.author, Rev: v.repo.Rev(), Count: v.repo.Count(), Hash: v.repo.Digest()}
	var err error
	if s.State, err = state.AppendBinary(nil); err != nil {
		return s, err
	}
	s.Commit, err = v.a.commitFor(v.author, s, v.stmt)
	return s, err
}

// Oplog reads a page of an author's oplog as it was applied here. The last page
// says the state that the ops lead to.
func (n *Node) Oplog(_ context.Context, id space.ID, author space.DID, q xrpc.OpsQuery) (*xrpc.Oplog, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	after, idx := q.Since, math.MaxInt
	if q.Cursor != "" {
		rev, i, err := xrpc.ParseOpsCursor(q.Cursor)
		if err != nil {
			return nil, err
		}
		if rev > after {
			after, idx = rev, i
		}
	}
	v, err := a.view(author)
	if err != nil {
		return nil, err
	}
	page, err := v.page(after, idx, q)
	if err != nil {
		v.Release()
		return nil, err
	}
	values := func(from, to int, give func(int, space.Record)) error { return v.opValues(page.Ops, from, to, give) }
	if q.NoValues {
		values = nil
	}
	return &xrpc.Oplog{OpsPage: page, Values: values, Close: v.Release}, nil
}

func (v *repoView) page(after space.TID, idx int, q xrpc.OpsQuery) (xrpc.OpsPage, error) {
	limit := q.Limit
	if q.WholeRevs {
		limit += xrpc.MaxWrites // no rev has more
	}
	rows, err := v.OpsAfter(v.author, after, idx, v.ops, limit)
	if err != nil {
		return xrpc.OpsPage{}, fmt.Errorf("read the oplog: %w", diskError(err))
	}
	gone, err := v.Pruned(v.author)
	if err != nil {
		return xrpc.OpsPage{}, fmt.Errorf("read the oplog: %w", diskError(err))
	}
	full := len(rows) == limit
	if q.WholeRevs {
		n := min(q.Limit, len(rows))
		for n > 0 && n < len(rows) && rows[n].Rev == rows[n-1].Rev {
			n++
		}
		rows, full = rows[:n], n < len(rows)
	}
	page := xrpc.OpsPage{Ops: make([]xrpc.RepoOp, len(rows)), Pruned: gone.Before(after, idx)}
	for i, row := range rows {
		page.Ops[i] = xrpc.RepoOp{Rev: row.Rev, Idx: row.Idx, Path: row.Path, CID: row.CID, Prev: row.Prev}
	}
	if full {
		last := rows[len(rows)-1]
		page.Cursor = xrpc.FormatOpsCursor(last.Rev, last.Idx)
		return page, nil
	}
	state, err := v.state()
	page.State = &state
	return page, err
}

// opValues reads the values of ops that still stand: a record's current version
// is given wherever it was written, a superseded one nowhere.
func (v *repoView) opValues(ops []xrpc.RepoOp, from, to int, give func(i int, value space.Record)) error {
	at, x := make([]int, 0, to-from), make(car.Index, 0, to-from)
	for i := from; i < to; i++ {
		op := &ops[i]
		if leaf, ok := v.repo.Leaf(op.Path); ok && !op.CID.IsZero() && leaf.CID == op.CID {
			at, x = append(at, i), append(x, space.IndexEntry{Path: op.Path, CID: op.CID})
		}
	}
	return v.some(x, func(i int, r space.Record) { give(at[i], r) })
}

// some reads records of the index.
func (v *repoView) some(x car.Index, give func(i int, r space.Record)) error {
	err := v.Values(v.author, x, func(i int, cid space.CID, value space.Record) error {
		if cid != x[i].CID {
			return fmt.Errorf("%s is not what the index says: %w", x[i].Path, space.ErrUnavailable)
		}
		give(i, value)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read records: %w", diskError(err))
	}
	return nil
}

// The author's word on a state comes with each 64th entry and when the author
// falls silent. So long a reader elsewhere may have to wait for a commit.
const (
	commitWait = 2 * time.Second
	commitLook = 10 * time.Millisecond
)

// stated views a repo of which there is a commit. Where the author's word on the
// present state has not come yet, it waits a moment. The caller releases it.
func (n *Node) stated(ctx context.Context, id space.ID, author space.DID) (*repoView, commit.Commit, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, commit.Commit{}, err
	}
	for until := time.Now().Add(commitWait); ; {
		v, err := a.view(author)
		if err != nil {
			return nil, commit.Commit{}, err
		}
		state, err := v.state()
		if err == nil && state.Commit != nil {
			return v, *state.Commit, nil
		}
		v.Release()
		if err != nil {
			return nil, commit.Commit{}, err
		}
		if time.Now().After(until) {
			return nil, commit.Commit{}, fmt.Errorf("repo %s: its author has not stated what it is since the last write: %w", author, space.ErrUnavailable)
		}
		select {
		case <-ctx.Done():
			return nil, commit.Commit{}, ctx.Err()
		case <-time.After(commitLook):
		}
	}
}

// Snapshot holds an author's repo still for whoever reads all of it.
func (n *Node) Snapshot(ctx context.Context, id space.ID, author space.DID) (*xrpc.Snapshot, error) {
	v, c, err := n.stated(ctx, id, author)
	if err != nil {
		return nil, err
	}
	return &xrpc.Snapshot{Commit: c, Index: v.index(), Values: v.values, Close: v.Release}, nil
}

// Commit is a commit of the repo as it is, or was within a moment.
func (n *Node) Commit(ctx context.Context, id space.ID, author space.DID) (commit.Commit, error) {
	v, c, err := n.stated(ctx, id, author)
	if err != nil {
		return commit.Commit{}, err
	}
	v.Release()
	return c, nil
}
