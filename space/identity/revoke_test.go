package identity

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

// household is alice with a second device that has the per-user key too.
type household struct {
	log    [][]byte
	s      State
	phone  Device
	laptop Device
	puk    PUK
}

func withTwo(t testing.TB) household {
	t.Helper()
	h := household{log: slices.Clone(alice().Log), laptop: alice().Device, phone: must[Device](t)(NewDevice(testRand(40)))}
	req := must[[]byte](t)(h.phone.Request(alice().State.C, CapsAll))
	entries, puk, s, err := alice().State.Enrol(testRand(41), h.laptop, req, CapsAll, alice().PUK, now)
	if err != nil {
		t.Fatal(err)
	}
	h.log, h.s, h.puk = append(h.log, entries...), s, puk
	if p, err := UnwrapPUK(h.phone, s); err != nil || !p.Equal(puk) {
		t.Fatalf("the new device's per-user key: %v", err)
	}
	return h
}

// revoke is the entry with which by ends dev, and what follows from it.
func (h household) revoke(t testing.TB, by Key, dev DeviceID) ([]byte, PUK, State) {
	t.Helper()
	raw, puk, s, err := h.s.RevokeDevice(testRand(42), by, dev, h.puk, now)
	if err != nil {
		t.Fatal(err)
	}
	return raw, puk, s
}

func TestRevokeDevice(t *testing.T) {
	h := withTwo(t)
	raw, puk, s := h.revoke(t, h.laptop, h.phone.ID())
	switch {
	case !s.Revoked(h.phone.ID()) || s.Revoked(h.laptop.ID()) || h.s.Revoked(h.phone.ID()):
		t.Error("who is revoked")
	case len(s.Devices) != 1 || s.PUK.Gen != h.s.PUK.Gen+1 || s.Seq != h.s.Seq+1:
		t.Errorf("%d devices, generation %d, seq %d", len(s.Devices), s.PUK.Gen, s.Seq)
	case !s.Stale(h.s.PUK.Gen) || s.Stale(s.PUK.Gen) || h.s.Stale(1):
		t.Error("what is stale")
	}
	again := must[State](t)(Verify(append(slices.Clone(h.log), raw)))
	if !again.Revoked(h.phone.ID()) || again.Head != s.Head {
		t.Error("the log says something else than the state")
	}
	if p, err := UnwrapPUK(h.laptop, again); err != nil || !p.Equal(puk) {
		t.Errorf("the device that remains: %v", err)
	}
	if p, err := UnwrapPUK(testSeed(0x11), again); err != nil || !p.Equal(puk) {
		t.Errorf("the words: %v", err)
	}
	if before, err := puk.Previous(again); err != nil || !before.Equal(h.puk) {
		t.Errorf("the key before: %v", err)
	}
	if _, err := UnwrapPUK(h.phone, again); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("the revoked device: %v", err)
	}
	// Not by name of another generation, not the last one.
	if _, _, _, err := h.s.RevokeDevice(testRand(1), h.laptop, h.phone.ID(), alice().PUK, now); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("with an old per-user key: %v", err)
	}
	if _, _, _, err := s.RevokeDevice(testRand(1), testSeed(0x11), h.laptop.ID(), puk, now); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("the last device: %v", err)
	}
	if _, _, _, err := s.RevokeDevice(testRand(1), h.laptop, h.phone.ID(), puk, now); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a revoked device again: %v", err)
	}
	if _, _, _, err := h.s.RevokeDevice(testRand(1), h.laptop, h.laptop.ID(), h.puk, now); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("itself: %v", err)
	}
}

