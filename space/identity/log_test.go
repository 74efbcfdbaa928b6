package identity

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
)

func TestNew(t *testing.T) {
	c := alice()
	if len(c.Log) != 4 {
		t.Fatalf("%d entries, want 4", len(c.Log))
	}
	s := must[State](t)(Verify(c.Log))
	pub, err := c.DIDKey.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	did, bound := s.BoundDID()
	switch {
	case s.C != testSeed(0x11).Commitment():
		t.Error("another commitment")
	case !bound || string(did) != pub.DIDKey():
		t.Errorf("bound to %q, want %q", did, pub.DIDKey())
	case !s.Can(c.Device.ID(), CapsAll):
		t.Error("the device is not live with every capability")
	case s.Seq != 3 || s.TimeMs != now:
		t.Errorf("head %d at %d", s.Seq, s.TimeMs)
	case !s.PUK.Equal(c.PUK.Public()) || s.PUK.Gen != 1:
		t.Error("the log announces another PUK")
	case s.Head != c.State.Head:
		t.Error("New returns another state than its log has")
	}
	if !DIDKey(testSeed(0x11)).Equal(c.DIDKey) {
		t.Error("the DID key is not the seed's")
	}
	info, ok := s.Device(c.Device.ID())
	if !ok || !bytes.Equal(info.KEM, c.Device.KEMPublic()) || !bytes.Equal(info.DH, c.Device.DH().PublicKey().Bytes()) {
		t.Error("the log has other keys of the device")
	}
	if _, err := New(bytes.NewReader(make([]byte, 100)), testSeed(1), now); err == nil {
		t.Error("New on a dry source succeeded")
	}
	if _, err := New(testRand(1), testSeed(1), -1); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("New before 1970: %v", err)
	}
}

// Entry by entry or at once, from any prefix: the same state, and the one
// before is left as it was.
func TestApplyIsVerify(t *testing.T) {
	log := alice().Log
	want := must[State](t)(Verify(log))
	var s State
	for i, raw := range log {
		before := s.clone()
		head := s.Head
		next := must[State](t)(s.Apply(raw))
		if s.Head != head || len(s.Devices) != len(before.Devices) || s.PUK.Gen != before.PUK.Gen || s.DID != before.DID {
			t.Fatalf("entry %d changed the state it was applied to", i)
		}
		s = next
		rest := must[State](t)(s.Extend(log[i+1:]))
		if rest.Head != want.Head || rest.DID != want.DID || !rest.PUK.Equal(want.PUK) || len(rest.Devices) != len(want.Devices) {
			t.Fatalf("from entry %d on: another state", i)
		}
	}
}

func TestBytesAreCopied(t *testing.T) {
	log := cloneLog(alice().Log)
	s := must[State](t)(Verify(log))
	for _, raw := range log {
		clear(raw)
	}
	if p, err := UnwrapPUK(alice().Device, s); err != nil || !p.Equal(alice().PUK) {
		t.Errorf("the state changed with the bytes it was read from: %v", err)
	}
}

func TestSince(t *testing.T) {
	log := alice().Log
	for i := range log {
		head := must[State](t)(Verify(log[:i+1])).Head
		got, ok := Since(log, head)
		if !ok || !slices.EqualFunc(got, log[i+1:], bytes.Equal) {
			t.Errorf("since entry %d: %d entries, %v", i, len(got), ok)
		}
	}
	if got, ok := Since(log, [32]byte{}); !ok || len(got) != len(log) {
		t.Errorf("since nothing: %d entries, %v", len(got), ok)
	}
	if _, ok := Since(log, [32]byte{1}); ok {
		t.Error("since an unknown head")
	}
}

