package control

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

const logFile = "testdata/log.txt"

// golden is a log of every kind that is built.
func golden(t *testing.T) *log {
	l := founded(t)
	v := testInvite("golden")
	v.ExpiresMs = uint64(testTime + 86_400_000)
	l.add(KindInvite, v)
	l.add(KindMemberAdd, l.memberBy(1, v, 1))
	l.add(KindMemberAdd, l.member(2))
	p := space.DefaultPolicy()
	p.DisplayName, p.Description = "Orchard", "Apples and pears"
	p.Config = must(space.RecordFromJSON([]byte(`{"theme":"green"}`)))
	l.add(KindPolicy, p)
	l.add(KindMemberAdd, l.memberBy(3, v, 2))
	l.add(KindEpoch, l.rotated(KindEpoch, Rotation{}, func(r *Rotation) {
		r.Epoch.Inner = must(EpochInner{IssuerPub: pub(fixedKey("issuer")), FetchPub: pub(fixedKey("fetch")), CtlLink: []byte("link")}.Encode())
	}))
	l.keys.CK = bytes.Repeat([]byte{8}, 32)
	v2 := testInvite("second epoch")
	v2.NeedsApproval = true
	l.add(KindInvite, v2)
	goldenChanges(l, v2)
	return l
}

// goldenChanges goes on with the kinds that take something away.
func goldenChanges(l *log, v Invite) {
	l.add(KindInviteRevoke, InviteRevoke{ID: v.ID})
	m1, m2, m3 := must2(l.s.AtSlot(1)), must2(l.s.AtSlot(2)), must2(l.s.AtSlot(3))
	l.add(KindKeeperSet, KeeperSet{Slot: 2, C: m2.C, Caps: CapAdmit | CapSequence, Devices: [][32]byte{pub(fixedKey("keeper"))}, Issuer: []byte("sealed issuer")})
	cut := Cut{Chain: [32]byte{1}, Seq: 7, ID: [32]byte{2}}
	l.add(KindCheckpoint, Checkpoint{Epoch: 1, Topic: [32]byte{3}, Count: 9, Digest: [32]byte{4}, Heads: []Cut{cut}})
	l.add(KindMemberLevel, MemberLevel{Slot: 1, C: m1.C, Level: space.LevelWrite})
	cut.Seq++
	l.add(KindMemberRemove, l.rotated(KindMemberRemove, MemberRemove{Slot: 3, C: m3.C}, func(r *Rotation) {
		r.Epoch.Cuts, r.Ended = []Cut{cut}, []identity.Commitment{m2.C}
	}))
	l.keys.CK = bytes.Repeat([]byte{9}, 32)
	l.add(KindDelegationSet, Delegation{Slot: l.s.NextSlot(), Child: [32]byte{5}, Level: space.LevelRead, Descriptor: must(testDescriptor([32]byte{5}, l.now).Encode())})
	p := l.s.Policy
	p.Mint = space.MintPublic
	l.add(KindPolicy, p)
	p.Mint = space.MintMemberList
	l.add(KindPolicy, l.rotated(KindPolicy, PolicyChange{Policy: p}))
	l.keys.CK = bytes.Repeat([]byte{10}, 32)
	l.now += 1000
	root := BuildKeys{Proposer: l.keys.Proposer, Sequencer: l.keys.Proposer}
	l.apply(must(Build(l.s, KindSequencer, Sequencer{Slot: 2, Device: pub(fixedKey("keeper"))}, root, l.now, l.rand)))
	l.keys.Sequencer = fixedKey("keeper")
	l.add(KindDelete, Delete{Reason: "the end"})
}

// What the first version of the log wrote can still be read, and it gives the
// state it gave, as far as that knew.
func TestFirstGoldenLog(t *testing.T) {
	raws, err := readHex("testdata/log1.txt")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Replay(raws[:7], func(uint64) []byte { return bytes.Repeat([]byte{7}, 32) })
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 4 || s.Epoch != 1 || s.Policy.DisplayName != "Orchard" || s.NextSlot() != 4 {
		t.Fatalf("it gives\n%s", describe(s))
	}
	for v := range s.Invites() {
		if v.Uses != 2 {
			t.Fatalf("invite used %d times", v.Uses)
		}
	}
}