// TestI1: entries of a revoked device, of a device that may not sign, in the
// wrong place, and on a branch.
func TestI1(t *testing.T) {
	h := withTwo(t)
	_, puk, s := h.revoke(t, h.laptop, h.phone.ID())
	fresh := must[Device](t)(NewDevice(testRand(43)))
	if _, _, err := s.AddDevice(h.phone, fresh, CapWrite, now); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("a revoked device adds one: %v", err)
	}
	if _, _, _, err := s.RevokeDevice(testRand(1), h.phone, h.laptop.ID(), puk, now); !errors.Is(err, space.ErrForbidden) && !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a revoked device revokes: %v", err)
	}
	if _, _, err := s.AddDevice(h.laptop, h.phone, CapWrite, now); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a revoked device comes back: %v", err)
	}
	reader, dev := withDevice(t, 44, CapWrite)
	if _, _, err := reader.AddDevice(dev, fresh, CapWrite, now); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("a device without the capability: %v", err)
	}
	body := newDeviceBody(s, fresh, CapWrite)
	for name, change := range map[string]func(*entry){
		"seq":  func(e *entry) { e.Seq++ },
		"prev": func(e *entry) { e.Prev[3] ^= 1 },
		"C":    func(e *entry) { e.C[3] ^= 1 },
	} {
		if _, err := s.Apply(forge(t, s, h.laptop.Sig(), KindAddDevice, body, change)); !errors.Is(err, ErrOrder) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	t.Run("fork", func(t *testing.T) { forks(t, h) })
}

