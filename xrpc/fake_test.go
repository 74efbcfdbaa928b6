package xrpc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
)

const (
	owner    space.DID = "did:key:zQ3showner"
	other    space.DID = "did:key:zQ3shother"
	stranger space.DID = "did:key:zQ3shstranger"
)

var (
	home  = space.ID{Authority: owner, Type: "com.example.notes", Key: "home"}
	notes = space.NSID("com.example.note")
)

// fake is a node in memory: the interfaces with their documented errors
// and no cleverness. It is not safe for concurrent use.
type fake struct {
	t      testing.TB
	spaces map[space.ID]*fakeSpace
	peers  []Peer
	key    atcrypto.PrivateKey
	now    int64 // microseconds
	fail   error // what every method answers, if set
	panics bool
	asked  InviteOptions
	joins  func(ctx context.Context, link string) (Joined, error)

	devices  []Device
	tokens   map[string]Token
	settings map[string]string
	asks     int    // how often anything was asked
	updates  int    // how often the policy was written
	reason   string // of the newest deletion
	open     int    // snapshots
	feed     *channel
	bytes    map[space.CID]Blob
	lost     error // what the values of a snapshot end with
}

type fakeSpace struct {
	info     SpaceInfo
	deleted  bool
	endless  error // what Level answers whoever is no member, if set
	members  []Member
	children []Delegation
	doors    []InviteInfo
	waiting  []Request
	accepted bool // somebody would be its authority
	repos    map[space.DID]*fakeRepo
}

type fakeRepo struct {
	repo    *space.Repo
	records map[space.Path]Record
	ops     []RepoOp
}

var (
	_ Spaces  = (*fake)(nil)
	_ Records = (*fake)(nil)
	_ Repos   = (*fake)(nil)
	_ Node    = (*fake)(nil)
)

// newFake has the space home with its owner and one other member.
func newFake(t testing.TB) *fake {
	key, err := atcrypto.ParsePrivateBytesK256(slices.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, spaces: map[space.ID]*fakeSpace{}, key: key, now: 1_800_000_000_000_000}
	if _, err := f.CreateSpace(t.Context(), NewSpace{Type: home.Type, Key: home.Key, Name: "home", Policy: space.DefaultPolicy()}); err != nil {
		t.Fatal(err)
	}
	s := f.spaces[home]
	s.members = append(s.members, Member{DID: other, Level: space.LevelWrite, Via: "invite", AddedMs: 1_800_000_001_000})
	s.doors = []InviteInfo{
		{ID: "aa01", Level: space.LevelRead, Uses: 2, MaxUses: 5, ExpiresMs: 1_900_000_000_123, CreatedBy: owner, CreatedMs: 1_800_000_000_000},
		{ID: "aa02", Level: space.LevelWrite, Approval: true, CreatedBy: owner, CreatedMs: 1_800_000_002_000},
	}
	s.waiting = []Request{{ID: "cc01", DID: newcomer, Level: space.LevelWrite, Invite: "aa02", AskedMs: 1_800_000_003_000}}
	f.devices = []Device{{ID: "bb01", Name: "desk", Caps: []string{"enrol", "write"}, This: true, AddedMs: 1_800_000_000_000}}
	return f
}

func (f *fake) gate() error {
	f.asks++
	if f.panics {
		panic("the fake was told to")
	}
	return f.fail
}

func (f *fake) space(id space.ID) (*fakeSpace, error) {
	if err := f.gate(); err != nil {
		return nil, err
	}
	s, ok := f.spaces[id]
	if !ok {
		return nil, fmt.Errorf("open space: %w", space.ErrSpaceNotFound)
	}
	return s, nil
}

func (f *fake) tick() space.TID {
	f.now += 1000
	return space.NextTID(f.now, 3, 0)
}

