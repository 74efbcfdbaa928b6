package identity

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
)

func testAccount() Account {
	return Account{
		Ver: listVersion, LogSeq: 3, DIDKey: DIDKey(testSeed(0x11)).Bytes(),
		Devices: []AccountDevice{{ID: DeviceID{9}, Name: "laptop", Addrs: []string{"/ip4/192.0.2.1/tcp/1/p2p/x"}}},
		Spaces: []AccountSpace{
			{Space: [32]byte{1}, URI: "at://did:web:a.example/space/com.example.notes/home", Name: "home", Addrs: []string{"/ip4/192.0.2.2/tcp/1/p2p/y"}, HeadSeq: 4, Head: [32]byte{2}},
			{Space: [32]byte{3}, URI: "at://did:web:a.example/space/com.example.notes/old", Addrs: []string{}, Gone: true},
		},
	}
}

func sealed(t testing.TB, version uint64) []byte {
	t.Helper()
	return must[[]byte](t)(alice().State.SealList(testRand(30), alice().Device, alice().PUK, version, testAccount()))
}

func TestList(t *testing.T) {
	s := alice().State
	l := must[List](t)(ParseList(sealed(t, 1)))
	if err := l.Check(s); err != nil {
		t.Fatal(err)
	}
	if a, err := l.Open(s, alice().PUK); err != nil || !reflect.DeepEqual(a, testAccount()) {
		t.Errorf("%+v, %v", a, err)
	}
	if bytes.Contains(sealed(t, 1), []byte("com.example.notes")) {
		t.Error("the sealed list shows a space")
	}
	// Later generations open it; nobody else's key does.
	raw, puk, next, err := s.RotatePUK(testRand(31), alice().Device, alice().PUK, now)
	if err != nil || raw == nil {
		t.Fatal(err)
	}
	if a, err := l.Open(next, puk); err != nil || len(a.Spaces) != 2 {
		t.Errorf("by the generation after: %v", err)
	}
	bob := must[Created](t)(New(testRand(98), testSeed(2), now))
	if _, err := l.Open(s, bob.PUK); !errors.Is(err, space.ErrForged) {
		t.Errorf("by another person: %v", err)
	}
	if _, err := s.SealList(testRand(1), alice().Device, bob.PUK, 1, testAccount()); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("sealed under another's key: %v", err)
	}
	newer := must[List](t)(ParseList(must[[]byte](t)(next.SealList(testRand(32), alice().Device, puk, 0, testAccount()))))
	two := must[List](t)(ParseList(sealed(t, 2)))
	if !newer.Newer(two) || two.Newer(newer) || !two.Newer(l) || l.Newer(l) {
		t.Error("which one is newer")
	}
	if err := newer.Check(s); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("of a generation not heard of: %v", err)
	}
}

