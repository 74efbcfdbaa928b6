package xrpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/car"
	"github.com/kithnet/kith/space/commit"
	"github.com/kithnet/kith/sync/lthash"
)

// ErrRevRollback: a node shows an older state of a repo than it showed before.
var ErrRevRollback = errors.New("the repo went back to an older rev")

// Source is where a Follower reads: a Client.
type Source interface {
	RepoOps(ctx context.Context, id space.ID, author space.DID, q OpsQuery) (OpsPage, error)
	Repo(ctx context.Context, id space.ID, author space.DID, indexOnly bool) (io.ReadCloser, error)
}

// Version is a record as a Follower has it.
type Version struct {
	CID   space.CID
	Value space.Record
}

// Follower keeps a copy of one repo up to date by its oplog, and does not
// believe the node it reads from: what it has after Sync is what the author's
// commit says. Where the ops do not lead there, whatever the reason, it reads
// the whole repo. It belongs to one goroutine.
type Follower struct {
	Source  Source
	Repo    car.Repo // Key nil: the commit's signature is not checked
	Records map[space.Path]Version
	Rev     space.TID // of the last commit; 0: never synced
	State   lthash.State

	Recovered int // how often the whole repo was read, the first time included
}

const followPage = 1000

// Sync brings the copy to the node's head. It fails with ErrRevRollback where
// that is older than what was seen, with the errors of the Source, and with
// those of car.NewReader where not even the whole repo hangs together; the
// copy stays then as it was.
func (f *Follower) Sync(ctx context.Context) error {
	if f.Rev == 0 {
		return f.recover(ctx)
	}
	next := f.begin()
	head, err := next.follow(ctx)
	if errors.Is(err, ErrRevRollback) {
		return err
	}
	if err == nil {
		f.keep(next, head)
		return nil
	}
	if !errors.Is(err, errDiverged) {
		return err
	}
	return f.recover(ctx)
}

// errDiverged: the ops do not lead to what the commit says.
var errDiverged = errors.New("the oplog does not lead to the commit")

// draft is a Follower's next state.
type draft struct {
	f       *Follower
	changed map[space.Path]*Version // nil: deleted
	state   lthash.State
}

func (f *Follower) begin() *draft {
	return &draft{f: f, changed: map[space.Path]*Version{}, state: f.State}
}

func (f *Follower) keep(d *draft, head *commit.Commit) {
	for p, v := range d.changed {
		if v == nil {
			delete(f.Records, p)
		} else {
			f.Records[p] = *v
		}
	}
	f.Rev, f.State = head.Rev, d.state
}

// follow applies the ops behind the last commit and checks where they lead.
func (d *draft) follow(ctx context.Context) (*commit.Commit, error) {
	f := d.f
	q := OpsQuery{Since: f.Rev, Limit: followPage}
	rev, idx := f.Rev, -1
	for {
		page, err := f.Source.RepoOps(ctx, f.Repo.Space, f.Repo.Author, q)
		if err != nil {
			return nil, err
		}
		if page.Pruned {
			return nil, fmt.Errorf("the ops behind %s are not kept any more: %w", f.Rev, errDiverged)
		}
		for _, op := range page.Ops {
			if op.Rev < rev || op.Rev == rev && op.Idx <= idx || op.Rev <= f.Rev {
				return nil, fmt.Errorf("op %s/%d comes behind %s/%d: %w", op.Rev, op.Idx, rev, idx, errDiverged)
			}
			rev, idx = op.Rev, op.Idx
			if err := d.apply(op); err != nil {
				return nil, err
			}
		}
		if page.Cursor == "" {
			return d.arrive(page, rev)
		}
		if len(page.Ops) == 0 {
			return nil, fmt.Errorf("a page without ops leads on: %w", errDiverged)
		}
		q.Cursor = page.Cursor
	}
}

func (d *draft) version(p space.Path) Version {
	if v, ok := d.changed[p]; ok {
		if v == nil {
			return Version{}
		}
		return *v
	}
	return d.f.Records[p]
}

func (d *draft) apply(op RepoOp) error {
	had := d.version(op.Path)
	if had.CID != op.Prev {
		return fmt.Errorf("op %s/%d replaces what is not there: %w", op.Rev, op.Idx, errDiverged)
	}
	if op.Value != nil && op.Value.CID() != op.CID {
		return fmt.Errorf("op %s/%d brings another value: %w", op.Rev, op.Idx, errDiverged)
	}
	if !op.Prev.IsZero() {
		d.state.Remove(space.AppendElement(nil, op.Path, op.Prev))
	}
	if op.CID.IsZero() {
		d.changed[op.Path] = nil
		return nil
	}
	d.state.Add(space.AppendElement(nil, op.Path, op.CID))
	v := &Version{op.CID, op.Value}
	if op.Value == nil && had.CID == op.CID {
		v.Value = had.Value
	}
	d.changed[op.Path] = v
	return nil
}

// arrive compares what the ops made with the commit at the head.
func (d *draft) arrive(page OpsPage, rev space.TID) (*commit.Commit, error) {
	if page.State == nil || page.State.Commit == nil {
		return nil, fmt.Errorf("no commit at the head: %w", errDiverged)
	}
	c := page.State.Commit
	if err := d.f.check(c); err != nil {
		return nil, err
	}
	if c.Rev < rev || d.state.Sum() != c.Hash {
		return nil, fmt.Errorf("at %s: %w", c.Rev, errDiverged)
	}
	for p, v := range d.changed {
		if v != nil && v.Value == nil {
			return nil, fmt.Errorf("%s has no value: %w", p, errDiverged)
		}
	}
	return c, nil
}

// check takes a commit of the author's that is not older than the last.
func (f *Follower) check(c *commit.Commit) error {
	if f.Repo.Key != nil {
		if err := c.Verify(f.Repo.Key, f.Repo.Space, f.Repo.Author); err != nil {
			return fmt.Errorf("%w: %w", err, errDiverged)
		}
	}
	if c.Rev < f.Rev {
		return fmt.Errorf("%w: %s after %s", ErrRevRollback, c.Rev, f.Rev)
	}
	if c.Rev == f.Rev && f.State.Sum() != c.Hash {
		return fmt.Errorf("%w: two states at %s", ErrRevRollback, c.Rev)
	}
	return nil
}

// recover reads the whole repo.
func (f *Follower) recover(ctx context.Context) error {
	body, err := f.Source.Repo(ctx, f.Repo.Space, f.Repo.Author, false)
	if err != nil {
		return err
	}
	defer body.Close()
	d, err := car.NewReader(body, f.Repo)
	if err != nil {
		return err
	}
	if f.Rev != 0 {
		if err := f.check(&d.Commit); err != nil {
			return err
		}
	}
	records := make(map[space.Path]Version, len(d.Index))
	for {
		e, r, err := d.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		records[e.Path] = Version{e.CID, r}
	}
	f.Records, f.Rev, f.State = records, d.Commit.Rev, d.State
	f.Recovered++
	return nil
}
