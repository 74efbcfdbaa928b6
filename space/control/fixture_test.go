package control

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

var update = flag.Bool("update", false, "rewrite testdata")

const (
	identityFile = "testdata/identity.txt"
	testTime     = int64(1_760_000_000_000)
)

// fixed is a reader whose bytes are the same in every run.
func fixed(name string) io.Reader {
	return rand.NewChaCha8(space.Hash(space.LabelSpace, []byte("test"), []byte(name)))
}

func fixedKey(name string) ed25519.PrivateKey {
	h := space.Hash(space.LabelSpace, []byte("key"), []byte(name))
	return ed25519.NewKeyFromSeed(h[:])
}

func pub(k ed25519.PrivateKey) [32]byte { return [32]byte(k.Public().(ed25519.PublicKey)) }

// owner is the authority of the test spaces. Its log is kept in testdata:
// K-256 signatures and HPKE wraps differ each time they are made.
type owner struct {
	dev   identity.Device
	log   [][]byte
	state identity.State
}

var testOwner = sync.OnceValues(func() (owner, error) { return readOwner(identityFile) })
var otherOwner = sync.OnceValues(func() (owner, error) { return newOwner("other") })

func newOwner(name string) (owner, error) {
	seed, err := identity.NewSeed(fixed(name))
	if err != nil {
		return owner{}, err
	}
	c, err := identity.New(fixed(name+" device"), seed, testTime)
	return owner{dev: c.Device, log: c.Log, state: c.State}, err
}

func readOwner(file string) (owner, error) {
	if *update {
		o, err := newOwner("owner")
		if err != nil {
			return owner{}, err
		}
		return o, writeHex(file, append([][]byte{o.dev.Marshal()}, o.log...))
	}
	lines, err := readHex(file)
	if err != nil || len(lines) < 2 {
		return owner{}, fmt.Errorf("%s: %w", file, errors.Join(err, errors.New("want a device and a log; run with -update")))
	}
	o := owner{log: lines[1:]}
	if o.dev, err = identity.UnmarshalDevice(lines[0]); err != nil {
		return owner{}, err
	}
	o.state, err = identity.Verify(o.log)
	return o, err
}