func TestListRefused(t *testing.T) {
	s := alice().State
	bob := must[Created](t)(New(testRand(98), testSeed(2), now))
	good := must[List](t)(ParseList(sealed(t, 1)))
	for name, c := range map[string]struct {
		is     error
		change func(*List)
	}{
		"another person":  {space.ErrForged, func(l *List) { l.C = bob.State.C }},
		"a stranger":      {space.ErrForbidden, func(l *List) { l.Device = bob.Device.ID() }},
		"another version": {space.ErrForged, func(l *List) { l.Version++ }},
		"another box":     {space.ErrForged, func(l *List) { l.Box[30] ^= 1 }},
	} {
		l := good
		l.Box = bytes.Clone(good.Box)
		c.change(&l)
		if err := l.Check(s); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
	big := testAccount()
	big.Spaces = slices.Repeat(big.Spaces, MaxListSpaces)
	long := testAccount()
	long.Devices[0].Name = strings.Repeat("x", maxListText+1)
	many := testAccount()
	many.Spaces[0].Addrs = slices.Repeat([]string{"/ip4/192.0.2.1/tcp/1"}, MaxListAddrs+1)
	noKey := testAccount()
	noKey.DIDKey = nil
	for name, a := range map[string]Account{"spaces": big, "name": long, "addresses": many, "no DID key": noKey} {
		if _, err := s.SealList(testRand(1), alice().Device, alice().PUK, 1, a); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	if _, err := ParseList(make([]byte, MaxList+1)); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("over the cap: %v", err)
	}
}

// TestLargeList: ten thousand spaces of one's own fit, with an address each; what
// does not fit packed either is refused with a word.
func TestLargeList(t *testing.T) {
	s, rng := alice().State, testRand(33)
	text := func(n int) string {
		b := make([]byte, n)
		if _, err := io.ReadFull(rng, b); err != nil {
			t.Fatal(err)
		}
		return base32.StdEncoding.EncodeToString(b)
	}
	a := testAccount()
	a.Spaces = nil
	for i := range MaxListSpaces {
		p := AccountSpace{
			URI:     "at://" + string(s.DID) + "/space/com.example.notes/" + strings.ToLower(text(8)),
			Name:    fmt.Sprintf("notes %d", i),
			Addrs:   []string{fmt.Sprintf("/ip4/192.0.2.%d/udp/4001/quic-v1/p2p/12D3KooW%056d", i%100, i%100)},
			HeadSeq: uint64(i), Head: [32]byte([]byte(text(20))),
		}
		if _, err := io.ReadFull(rng, p.Space[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(rng, p.Head[:]); err != nil {
			t.Fatal(err)
		}
		a.Spaces = append(a.Spaces, p)
	}
	raw, err := s.SealList(testRand(34), alice().Device, alice().PUK, 1, a)
	if err != nil {
		t.Fatal(err)
	}
	l := must[List](t)(ParseList(raw))
	if err := l.Check(s); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Open(s, alice().PUK); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("%d spaces, want %d, %v", len(got.Spaces), len(a.Spaces), err)
	}
	for i := range a.Spaces {
		a.Spaces[i].Name = text(64)
	}
	if _, err := s.SealList(testRand(34), alice().Device, alice().PUK, 1, a); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("a list that does not fit: %v", err)
	}
	t.Logf("%d bytes", len(raw))
}

// TestInflate: a list says no more than an account may, and nothing behind it.
func TestInflate(t *testing.T) {
	good := must[[]byte](t)(deflate([]byte("account")))
	bomb := must[[]byte](t)(deflate(make([]byte, maxListBody+1)))
	for name, c := range map[string]struct {
		in []byte
		is error
	}{
		"good":    {good, nil},
		"trailer": {append(bytes.Clone(good), 0), space.ErrMalformed},
		"cut":     {good[:len(good)-1], space.ErrMalformed},
		"none":    {nil, space.ErrMalformed},
		"bomb":    {bomb, space.ErrTooLarge},
	} {
		if _, err := inflate(c.in); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
}

// TestPacked: an account comes out of its parts as it went in, and parts that do
// not make one account are none.
func TestPacked(t *testing.T) {
	a := testAccount()
	a.Spaces = slices.Repeat(a.Spaces, partSpaces) // two parts
	one, two := a, a
	one.Spaces, two.Spaces, two.Devices = a.Spaces[:partSpaces], a.Spaces[partSpaces:], []AccountDevice{}
	short, other, again := one, two, two
	short.Spaces = one.Spaces[:1]
	other.LogSeq++
	again.Devices = a.Devices
	none := two
	none.Spaces = []AccountSpace{}
	packed := must[[]byte](t)(a.pack())
	if got, err := unpackAccount(packed); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("%d spaces, %v", len(got.Spaces), err)
	}
	parts := func(all ...Account) []byte {
		var out []byte
		for _, p := range all {
			b := must[[]byte](t)(space.Marshal(&p))
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(b))), b...)
		}
		return out
	}
	if !bytes.Equal(packed, must[[]byte](t)(deflate(parts(one, two)))) {
		t.Error("other parts than expected")
	}
	for name, c := range map[string]struct {
		in []byte
		is error
	}{
		"no part":          {nil, space.ErrMalformed},
		"a short part":     {parts(short, two), space.ErrNotCanonical},
		"an empty part":    {parts(one, none), space.ErrNotCanonical},
		"of another":       {parts(one, other), space.ErrMalformed},
		"devices twice":    {parts(one, again), space.ErrMalformed},
		"a byte too many":  {append(parts(one, two), 0), space.ErrMalformed},
		"a length too far": {parts(one, two)[:100], space.ErrMalformed},
	} {
		if _, err := unpackAccount(must[[]byte](t)(deflate(c.in))); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
}

func TestPaddedSize(t *testing.T) {
	last := 0
	for n := range 1 << 16 {
		p := paddedSize(n)
		if p < n || p < last || n > minListSize && p > n+n/8 {
			t.Fatalf("%d padded to %d", n, p)
		}
		last = p
	}
}