// forks: each pair parts behind h's log; the first wins, from either side.
func forks(t *testing.T, h household) {
	seed := testSeed(0x11)
	add := func(by Key, b byte) []byte {
		raw, _, err := h.s.AddDevice(by, must[Device](t)(NewDevice(testRand(b))), CapWrite, now)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	byLaptop, byPhone, bySeed := add(h.laptop, 50), add(h.phone, 51), add(seed, 52)
	gone, _, _ := h.revoke(t, h.laptop, h.phone.ID())
	goneBySeed, _, _ := h.revoke(t, seed, h.laptop.ID())
	with := func(entries ...[]byte) [][]byte { return append(slices.Clone(h.log), entries...) }
	late := must[State](t)(Verify(with(byLaptop)))
	lateRevoke, _, _, err := late.RevokeDevice(testRand(1), h.laptop, h.phone.ID(), h.puk, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ wins, loses [][]byte }{
		"the longer":                        {with(byLaptop), with()},
		"identity key before a revocation":  {with(bySeed), with(gone)},
		"revocation by the identity key":    {with(goneBySeed), with(bySeed)},
		"revocation before another":         {with(gone), with(byPhone)},
		"a revocation further on, too":      {with(byLaptop, lateRevoke), with(byPhone)},
		"the revocation at the place first": {with(gone), with(byLaptop, lateRevoke)},
	} {
		for _, got := range [][][]byte{Choose(c.wins, c.loses), Choose(c.loses, c.wins)} {
			if !sameLog(got, c.wins) {
				t.Errorf("%s: the other one was chosen", name)
			}
		}
	}
	low, high := byLaptop, byPhone
	if hl, hh := sha256.Sum256(low), sha256.Sum256(high); bytes.Compare(hl[:], hh[:]) > 0 {
		low, high = high, low
	}
	if !sameLog(Choose(with(low), with(high)), with(low)) || !sameLog(Choose(with(high), with(low)), with(low)) {
		t.Error("equal strength: not the lower hash")
	}
	// The same strength behind the parting: the entry at it decides, whatever
	// its hash.
	for b := byte(80); ; b++ {
		raw := add(h.laptop, b)
		if hr, hg := sha256.Sum256(raw), sha256.Sum256(gone); bytes.Compare(hr[:], hg[:]) > 0 {
			continue
		}
		st := must[State](t)(Verify(with(raw)))
		then, _, _, err := st.RevokeDevice(testRand(1), h.laptop, h.phone.ID(), h.puk, now)
		if err != nil {
			t.Fatal(err)
		}
		if !sameLog(Choose(with(raw, then), with(gone)), with(gone)) {
			t.Error("equal strength: not the entry at the parting")
		}
		return
	}
}

func sameLog(a, b [][]byte) bool { return len(a) == len(b) && parting(a, b) == len(a) }

// TestI2: a revoked device goes on, behind the head and on a branch of its
// own. Who knows of the revocation takes nothing of it.
func TestI2(t *testing.T) {
	h := withTwo(t)
	gone, _, s := h.revoke(t, h.laptop, h.phone.ID())
	known := append(slices.Clone(h.log), gone)
	own := must[Device](t)(NewDevice(testRand(60)))
	added, branch, err := h.s.AddDevice(h.phone, own, CapsAll, now)
	if err != nil {
		t.Fatal(err)
	}
	back, _, _, err := branch.RevokeDevice(testRand(1), h.phone, h.laptop.ID(), h.puk, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, offered := range map[string][][]byte{
		"a device enrolled in its place":  {added},
		"and the others revoked in it":    {added, back},
		"the log before it was known off": {},
	} {
		log, st, err := Follow(known, append(slices.Clone(h.log), offered...))
		if err != nil || !sameLog(log, known) || !st.Revoked(h.phone.ID()) || st.Head != s.Head {
			t.Errorf("%s: followed, %v", name, err)
		}
	}
	// Who has not heard of it goes by the branch until it hears.
	if log, _, err := Follow(append(slices.Clone(h.log), added), known); err != nil || !sameLog(log, known) {
		t.Errorf("the revocation comes later: %v", err)
	}
	// The words end it either way.
	stolen := append(slices.Clone(h.log), added, back)
	c, err := Recover(testRand(61), testSeed(0x11), stolen, now)
	if err != nil {
		t.Fatal(err)
	}
	if log, st, err := Follow(known, c.Log); err != nil || !sameLog(log, c.Log) || st.Head != c.State.Head {
		t.Errorf("the identity key stands behind the branch: %v", err)
	}
	raw, _, _, err := c.State.RevokeDevice(testRand(62), testSeed(0x11), h.phone.ID(), c.PUK, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, st, err := Follow(stolen, append(c.Log, raw)); err != nil || !st.Revoked(h.phone.ID()) {
		t.Errorf("revoked by the words: %v", err)
	}
	if _, _, err := Follow(known, alice().Log[1:]); err == nil {
		t.Error("followed bytes that do not verify")
	}
	bob := must[Created](t)(New(testRand(98), testSeed(2), now))
	if _, _, err := Follow(known, bob.Log); !errors.Is(err, ErrOrder) {
		t.Errorf("another person's log: %v", err)
	}
}

// TestI4: every device is lost. The words alone open the per-user key, take a
// device in, open the list of spaces and revoke what was lost.
func TestI4(t *testing.T) {
	h := withTwo(t)
	raw, err := h.s.SealList(testRand(63), h.phone, h.puk, 7, testAccount())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Recover(testRand(64), seedAgain(t, testSeed(0x11)), h.log, now)
	if err != nil {
		t.Fatal(err)
	}
	l := must[List](t)(ParseList(raw))
	if err := l.Check(c.State); err != nil {
		t.Fatal(err)
	}
	a, err := l.Open(c.State, c.PUK)
	if err != nil || len(a.Spaces) != 2 {
		t.Fatalf("%d spaces, %v", len(a.Spaces), err)
	}
	key, err := a.Key()
	if err != nil || !key.Equal(DIDKey(testSeed(0x11))) {
		t.Errorf("the DID key: %v", err)
	}
	s, puk, draw := c.State, c.PUK, testRand(65)
	for _, dev := range []Device{h.phone, h.laptop} {
		if _, puk, s, err = s.RevokeDevice(draw, c.Device, dev.ID(), puk, now); err != nil {
			t.Fatal(err)
		}
		if _, err := UnwrapPUK(dev, s); !errors.Is(err, space.ErrNoKey) {
			t.Errorf("a lost device: %v", err)
		}
	}
	if err := l.Check(s); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("a list of a lost device: %v", err)
	}
}

func seedAgain(t *testing.T, s Seed) Seed {
	t.Helper()
	return must[Seed](t)(SeedFromWords(s.Words()))
}

// TestI7: ids of devices, people and spaces are types of their own, an id
// stands in a log for one thing only, and a wrap says which kind it is for.
func TestI7(t *testing.T) {
	device, person := reflect.TypeFor[DeviceID](), reflect.TypeFor[Commitment]()
	if device.AssignableTo(person) || person.AssignableTo(device) {
		t.Error("a device id is taken where a person's is wanted")
	}
	s, seed := alice().State, testSeed(0x11)
	dev := must[Device](t)(NewDevice(testRand(66)))
	for name, id := range map[string]DeviceID{"the commitment": DeviceID(s.C), "the identity key": DeviceID(s.SigPub)} {
		b := newDeviceBody(s, dev, CapsAll)
		b.Sig = id
		prove(s, b, seed.signing())
		if _, err := s.Apply(forge(t, s, seed.signing(), KindAddDevice, b, nil)); err == nil {
			t.Errorf("a device with the id of %s", name)
		}
	}
	id := [32]byte(alice().Device.ID())
	if string(wrapInfo(s.C, 1, recipient{root: true, id: id})) == string(wrapInfo(s.C, 1, recipient{id: id})) {
		t.Error("a wrap to the words can be passed off as one to a device")
	}
}

// TestI8: a revocation without a new per-user key, and one whose key reaches
// the revoked device.
func TestI8(t *testing.T) {
	h := withTwo(t)
	next := must[PUK](t)(newPUK(testRand(7), h.s.PUK.Gen+1))
	rest := h.s.clone()
	delete(rest.Devices, h.phone.ID())
	good := func() *revokeBody {
		return &revokeBody{Device: h.phone.ID(), PUK: *must[*pukBody](t)(rest.pukBody(testRand(9), next, h.puk))}
	}
	stranger := must[Device](t)(NewDevice(testRand(8)))
	for name, c := range map[string]struct {
		is   error
		body func(*revokeBody)
	}{
		"good":                 {nil, func(*revokeBody) {}},
		"the key of before":    {space.ErrMalformed, func(b *revokeBody) { b.PUK.KEM, b.PUK.DH = h.s.PUK.KEM, h.s.PUK.DH }},
		"the generation again": {space.ErrMalformed, func(b *revokeBody) { b.PUK.Gen-- }},
		"wrapped to the revoked": {space.ErrMalformed, func(b *revokeBody) {
			b.PUK = *must[*pukBody](t)(h.s.pukBody(testRand(9), next, h.puk))
		}},
		"wrapped to the revoked alone": {space.ErrForbidden, func(b *revokeBody) { b.PUK.Wraps[0].Device = h.phone.ID() }},
		"wrapped to nobody":            {space.ErrMalformed, func(b *revokeBody) { b.PUK.Wraps = nil }},
		"not to the words":             {space.ErrMalformed, func(b *revokeBody) { b.PUK.Root = nil }},
		"of a stranger":                {space.ErrMalformed, func(b *revokeBody) { b.Device = stranger.ID() }},
	} {
		b := good()
		c.body(b)
		if _, err := h.s.Apply(forge(t, h.s, h.laptop.Sig(), KindRevokeDevice, b, nil)); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
	without := must[[]byte](t)(space.Marshal([]any{h.phone.ID()}))
	if _, err := h.s.Apply(forge(t, h.s, h.laptop.Sig(), KindRevokeDevice, without, nil)); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a revocation without a key: %v", err)
	}
	alone := must[[]byte](t)(space.Marshal([]any{h.phone.ID(), nil}))
	if _, err := h.s.Apply(forge(t, h.s, h.laptop.Sig(), KindRevokeDevice, alone, nil)); !errors.Is(err, space.ErrNotCanonical) {
		t.Errorf("a revocation with an empty key: %v", err)
	}
}

func TestReissue(t *testing.T) {
	h := withTwo(t)
	seed := testSeed(0x11)
	third, fourth := must[Device](t)(NewDevice(testRand(70))), must[Device](t)(NewDevice(testRand(71)))
	added, s := must2(t)(h.s.AddDevice(h.laptop, third, CapWrite, now))
	gone, _, _, err := s.RevokeDevice(testRand(72), h.laptop, h.phone.ID(), h.puk, now)
	if err != nil {
		t.Fatal(err)
	}
	won, s := must2(t)(h.s.AddDevice(seed, fourth, CapWrite, now))
	lost := [][]byte{added, gone}
	if best := Choose(append(slices.Clone(h.log), won), append(slices.Clone(h.log), lost...)); !sameLog(best, append(slices.Clone(h.log), won)) {
		t.Fatal("the identity key did not win")
	}
	entries, puk, next, err := s.Reissue(testRand(73), h.laptop, lost, h.puk, now)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if !next.Revoked(h.phone.ID()) || !next.Can(third.ID(), CapWrite) || !next.Can(fourth.ID(), CapWrite) {
		t.Error("not everything was said again")
	}
	if p, err := UnwrapPUK(third, next); err != nil || !p.Equal(puk) {
		t.Errorf("the per-user key does not reach the device: %v", err)
	}
	if entries, _, _, err := next.Reissue(testRand(74), h.laptop, lost, puk, now); err != nil || len(entries) != 0 {
		t.Errorf("said a third time: %d entries, %v", len(entries), err)
	}
	if entries, _, _, err := s.Reissue(testRand(75), h.phone, lost, h.puk, now); err != nil || len(entries) != 0 {
		t.Errorf("said by who had not said it: %d entries, %v", len(entries), err)
	}
	// What was revoked meanwhile stays so.
	_, has, err := h.s.AddDevice(seed, third, CapWrite, now)
	if err != nil {
		t.Fatal(err)
	}
	_, _, has, err = has.RevokeDevice(testRand(77), seed, third.ID(), h.puk, now)
	if err != nil {
		t.Fatal(err)
	}
	puk3, err := UnwrapPUK(h.laptop, has)
	if err != nil {
		t.Fatal(err)
	}
	if entries, _, st, err := has.Reissue(testRand(78), h.laptop, lost[:1], puk3, now); err != nil || len(entries) != 0 || !st.Revoked(third.ID()) {
		t.Errorf("a device that was revoked meanwhile: %d entries, %v", len(entries), err)
	}
	// A device that was added and is not revoked gets the key at the end.
	entries, puk, next, err = s.Reissue(testRand(76), h.laptop, lost[:1], h.puk, now)
	if p, uerr := UnwrapPUK(third, next); err != nil || len(entries) != 2 || uerr != nil || !p.Equal(puk) {
		t.Errorf("%d entries, %v, %v", len(entries), err, uerr)
	}
}

func must2(t testing.TB) func([]byte, State, error) ([]byte, State) {
	return func(b []byte, s State, err error) ([]byte, State) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b, s
	}
}

// crew are the devices of the model test, made once: keys are dear.
var crew = func() []Device {
	out := make([]Device, 5)
	for i := range out {
		d, err := NewDevice(testRand(byte(200 + i)))
		if err != nil {
			panic(err)
		}
		out[i] = d
	}
	return out
}()

// model is an identity as a dumb list of facts.
type model struct {
	live, dead map[int]bool
	gen, fresh uint32
}

// TestDevicesModel: random devices come and go; the log and a dumb model say
// the same, and a key opens exactly for whom the model says.
func TestDevicesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, draw := testSeed(0x21), testRand(77)
		raw, err := Genesis(seed)
		if err != nil {
			t.Fatal(err)
		}
		log, s, puk := [][]byte{raw}, State{}, PUK{}
		if s, err = s.Apply(raw); err != nil {
			t.Fatal(err)
		}
		m := model{live: map[int]bool{}, dead: map[int]bool{}}
		for range rapid.IntRange(1, 12).Draw(t, "acts") {
			by := rapid.IntRange(-1, len(crew)-1).Draw(t, "by")
			who := rapid.IntRange(0, len(crew)-1).Draw(t, "who")
			var key Key = seed
			if by >= 0 {
				key = crew[by]
			}
			may := by < 0 || m.live[by]
			switch act := rapid.SampledFrom([]string{"add", "revoke", "rotate"}).Draw(t, "act"); act {
			case "add":
				raw, next, aerr := s.AddDevice(key, crew[who], CapsAll, now)
				want := may && !m.live[who] && !m.dead[who]
				if (aerr == nil) != want {
					t.Fatalf("add %d by %d: %v, want %t", who, by, aerr, want)
				}
				if want {
					log, s, m.live[who] = append(log, raw), next, true
				}
			case "revoke":
				raw, p, next, rerr := s.RevokeDevice(draw, key, crew[who].ID(), puk, now)
				want := may && m.gen > 0 && m.live[who] && by != who && len(m.live) > 1
				if (rerr == nil) != want {
					t.Fatalf("revoke %d by %d: %v, want %t", who, by, rerr, want)
				}
				if want {
					log, s, puk = append(log, raw), next, p
					delete(m.live, who)
					m.dead[who], m.gen, m.fresh = true, m.gen+1, m.gen+1
				}
			case "rotate":
				raw, p, next, rerr := s.RotatePUK(draw, key, puk, now)
				want := may && len(m.live) > 0
				if (rerr == nil) != want {
					t.Fatalf("rotate by %d: %v, want %t", by, rerr, want)
				}
				if want {
					log, s, puk, m.gen = append(log, raw), next, p, m.gen+1
				}
			}
		}
		m.check(t, log, s, puk)
	})
}