func (f *fake) CreateSpace(_ context.Context, n NewSpace) (SpaceInfo, error) {
	if err := f.gate(); err != nil {
		return SpaceInfo{}, err
	}
	if n.Key == "" {
		n.Key = space.RecordKey(f.tick().String())
	}
	id := space.ID{Authority: owner, Type: n.Type, Key: n.Key}
	if n.OwnDID {
		id.Authority = "did:plc:drawn"
	}
	if _, ok := f.spaces[id]; ok {
		return SpaceInfo{}, fmt.Errorf("create space: %w", space.ErrSpaceExists)
	}
	for _, s := range f.spaces {
		if n.Name != "" && s.info.Name == n.Name {
			return SpaceInfo{}, fmt.Errorf("create space: %w", ErrPetnameTaken)
		}
	}
	if err := n.Policy.Validate(); err != nil {
		return SpaceInfo{}, err
	}
	s := &fakeSpace{
		info: SpaceInfo{
			ID: id, SpaceID: sha256.Sum256([]byte(id.AT())), Authority: owner, Creator: owner, Policy: n.Policy,
			Level: space.LevelWrite, Epoch: 1, Name: n.Name, CreatedMs: f.now / 1000,
		},
		members: []Member{{DID: owner, Level: space.LevelWrite, Keeper: true, Caps: AllCaps, Sequencer: true, Authority: true, AddedMs: f.now / 1000}},
		repos:   map[space.DID]*fakeRepo{},
	}
	f.spaces[id] = s
	return s.info, nil
}

func (f *fake) Space(_ context.Context, id space.ID) (SpaceInfo, error) {
	s, err := f.alive(id)
	if err != nil {
		return SpaceInfo{}, err
	}
	return s.info, nil
}

func (f *fake) Spaces(context.Context) ([]SpaceInfo, error) {
	var all []SpaceInfo
	for _, s := range f.spaces {
		all = append(all, s.info)
	}
	return all, f.gate()
}

func (f *fake) Members(_ context.Context, id space.ID) ([]Member, error) {
	s, err := f.space(id)
	if err != nil {
		return nil, err
	}
	return s.members, nil
}

func (f *fake) Invite(_ context.Context, id space.ID, o InviteOptions) (Invite, error) {
	if _, err := f.space(id); err != nil {
		return Invite{}, err
	}
	f.asked = o
	return Invite{"00ff", "kith:j#secret", o.Level, o.MaxUses, o.ExpiresMs, o.Approval}, nil
}

func (f *fake) Join(ctx context.Context, link string) (Joined, error) {
	if err := f.gate(); err != nil {
		return Joined{}, err
	}
	if f.joins != nil {
		return f.joins(ctx, link)
	}
	if link == "kith:j#again" {
		return Joined{ID: home, Level: space.LevelWrite, Epoch: 1, Name: "home"}, nil
	}
	if link != "kith:j#secret" {
		return Joined{}, fmt.Errorf("join: %w", space.ErrInvite)
	}
	return Joined{ID: home, Level: space.LevelWrite, Epoch: 1, Asked: "12D3peer", By: string(owner), Name: "home"}, nil
}

func (s *fakeSpace) repo(did space.DID) *fakeRepo {
	r, ok := s.repos[did]
	if !ok {
		r = &fakeRepo{space.NewRepo(), map[space.Path]Record{}, nil}
		s.repos[did] = r
	}
	return r
}

func (f *fake) Write(_ context.Context, id space.ID, writes []Write, o WriteOptions) (Written, error) {
	return f.writeAs(owner, id, writes, o)
}

// writeAs checks all writes on a copy before it changes anything.
func (f *fake) writeAs(author space.DID, id space.ID, writes []Write, o WriteOptions) (Written, error) {
	s, err := f.space(id)
	if err != nil {
		return Written{}, err
	}
	head := ""
	if r, ok := s.repos[author]; ok && r.repo.Rev() != 0 {
		head = r.repo.Rev().String()
	}
	if o.SwapCommit != nil && *o.SwapCommit != head {
		return Written{}, fmt.Errorf("swapCommit: %w", space.ErrSwap)
	}
	rev := f.tick()
	done := Written{Records: make([]RecordRef, len(writes))}
	batch := space.Batch{Rev: rev}
	var ops []RepoOp
	live := map[space.Path]Record{}
	if r, ok := s.repos[author]; ok {
		live = maps.Clone(r.records)
	}
	for i, w := range writes {
		if w.Path.Key == "" {
			w.Path.Key = space.RecordKey(f.tick().String())
		}
		ref, op, err := f.check(live, w, space.URI{Space: id, Author: author, Path: w.Path})
		if err != nil {
			return Written{}, fmt.Errorf("write %s: %w", w.Path, err)
		}
		done.Records[i] = ref
		if op == nil {
			continue
		}
		op.Rev, op.Idx = rev, len(ops)
		ops = append(ops, *op)
		batch.Ops = append(batch.Ops, space.Op{Path: op.Path, Prev: op.Prev, Value: op.Value})
		if op.CID.IsZero() {
			delete(live, op.Path)
		} else {
			live[op.Path] = Record{ref.URI, ref.CID, rev, op.Value}
		}
	}
	if len(ops) == 0 {
		return done, nil
	}
	r := s.repo(author)
	st := r.repo.Begin()
	st.Apply(batch, space.Stamp{Rev: rev})
	st.Commit()
	r.records, r.ops = live, append(r.ops, ops...)
	s.info.Rev, done.Rev = rev, rev
	return done, nil
}