func TestVerifyOrder(t *testing.T) {
	log := alice().Log
	for name, c := range map[string]struct {
		log [][]byte
		is  error
	}{
		"empty":             {nil, space.ErrMalformed},
		"no genesis":        {log[1:], ErrOrder},
		"genesis twice":     {[][]byte{log[0], log[0]}, ErrOrder},
		"gap":               {[][]byte{log[0], log[1], log[3]}, ErrOrder},
		"swapped":           {[][]byte{log[0], log[2], log[1]}, ErrOrder},
		"entry twice":       {[][]byte{log[0], log[1], log[1]}, ErrOrder},
		"another's entry":   {[][]byte{log[0], must[Created](t)(New(testRand(1), testSeed(2), now)).Log[1]}, ErrOrder},
		"over the cap":      {slices.Repeat(log[:1], MaxEntries+1), space.ErrTooLarge},
		"entry over cap":    {[][]byte{log[0], make([]byte, MaxEntry+1)}, space.ErrTooLarge},
		"empty entry":       {[][]byte{log[0], nil}, space.ErrMalformed},
		"trailing byte":     {[][]byte{append(bytes.Clone(log[0]), 0)}, space.ErrMalformed},
		"long form of seq":  {[][]byte{longSeq(log[0])}, space.ErrNotCanonical},
		"ver in long form":  {[][]byte{append([]byte{0x89, 0x18, 0x01}, log[0][2:]...)}, space.ErrNotCanonical},
		"indefinite length": {[][]byte{append(append([]byte{0x9f}, log[0][1:]...), 0xff)}, space.ErrMalformed},
	} {
		if _, err := Verify(c.log); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
}

// longSeq writes the genesis' seq 0 as 18 00: ver is one byte, C 34.
func longSeq(raw []byte) []byte {
	return slices.Concat(raw[:1+1+34], []byte{0x18, 0x00}, raw[1+1+34+1:])
}

// Each bit of an entry matters.
func TestEveryByteIsCovered(t *testing.T) {
	log := alice().Log
	for i, raw := range log {
		base := must[State](t)(State{}.Extend(log[:i]))
		step := max(1, len(raw)/150)
		for at := 0; at < len(raw); at += step {
			bad := bytes.Clone(raw)
			bad[at] ^= 1 << (at % 8)
			if _, err := base.Apply(bad); err == nil {
				t.Errorf("entry %d with byte %d changed is accepted", i, at)
			}
		}
	}
}

func TestLogCap(t *testing.T) {
	seed := testSeed(0x11)
	s := alice().State
	s.Seq = MaxEntries - 2
	_, s, err := s.BindDID(seed, alice().DIDKey, now)
	if err != nil || s.Seq != MaxEntries-1 {
		t.Fatalf("entry %d: %v", s.Seq, err)
	}
	if _, _, err := s.BindDID(seed, alice().DIDKey, now); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("entry over the cap: %v", err)
	}
}

func TestUnwrapPUK(t *testing.T) {
	c, seed := alice(), testSeed(0x11)
	for name, k := range map[string]Key{"device": c.Device, "seed": seed} {
		if p, err := UnwrapPUK(k, c.State); err != nil || !p.Equal(c.PUK) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, k := range map[string]Key{"other device": must[Device](t)(NewDevice(testRand(9))), "other seed": testSeed(0x12)} {
		if _, err := UnwrapPUK(k, c.State); !errors.Is(err, space.ErrNoKey) {
			t.Errorf("%s: %v, want ErrNoKey", name, err)
		}
	}
	before := must[State](t)(Verify(c.Log[:3]))
	for name, k := range map[string]Key{"device": c.Device, "seed": seed} {
		if _, err := UnwrapPUK(k, before); !errors.Is(err, space.ErrNoKey) {
			t.Errorf("%s before there is one: %v, want ErrNoKey", name, err)
		}
	}
	if _, err := c.PUK.Previous(c.State); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("previous of the first: %v", err)
	}
}

// A wrap opens for its commitment, its generation and its recipient alone.
func TestWrapBinds(t *testing.T) {
	c := alice()
	s := c.State
	sealed := s.wraps[c.Device.ID()]
	for name, change := range map[string]func(*State){
		"commitment": func(s *State) { s.C[0] ^= 1 },
		"generation": func(s *State) { s.PUK.Gen++ },
		"announced":  func(s *State) { s.PUK.DH = s.PUK.KEM[:32] },
		"root wrap":  func(s *State) { s.wraps = map[DeviceID][]byte{c.Device.ID(): s.rootWrap} },
		"cut":        func(s *State) { s.wraps = map[DeviceID][]byte{c.Device.ID(): sealed[:40]} },
	} {
		s := c.State
		change(&s)
		if _, err := UnwrapPUK(c.Device, s); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: %v, want ErrForged", name, err)
		}
	}
	// What is wrapped to a device does not pass for a wrap to the root, even
	// under one KEM key and one id.
	to := recipient{id: s.C}
	b := must[[]byte](t)(c.PUK.wrapTo(s.C, to, s.KEMPub))
	s.rootWrap = b
	if _, err := UnwrapPUK(testSeed(0x11), s); !errors.Is(err, space.ErrForged) {
		t.Errorf("a device's wrap as the root's: %v", err)
	}
}

// A wrap to one device does not pass for a wrap to another with its KEM key.
func TestWrapBindsDevice(t *testing.T) {
	c := alice()
	s := c.State
	b := must[[]byte](t)(c.PUK.wrapTo(s.C, recipient{id: [32]byte{1}}, c.Device.KEMPublic()))
	s.wraps = map[DeviceID][]byte{c.Device.ID(): b}
	if _, err := UnwrapPUK(c.Device, s); !errors.Is(err, space.ErrForged) {
		t.Errorf("another device's wrap: %v", err)
	}
}