func (m model) check(t *rapid.T, log [][]byte, s State, puk PUK) {
	again, err := Verify(log)
	if err != nil || again.Head != s.Head {
		t.Fatalf("the log does not verify: %v", err)
	}
	if s.PUK.Gen != m.gen || len(s.Devices) != len(m.live) {
		t.Fatalf("generation %d and %d devices, want %d and %d", s.PUK.Gen, len(s.Devices), m.gen, len(m.live))
	}
	for g := uint32(0); g <= m.gen; g++ {
		if s.Stale(g) != (g < m.fresh) {
			t.Fatalf("stale %d: %t, revoked at %d", g, s.Stale(g), m.fresh)
		}
	}
	for i, dev := range crew {
		if s.Can(dev.ID(), CapsAll) != m.live[i] || s.Revoked(dev.ID()) != m.dead[i] {
			t.Fatalf("device %d: live %t, revoked %t", i, s.Can(dev.ID(), CapsAll), s.Revoked(dev.ID()))
		}
		if m.gen == 0 {
			continue
		}
		p, err := UnwrapPUK(dev, s)
		if m.dead[i] && err == nil || err == nil && !p.Equal(puk) {
			t.Fatalf("device %d opens the per-user key: %v", i, err)
		}
	}
}

// TestChooseOrder: over random branches of one log the choice is one order:
// whatever the order they arrive in, the same one is left.
func TestChooseOrder(t *testing.T) {
	h := withTwo(t)
	keys := []Key{h.laptop, h.phone, testSeed(0x11)}
	rapid.Check(t, func(t *rapid.T) {
		var logs [][][]byte
		for range rapid.IntRange(2, 4).Draw(t, "branches") {
			base := h.log
			if len(logs) > 0 && rapid.Bool().Draw(t, "on another") {
				of := rapid.SampledFrom(logs).Draw(t, "of")
				base = of[:rapid.IntRange(len(h.log), len(of)).Draw(t, "at")]
			}
			logs = append(logs, grow(t, base, keys))
		}
		order := rapid.Permutation(logs).Draw(t, "order")
		best, other := logs[0], order[0]
		for i := range logs {
			best, other = Choose(best, logs[i]), Choose(order[i], other)
		}
		if !sameLog(best, other) {
			t.Fatal("the choice depends on the order of arrival")
		}
	})
}