func (f *fake) check(live map[space.Path]Record, w Write, uri space.URI) (RecordRef, *RepoOp, error) {
	had, ok := live[w.Path]
	switch {
	case w.Action == ActionCreate && ok:
		return RecordRef{}, nil, space.ErrRecordExists
	case !ok && (w.Swap != nil || w.Action == ActionUpdate || w.Action == ActionDelete && !w.IfExists):
		return RecordRef{}, nil, space.ErrRecordNotFound
	case w.Swap != nil && *w.Swap != had.CID:
		return RecordRef{}, nil, fmt.Errorf("swapRecord: %w", space.ErrSwap)
	case w.Action == ActionDelete && !ok:
		return RecordRef{URI: uri}, nil, nil
	}
	op := &RepoOp{Path: w.Path, Prev: had.CID, Value: w.Value}
	if w.Action != ActionDelete {
		op.CID = w.Value.CID()
	}
	return RecordRef{uri, op.CID}, op, nil
}

func (f *fake) Record(_ context.Context, id space.ID, author space.DID, path space.Path) (Record, error) {
	s, err := f.space(id)
	if err != nil {
		return Record{}, err
	}
	var found []space.DID
	for did, r := range s.repos {
		if _, ok := r.records[path]; ok && (author == "" || author == did) {
			found = append(found, did)
		}
	}
	slices.Sort(found)
	switch {
	case len(found) == 0:
		return Record{}, fmt.Errorf("record: %w", space.ErrRecordNotFound)
	case len(found) > 1:
		return Record{}, fmt.Errorf("record: %w", ErrAmbiguous{found})
	}
	return s.repos[found[0]].records[path], nil
}

func (f *fake) Records(_ context.Context, id space.ID, q RecordQuery) ([]Record, string, error) {
	s, err := f.space(id)
	if err != nil {
		return nil, "", err
	}
	var all []Record
	for did, r := range s.repos {
		for _, rec := range r.records {
			if (q.Repo == "" || q.Repo == did) && (q.Collection == "" || q.Collection == rec.URI.Path.Collection) {
				all = append(all, rec)
			}
		}
	}
	order := func(a, b Record) int {
		c := cmp.Or(cmp.Compare(a.URI.Author, b.URI.Author), a.URI.Path.Compare(b.URI.Path))
		if q.Reverse {
			return -c
		}
		return c
	}
	slices.SortFunc(all, order)
	if q.Cursor != "" {
		uri, err := space.ParseURI(strings.ReplaceAll(q.Cursor, "!", "/"))
		if err != nil {
			return nil, "", fmt.Errorf("records: %w", ErrCursor)
		}
		all = slices.DeleteFunc(all, func(r Record) bool { return order(r, Record{URI: uri}) <= 0 })
	}
	next := ""
	if len(all) > q.Limit {
		all = all[:q.Limit]
		next = strings.ReplaceAll(all[q.Limit-1].URI.String(), "/", "!")
	}
	if q.NoValues {
		for i := range all {
			all[i].Value = nil
		}
	}
	return all, next, nil
}

func (f *fake) RepoState(_ context.Context, id space.ID, author space.DID) (RepoState, error) {
	s, err := f.space(id)
	if err != nil {
		return RepoState{}, err
	}
	r, ok := s.repos[author]
	if !ok {
		return RepoState{}, fmt.Errorf("repo state: %w", space.ErrRepoNotFound)
	}
	lt := r.repo.State()
	state, err := lt.AppendBinary(nil)
	if err != nil {
		return RepoState{}, err
	}
	var ikm [32]byte
	copy(ikm[:], "keying material for this test")
	c, err := commit.Sign(f.key, ikm, id, author, r.repo.Rev(), r.repo.Digest())
	if err != nil {
		return RepoState{}, err
	}
	return RepoState{author, r.repo.Rev(), r.repo.Count(), r.repo.Digest(), state, &c}, nil
}