// Two branches from one state do not write into each other.
func TestBranches(t *testing.T) {
	s, puk := alice().State, alice().PUK
	var err error
	for range 2 { // so that there is spare capacity to share
		if _, puk, s, err = s.RotatePUK(testRand(byte(s.Seq)), alice().Device, puk, now); err != nil {
			t.Fatal(err)
		}
	}
	_, left, ls, err := s.RotatePUK(testRand(50), alice().Device, puk, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err = s.RotatePUK(testRand(51), alice().Device, puk, now); err != nil {
		t.Fatal(err)
	}
	if p, err := left.Previous(ls); err != nil || !p.Equal(puk) {
		t.Errorf("the left branch after the right one grew: %v", err)
	}
	ls.C[0] ^= 1
	if _, err := left.Previous(ls); !errors.Is(err, space.ErrForged) {
		t.Errorf("previous in another's name: %v", err)
	}
}

func TestCan(t *testing.T) {
	s, dev := withDevice(t, 5, CapEnroll|CapWrite)
	for caps, want := range map[Caps]bool{CapEnroll: true, CapEnroll | CapWrite: true, CapDM: false, CapsAll: false} {
		if got := s.Can(dev.ID(), caps); got != want {
			t.Errorf("Can %b = %v", caps, got)
		}
	}
	if s.Can(DeviceID{}, 0) {
		t.Error("an unknown device can")
	}
}

func TestRotatePUK(t *testing.T) {
	seed := testSeed(0x11)
	s, dev := withDevice(t, 5, CapWrite)
	if _, err := UnwrapPUK(dev, s); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("a device added after the PUK: %v", err)
	}
	_, second, s, err := s.RotatePUK(testRand(6), seed, alice().PUK, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]Key{"first device": alice().Device, "new device": dev, "seed": seed} {
		p, err := UnwrapPUK(k, s)
		if err != nil || !p.Equal(second) || p.Gen() != 2 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if first, err := p.Previous(s); err != nil || !first.Equal(alice().PUK) {
			t.Errorf("%s: previous: %v", name, err)
		}
	}
	_, third, s, err := s.RotatePUK(testRand(7), alice().Device, second, now)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := third.Previous(s); err != nil || !p.Equal(second) {
		t.Errorf("third's previous: %v", err)
	}
	if p, err := second.Previous(s); err != nil || !p.Equal(alice().PUK) {
		t.Errorf("second's previous in a later state: %v", err)
	}
	if _, err := third.Previous(alice().State); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("previous in a log that is behind: %v", err)
	}
	other := must[PUK](t)(newPUK(testRand(8), 2))
	if _, err := other.Previous(s); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("previous of another's key: %v", err)
	}
	for name, before := range map[string]PUK{"none": {}, "stale": second} {
		if _, _, _, err := s.RotatePUK(testRand(8), seed, before, now); !errors.Is(err, space.ErrNoKey) {
			t.Errorf("rotation with %s before: %v", name, err)
		}
	}
}

func TestRecover(t *testing.T) {
	seed := must[Seed](t)(SeedFromWords(testSeed(0x11).Words()))
	c := must[Created](t)(Recover(testRand(2), seed, alice().Log, now+1))
	s := must[State](t)(Verify(c.Log))
	if s.C != alice().State.C || s.DID != alice().State.DID || !c.DIDKey.Equal(alice().DIDKey) {
		t.Error("another identity was recovered")
	}
	if c.Device.Equal(alice().Device) || len(s.Devices) != 2 || s.PUK.Gen != 2 || s.Head != c.State.Head {
		t.Errorf("%d devices, PUK %d", len(s.Devices), s.PUK.Gen)
	}
	if p, err := c.PUK.Previous(s); err != nil || !p.Equal(alice().PUK) {
		t.Errorf("the old PUK is lost: %v", err)
	}
	if p, err := UnwrapPUK(alice().Device, s); err != nil || !p.Equal(c.PUK) {
		t.Errorf("the old device is cut off: %v", err)
	}
	// From a log that stopped before there was a device or a PUK.
	early := must[Created](t)(Recover(testRand(3), seed, alice().Log[:1], now))
	if early.PUK.Gen() != 1 || len(early.State.Devices) != 1 {
		t.Error("recovery from genesis")
	}
	if _, err := Recover(testRand(3), testSeed(0x12), alice().Log, now); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("another seed's log: %v", err)
	}
	if _, err := Recover(testRand(3), seed, nil, now); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("no log: %v", err)
	}
}

func BenchmarkVerify(b *testing.B) {
	log := alice().Log
	for b.Loop() {
		if _, err := Verify(log); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := New(testRand(1), testSeed(1), now); err != nil {
			b.Fatal(err)
		}
	}
}