func readHex(file string) ([][]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		v, err := hex.DecodeString(line)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func writeHex(file string, lines [][]byte) error {
	var b strings.Builder
	b.WriteString("# hex, one item a line; rewritten by go test -update\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "%x\n", l)
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// log is a space that a test writes: its state, entries and keys.
type log struct {
	tb      testing.TB
	s       *State
	entries []*Entry
	keys    BuildKeys
	rand    io.Reader
	now     int64
}

// drafted is a log with no entry yet.
func drafted(tb testing.TB) *log {
	tb.Helper()
	o, err := testOwner()
	if err != nil {
		tb.Fatal(err)
	}
	return &log{
		tb:   tb,
		keys: BuildKeys{Proposer: o.dev.Sig(), Sequencer: o.dev.Sig(), CK: bytes.Repeat([]byte{7}, 32)},
		rand: fixed("log"),
		now:  testTime,
	}
}

// founding makes genesis and epoch 1 once; entries and states do not change.
var founding = sync.OnceValues(func() (first []*Entry, s *State) {
	l := drafted(panicTB{})
	l.apply(must(BuildGenesis(genesisBody(must(testOwner())), l.keys, l.now, l.rand)))
	l.add(KindEpoch, l.epoch())
	return l.entries, l.s
})

// panicTB is for what is made outside of any test.
type panicTB struct{ testing.TB }

func (panicTB) Helper()           {}
func (panicTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// founded is a log with genesis and epoch 1.
func founded(tb testing.TB) *log {
	tb.Helper()
	l := drafted(tb)
	first, s := founding()
	l.entries, l.s, l.now = append(l.entries, first...), s, l.now+1000
	must(io.CopyN(io.Discard, l.rand, 2*saltSize)) // what the two entries drew
	return l
}

func genesisBody(o owner) Genesis {
	id := space.ID{Authority: o.state.DID, Type: "com.example.forum", Key: "self"}
	p := space.DefaultPolicy()
	p.DisplayName = "Garden"
	return Genesis{
		URI: id.AT(), SpaceDID: o.state.DID,
		AuthorityC: o.state.C, AuthorityDID: o.state.DID, CreatorDID: o.state.DID,
		IdentityLog: o.log, AuthorityPub: [32]byte(o.state.SigPub), SequencerPub: o.dev.ID(), Policy: p,
	}
}

func (l *log) apply(e *Entry) {
	l.tb.Helper()
	s, err := Apply(l.s, e)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.s, l.entries = s, append(l.entries, e)
}

// build makes the next entry without applying it.
func (l *log) build(kind Kind, body any) *Entry {
	l.tb.Helper()
	l.now += 1000
	e, err := Build(l.s, kind, body, l.keys, l.now, l.rand)
	if err != nil {
		l.tb.Fatal(err)
	}
	return e
}

func (l *log) add(kind Kind, body any) *Entry {
	l.tb.Helper()
	e := l.build(kind, body)
	l.apply(e)
	return e
}

// epoch is the next one, wrapped to the roster.
func (l *log) epoch() Epoch { return epochFor(l.s) }

func epochFor(s *State) Epoch {
	x := Epoch{N: s.Epoch + 1, RosterRoot: s.RosterRoot(), Inner: []byte("sealed inner body")}
	x.KID = space.Hash(space.LabelKID, binary.BigEndian.AppendUint64(nil, x.N))
	if s.ReaderCount() > MaxInlineWraps {
		x.Pages = make([][32]byte, (s.ReaderCount()+PageSlots-1)/PageSlots)
		return x
	}
	for r := range s.Readers() {
		x.Wraps = append(x.Wraps, Wrap{Slot: r.Slot, C: r.C, PUKGen: 1, Sealed: []byte("sealed key")})
	}
	return x
}

// rotation is the body of an epoch entry from the second on.
func (l *log) rotation() Rotation { return rotationFor(l.s) }

func rotationFor(s *State) Rotation {
	r := Rotation{Epoch: epochFor(s)}
	for m := range s.Admitters() {
		r.Issuers = append(r.Issuers, Wrap{Slot: m.Slot, C: m.C, PUKGen: 1, Sealed: []byte("sealed issuer")})
	}
	return r
}

// nextEpoch is the body of the next epoch entry, edited.
func (l *log) nextEpoch(edit func(*Epoch)) any {
	x := l.epoch()
	edit(&x)
	if l.s.Epoch == 0 {
		return x
	}
	r := l.rotation()
	r.Epoch = x
	return r
}

// rotated is the body with the rotation it needs, edited.
func (l *log) rotated(kind Kind, body any, edit ...func(*Rotation)) any {
	l.tb.Helper()
	next, err := Preview(l.s, kind, body)
	if err != nil {
		l.tb.Fatal(err)
	}
	r := rotationFor(next)
	for _, f := range edit {
		f(&r)
	}
	return WithRotation(body, r)
}

// as is the log written by another proposer.
func (l *log) as(proposer ed25519.PrivateKey) *log {
	n := *l
	n.keys.Proposer = proposer
	return &n
}

// member is the body that admits person i next.
func (l *log) member(i int) MemberAdd {
	c := space.Hash(space.LabelCommit, fmt.Append(nil, i))
	return MemberAdd{
		Slot: l.s.NextSlot(), C: c, DID: space.DID(fmt.Sprintf("did:web:m%d.example", i)),
		Level: space.LevelWrite, ILHead: space.Hash(space.LabelIdentityLog, c[:]),
	}
}

func testInvite(name string) Invite {
	p := pub(fixedKey(name))
	return Invite{ID: InviteID(p[:]), Pub: p, Level: space.LevelRead, MaxUses: 2}
}

func (l *log) memberBy(i int, v Invite, use uint32) MemberAdd {
	b := l.member(i)
	b.Level, b.InviteID, b.Use = v.Level, v.ID[:], use
	return b
}

// next is the framing of the entry after the head, to be spoilt.
func (l *log) next(kind Kind) draft {
	d := draft{kind: kind, timeMs: l.now}
	if l.s != nil {
		d.term, d.seq, d.spaceID, d.epoch = l.s.Head.Term, l.s.Head.Seq+1, l.s.SpaceID, l.s.Epoch
		d.prev, d.base = l.s.Head.Hash, l.s.Head.Hash
	}
	if kind == KindEpoch {
		d.epoch++
	}
	return d
}

// nextTerm is the framing of a sequencer entry after the head.
func (l *log) nextTerm() draft {
	d := l.next(KindSequencer)
	d.term++
	return d
}

// forge signs whatever it is given: no rule but the framing is asked.
func forge(tb testing.TB, d draft, body any, keys BuildKeys) *Entry {
	tb.Helper()
	b, ok := body.([]byte)
	if !ok {
		b = must(space.Marshal(body))
	}
	e, err := Parse(forgeRaw(d, b, keys))
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func forgeRaw(d draft, body []byte, keys BuildKeys) []byte {
	plain := append(append(d.base[:len(d.base):len(d.base)], make([]byte, saltSize)...), body...)
	e := &Entry{raw: append(must(d.seal(plain, pub(keys.Proposer), keys.CK, fixed("forge"))), make([]byte, 128)...)}
	e.ProposalHash = proposalHash(d.kind, d.spaceID, plain)
	e.sign(keys)
	return e.raw
}

// reparse gives the entry as another node receives it, opened.
func (l *log) reparse(e *Entry) *Entry {
	l.tb.Helper()
	r, err := Parse(e.Raw())
	if err != nil {
		l.tb.Fatal(err)
	}
	if err := r.Open(l.keys.CK); err != nil {
		l.tb.Fatal(err)
	}
	return r
}

// describe writes down all that a state says.
func describe(s *State) string {
	if s == nil {
		return "no space\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "space %x %s by %s\n", s.SpaceID, s.ID, s.Authority.DID)
	fmt.Fprintf(&b, "head %d.%d %x\n", s.Head.Term, s.Head.Seq, s.Head.Hash)
	fmt.Fprintf(&b, "epoch %d %x\n", s.Epoch, s.EpochKID)
	fmt.Fprintf(&b, "policy %s %s %q\n", s.Policy.Mint, s.Policy.KeyPolicy, s.Policy.DisplayName)
	fmt.Fprintf(&b, "authority %s at %d %x, sequencer at %d %x, deleted %v %q\n",
		s.Authority.DID, s.AuthoritySlot, s.AuthorityPub[:4], s.SequencerSlot, s.SequencerPub[:4], s.Deleted, s.DeleteReason)
	fmt.Fprintf(&b, "roster %x next slot %d\n", s.RosterRoot(), s.NextSlot())
	for m := range s.Members() {
		fmt.Fprintf(&b, "member %d %x %s %v il %x invite %x at %d in epoch %d, public %v\n", m.Slot, m.C, m.DID, m.Level, m.ILHead[:4], m.Invite, m.AddedMs, m.Epoch, m.Public)
	}
	for d := range s.Delegations() {
		fmt.Fprintf(&b, "delegation %d %x %v of head %d.%d at %d\n", d.Slot, d.Child, d.Level, d.Descriptor.Head.Term, d.Descriptor.Head.Seq, d.AddedMs)
	}
	for k := range s.Keepers() {
		fmt.Fprintf(&b, "keeper %d %v with %x\n", k.Slot, k.Caps, k.Devices)
	}
	for v := range s.Invites() {
		fmt.Fprintf(&b, "invite %x %v used %d of %d, expires %d, revoked %v\n", v.ID, v.Level, v.Uses, v.MaxUses, v.ExpiresMs, v.Revoked)
	}
	describeHistory(&b, s)
	return b.String()
}

func describeHistory(b *strings.Builder, s *State) {
	s.epochs.scan(func(n uint64, x epochStart) bool {
		fmt.Fprintf(b, "epoch %d from entry %d.%d %x\n", n, x.head.Term, x.head.Seq, x.kid[:4])
		return true
	})
	s.people.scan(func(c string, p *person) bool {
		fmt.Fprintf(b, "person %x %v %v", c[:4], p.member != nil && p.member.Gone, p.periods)
		for _, x := range p.endings {
			fmt.Fprintf(b, " up to %d", x.upTo)
			if x.finals == nil {
				fmt.Fprintf(b, " cuts %v", x.cuts)
				continue
			}
			fmt.Fprintf(b, " reopened %v", x.reopened)
			x.finals.scan(func(_ string, c Cut) bool { fmt.Fprintf(b, " %v", c); return true })
		}
		fmt.Fprintln(b)
		return true
	})
	s.finals.scan(func(_ string, c Cut) bool { fmt.Fprintf(b, "final %v\n", c); return true })
	s.checkpoints.scan(func(n uint64, c *Checkpoint) bool { fmt.Fprintf(b, "checkpoint %d of %d\n", n, c.Count); return true })
	s.terms.scan(func(n uint64, t term) bool {
		fmt.Fprintf(b, "term %d from %d by %x\n", n, t.head.Seq, t.sequencer[:4])
		return true
	})
	fmt.Fprintf(b, "self writes %v\n", s.self)
	for h, i := s.recent, 0; h != nil && i < Recent; h, i = h.before, i+1 {
		fmt.Fprintf(b, "head %d.%d %x\n", h.head.Term, h.head.Seq, h.head.Hash[:4])
	}
}