// The bytes of a log are pinned: with the same keys, times and randomness
// Build gives them, and they give the state written beside them.
func TestGoldenLog(t *testing.T) {
	l := golden(t)
	if *update {
		var b strings.Builder
		b.WriteString("# a log in hex, one entry a line, and its state; rewritten by go test -update\n")
		for _, e := range l.entries {
			fmt.Fprintf(&b, "%x\n", e.Raw())
		}
		for line := range strings.Lines(describe(l.s)) {
			b.WriteString("# " + line)
		}
		if err := os.WriteFile(logFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raws, err := readHex(logFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(raws) != len(l.entries) {
		t.Fatalf("%d entries in %s, want %d", len(raws), logFile, len(l.entries))
	}
	for i, e := range l.entries {
		if !bytes.Equal(raws[i], e.Raw()) {
			t.Errorf("entry %d (%v): built\n%x\nwant\n%x", i, e.Kind, e.Raw(), raws[i])
		}
	}
	s, err := Replay(raws, func(epoch uint64) []byte { return bytes.Repeat([]byte{byte(6 + epoch)}, 32) })
	if err != nil {
		t.Fatal(err)
	}
	file := must(os.ReadFile(logFile))
	for line := range strings.Lines(describe(s)) {
		if !bytes.Contains(file, []byte("# "+line)) {
			t.Errorf("the state says %q, %s does not", line, logFile)
		}
	}
}

func TestReplayRefuses(t *testing.T) {
	l := golden(t)
	var raws [][]byte
	for _, e := range l.entries {
		raws = append(raws, e.Raw())
	}
	one := func(uint64) []byte { return bytes.Repeat([]byte{7}, 32) }
	none := func(uint64) []byte { return nil }
	for name, tt := range map[string]struct {
		log  [][]byte
		ck   func(uint64) []byte
		want error
	}{
		"empty":            {nil, one, space.ErrMalformed},
		"no key":           {raws, none, space.ErrNoKey},
		"key of epoch 1":   {raws, one, space.ErrForged},
		"no genesis":       {raws[1:], one, ErrGap{Want: 0, Got: l.entries[1].Head()}},
		"entry left out":   {[][]byte{raws[0], raws[2]}, none, ErrGap{Want: 1, Have: l.entries[0].Head(), Got: l.entries[2].Head()}},
		"no body":          {[][]byte{forgeRaw(draft{kind: KindGenesis}, []byte{0x80}, l.keys)}, none, space.ErrMalformed},
		"entry cut":        {[][]byte{raws[0], raws[1][:300]}, one, space.ErrMalformed},
		"entry twice":      {[][]byte{raws[0], raws[1], raws[1]}, one, ErrStale{Have: l.entries[1].Head(), Got: l.entries[1].Head()}},
		"prefix":           {raws[:3], one, nil},
		"clear needs none": {raws[:2], none, nil},
	} {
		if s, err := Replay(tt.log, tt.ck); !errors.Is(err, tt.want) || (s == nil) == (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// Build signs nothing that Apply would refuse, and says why.
func TestBuildRefuses(t *testing.T) {
	l := populated(t)
	o := must(testOwner())
	stranger := l.keys
	stranger.Proposer = fixedKey("x")
	usurper := l.keys
	usurper.Sequencer = fixedKey("x")
	noCK := l.keys
	noCK.CK = nil
	tests := []struct {
		name string
		kind Kind
		body any
		keys BuildKeys
		ms   int64
		want error
	}{
		{"slot taken", KindMemberAdd, MemberAdd{C: [32]byte{1}, DID: "did:web:x.example", Level: space.LevelRead}, l.keys, l.now, space.ErrMalformed},
		{"body of another kind", KindMemberAdd, testInvite("n"), l.keys, l.now, space.ErrMalformed},
		{"body by pointer", KindInvite, &Invite{}, l.keys, l.now, space.ErrUnsupported},
		{"no body", KindCheckpoint, nil, l.keys, l.now, space.ErrUnsupported},
		{"bad shape", KindInvite, Invite{}, l.keys, l.now, space.ErrMalformed},
		{"genesis", KindGenesis, genesisBody(o), l.keys, l.now, space.ErrMalformed},
		{"negative time", KindInvite, testInvite("n"), l.keys, -1, space.ErrMalformed},
		{"stranger proposes", KindInvite, testInvite("n"), stranger, l.now, space.ErrForbidden},
		{"stranger orders", KindInvite, testInvite("n"), usurper, l.now, space.ErrForbidden},
		{"no keys", KindInvite, testInvite("n"), BuildKeys{}, l.now, space.ErrNoKey},
		{"no control key", KindInvite, testInvite("n"), noCK, l.now, space.ErrNoKey},
		{"too large", KindEpoch, func() Epoch {
			x := l.epoch()
			x.Wraps = make([]Wrap, 300)
			for i := range x.Wraps {
				x.Wraps[i] = Wrap{Slot: uint32(i), Sealed: make([]byte, 1168)}
			}
			return x
		}(), l.keys, l.now, space.ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := Build(l.s, tt.kind, tt.body, tt.keys, tt.ms, fixed("b"))
			if !errors.Is(err, tt.want) || e != nil {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
	for n := range int64(40) {
		if _, err := Build(l.s, KindInvite, testInvite("n"), l.keys, l.now, bytes.NewReader(make([]byte, n))); err == nil {
			t.Fatalf("built with %d random bytes", n)
		}
	}
	if _, err := Build(l.s, KindInvite, testInvite("n"), l.keys, l.now, iotest.ErrReader(errors.New("no entropy"))); err == nil {
		t.Fatal("built without randomness")
	}
}

func TestBuildGenesisRefuses(t *testing.T) {
	l := drafted(t)
	g := genesisBody(must(testOwner()))
	for name, tt := range map[string]struct {
		edit func(*Genesis, *BuildKeys)
		want error
	}{
		"no keys":      {func(_ *Genesis, k *BuildKeys) { *k = BuildKeys{} }, space.ErrNoKey},
		"other device": {func(_ *Genesis, k *BuildKeys) { k.Sequencer = fixedKey("x") }, space.ErrForbidden},
		"other DID":    {func(g *Genesis, _ *BuildKeys) { g.SpaceDID = "did:web:x.example" }, space.ErrForged},
		"policy":       {func(g *Genesis, _ *BuildKeys) { g.Policy.Attribution = space.AttributionSig }, space.ErrUnsupported},
	} {
		b, k := g, l.keys
		tt.edit(&b, &k)
		if e, err := BuildGenesis(b, k, testTime, fixed("b")); !errors.Is(err, tt.want) || e != nil {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestBuildGenesisNeedsSalt(t *testing.T) {
	l := drafted(t)
	if _, err := BuildGenesis(genesisBody(must(testOwner())), l.keys, testTime, bytes.NewReader(make([]byte, saltSize-1))); err == nil {
		t.Fatal("built with 15 random bytes")
	}
}

// What Build returns is what another node gets from its bytes.
func TestBuildReturnsItOpened(t *testing.T) {
	l := golden(t)
	l.keys.CK = bytes.Repeat([]byte{7}, 32)
	for _, e := range l.entries[:8] {
		r := l.reparse(e)
		if !e.Opened() || e.Hash() != r.Hash() || e.Head() != r.Head() || fmt.Sprintf("%+v", e.Body()) != fmt.Sprintf("%+v", r.Body()) {
			t.Fatalf("entry %d: built %+v, parsed %+v", e.Seq, e, r)
		}
	}
	if err := l.entries[8].Open(nil); err != nil {
		t.Fatal(err)
	}
}