func (f *fake) Oplog(ctx context.Context, id space.ID, author space.DID, q OpsQuery) (*Oplog, error) {
	whole := q
	if q.WholeRevs {
		whole.Limit = 1 << 20
	}
	p, err := f.RepoOps(ctx, id, author, whole)
	if err != nil {
		return nil, err
	}
	if p.State == nil && p.Cursor == "" {
		return nil, fmt.Errorf("oplog: %w", space.ErrRepoNotFound)
	}
	n := min(q.Limit, len(p.Ops))
	for n > 0 && n < len(p.Ops) && p.Ops[n].Rev == p.Ops[n-1].Rev {
		n++
	}
	if n < len(p.Ops) {
		p.Ops, p.Cursor, p.State = p.Ops[:n], FormatOpsCursor(p.Ops[n-1].Rev, p.Ops[n-1].Idx), nil
	}
	return p.Held(), nil
}

func (f *fake) RepoOps(ctx context.Context, id space.ID, author space.DID, q OpsQuery) (OpsPage, error) {
	s, err := f.space(id)
	if err != nil {
		return OpsPage{}, err
	}
	r, ok := s.repos[author]
	if !ok {
		return OpsPage{}, nil
	}
	var p OpsPage
	for _, op := range r.ops {
		if op.Rev <= q.Since {
			continue
		}
		if q.Cursor != "" {
			rev, idx, err := ParseOpsCursor(q.Cursor)
			if err != nil {
				return OpsPage{}, err
			}
			if op.Rev < rev || op.Rev == rev && op.Idx <= idx {
				continue
			}
		}
		if cur := r.records[op.Path]; q.NoValues || op.CID.IsZero() || cur.CID != op.CID {
			op.Value = nil
		}
		p.Ops = append(p.Ops, op)
		if len(p.Ops) == q.Limit {
			p.Cursor = FormatOpsCursor(op.Rev, op.Idx)
			return p, nil
		}
	}
	st, err := f.RepoState(ctx, id, author)
	p.State = &st
	return p, err
}

func (f *fake) Repos(_ context.Context, id space.ID) ([]RepoInfo, error) {
	s, err := f.space(id)
	if err != nil {
		return nil, err
	}
	var all []RepoInfo
	for did, r := range s.repos {
		all = append(all, RepoInfo{did, r.repo.Rev(), r.repo.Digest(), "vouched"})
	}
	return all, nil
}

func (f *fake) Status(context.Context) (Status, error) {
	st := Status{
		Version: "v0", DID: owner, PeerID: "12D3me", Peers: f.peers,
		Spaces: []SpaceStatus{{URI: home.String(), Role: "write", Epoch: 1}},
	}
	return st, f.gate()
}

func (f *fake) Peers(context.Context) ([]Peer, error) { return f.peers, f.gate() }

func (f *fake) Connect(_ context.Context, addr string) (Peer, error) {
	if err := f.gate(); err != nil {
		return Peer{}, err
	}
	if !strings.HasPrefix(addr, "/ip4/") {
		return Peer{}, fmt.Errorf("addr %q: want a multiaddr: %w", addr, space.ErrMalformed)
	}
	p := Peer{PeerID: "12D3peer", Addrs: []string{addr}, Direct: true, Since: 1_800_000_000_000}
	f.peers = append(f.peers, p)
	return p, nil
}

func (f *fake) Disconnect(_ context.Context, peerID string) error {
	if err := f.gate(); err != nil {
		return err
	}
	if peerID != "12D3peer" {
		return fmt.Errorf("disconnect %s: %w", peerID, ErrPeerNotFound)
	}
	f.peers = nil
	return nil
}

// put writes a record as an author, for tests that only need it there.
func (f *fake) put(author space.DID, path, json string) RecordRef {
	f.t.Helper()
	p, err1 := space.ParsePath(path)
	rec, err2 := space.RecordFromJSON([]byte(json))
	if err := errors.Join(err1, err2); err != nil {
		f.t.Fatal(err)
	}
	done, err := f.writeAs(author, home, []Write{{Action: ActionPut, Path: p, Value: rec}}, WriteOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return done.Records[0]
}