func TestCode(t *testing.T) {
	c := must[Code](t)(NewCode(testRand(33)))
	text := c.String()
	if len(text) != 24 || strings.Count(text, "-") != 4 {
		t.Fatalf("%q", text)
	}
	for _, form := range []string{text, strings.ToLower(text), strings.ReplaceAll(text, "-", ""), " " + strings.ReplaceAll(text, "-", " ") + "\n"} {
		if got, err := ParseCode(form); err != nil || got.String() != text {
			t.Errorf("%q: %v", form, err)
		}
	}
	// One character mistaken for another is noticed, 2^20 to one.
	plain := strings.ReplaceAll(text, "-", "")
	for i := range plain {
		for _, r := range fingerprintAlphabet {
			if byte(r) == plain[i] {
				continue
			}
			if _, err := ParseCode(plain[:i] + string(r) + plain[i+1:]); !errors.Is(err, space.ErrMalformed) {
				t.Fatalf("%d: %c passed", i, r)
			} else if strings.Contains(err.Error(), plain[:4]) {
				t.Fatal("the error shows the code")
			}
		}
	}
	for _, bad := range []string{"", text[:20], text + "0", "U" + text[1:], "!!!!", strings.Repeat("0", 500)} {
		if _, err := ParseCode(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

// A message opens with the same code, in the same step of the same meeting,
// and not otherwise: who sits in the middle has another meeting.
func TestCodeSeals(t *testing.T) {
	c, other := must[Code](t)(NewCode(testRand(34))), must[Code](t)(NewCode(testRand(35)))
	m := Meeting{ApproverNonce: [32]byte{1}, NewNonce: [32]byte{2}, ApproverEnd: []byte("a"), NewEnd: []byte("b")}
	box := must[[]byte](t)(c.Seal(testRand(36), m, StepWho, []byte("hello")))
	if b, err := c.Open(m, StepWho, box); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
	moved := m
	moved.ApproverEnd, moved.NewEnd = []byte("ab"), nil
	mid := m
	mid.NewEnd = []byte("eve")
	stale := m
	stale.NewNonce[0]++
	for name, try := range map[string]func() ([]byte, error){
		"another code":    func() ([]byte, error) { return other.Open(m, StepWho, box) },
		"another step":    func() ([]byte, error) { return c.Open(m, StepDone, box) },
		"another end":     func() ([]byte, error) { return c.Open(mid, StepWho, box) },
		"ends run on":     func() ([]byte, error) { return c.Open(moved, StepWho, box) },
		"another nonce":   func() ([]byte, error) { return c.Open(stale, StepWho, box) },
		"a changed byte":  func() ([]byte, error) { return c.Open(m, StepWho, append(bytes.Clone(box[:len(box)-1]), 0)) },
		"nothing to open": func() ([]byte, error) { return c.Open(m, StepWho, box[:10]) },
	} {
		if _, err := try(); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestEnrolRefuses(t *testing.T) {
	s, dev := alice().State, must[Device](t)(NewDevice(testRand(37)))
	bob := must[Created](t)(New(testRand(98), testSeed(2), now))
	enrol := func(request []byte, caps Caps) error {
		_, _, _, err := s.Enrol(testRand(1), alice().Device, request, caps, alice().PUK, now)
		return err
	}
	for name, c := range map[string]struct {
		is      error
		request []byte
		caps    Caps
	}{
		"more than granted":     {space.ErrForbidden, must[[]byte](t)(dev.Request(s.C, CapsAll)), CapWrite},
		"for another person":    {space.ErrForged, must[[]byte](t)(dev.Request(bob.State.C, CapsAll)), CapsAll},
		"a device that is here": {space.ErrMalformed, must[[]byte](t)(alice().Device.Request(s.C, CapsAll)), CapsAll},
		"no request":            {space.ErrMalformed, []byte{0x80}, CapsAll},
	} {
		if err := enrol(c.request, c.caps); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
}

// TestI5: the recovery file costs a guesser Argon2id with 256 MiB.
func TestI5(t *testing.T) {
	pass := []byte("six words drawn by dice are enough")
	begin := time.Now()
	file := must[[]byte](t)(SealSeed(testRand(38), testSeed(0x11), pass))
	cost := time.Since(begin)
	if s, err := OpenSeed(file, pass); err != nil || !s.Equal(testSeed(0x11)) {
		t.Fatal(err)
	}
	if _, err := OpenSeed(file, append(pass, '.')); !errors.Is(err, space.ErrForged) {
		t.Errorf("another passphrase: %v", err)
	}
	t.Logf("one guess took %v on all cores", cost)
	if argonMemory != 256<<10 || argonTime != 3 || argonThreads != 4 {
		t.Error("the cost of a guess was lowered")
	}
	if _, err := SealSeed(testRand(38), testSeed(0x11), pass[:MinRecoveryPassphrase-1]); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("a short passphrase: %v", err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "another header": append([]byte("x"), file...), "cut": file[:len(file)-8], "longer": append(bytes.Clone(file), 'A'),
		"huge": make([]byte, maxRecoveryFile+1),
	} {
		if _, err := OpenSeed(bad, pass); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if crlf := bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n")); true {
		if _, err := OpenSeed(crlf, pass); err != nil {
			t.Errorf("with the line ends of another system: %v", err)
		}
	}
}

func TestBackupKey(t *testing.T) {
	sealed := must[[]byte](t)(alice().State.SealBackup([]byte("key")))
	if b, err := testSeed(0x11).OpenBackup(sealed); err != nil || string(b) != "key" {
		t.Errorf("%q, %v", b, err)
	}
	for name, try := range map[string]func() ([]byte, error){
		"other words": func() ([]byte, error) { return testSeed(2).OpenBackup(sealed) },
		"a changed byte": func() ([]byte, error) {
			return testSeed(0x11).OpenBackup(append(sealed[:len(sealed)-1:len(sealed)-1], 0))
		},
		"nothing": func() ([]byte, error) { return testSeed(0x11).OpenBackup(nil) },
	} {
		if _, err := try(); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