// grow adds entries that anybody who is live may sign.
func grow(t *rapid.T, base [][]byte, keys []Key) [][]byte {
	log := slices.Clone(base)
	s, err := Verify(log)
	if err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(1, 3).Draw(t, "entries") {
		by := rapid.SampledFrom(keys).Draw(t, "by")
		var raw []byte
		var next State
		if rapid.Bool().Draw(t, "revoke") {
			dev := rapid.SampledFrom(slices.SortedFunc(maps.Keys(s.Devices), func(a, b DeviceID) int { return slices.Compare(a[:], b[:]) })).Draw(t, "device")
			puk, uerr := UnwrapPUK(testSeed(0x11), s)
			if uerr != nil {
				t.Fatal(uerr)
			}
			raw, _, next, err = s.RevokeDevice(testRand(byte(len(log))), by, dev, puk, now)
		} else {
			raw, next, err = s.AddDevice(by, rapid.SampledFrom(crew).Draw(t, "new"), CapWrite, now)
		}
		if err == nil {
			log, s = append(log, raw), next
		}
	}
	return log
}

func TestDevicesOfALog(t *testing.T) {
	h := withTwo(t)
	raw, _, _ := h.revoke(t, h.laptop, h.phone.ID())
	want := []History{
		{ID: h.laptop.ID(), Caps: CapsAll, AddedMs: now},
		{ID: h.phone.ID(), Caps: CapsAll, AddedMs: now, RevokedMs: now},
	}
	if got := Devices(append(slices.Clone(h.log), raw)); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := (CapEnroll | CapDM).Names(); !slices.Equal(got, []string{"enrol", "message"}) {
		t.Errorf("%v", got)
	}
}
