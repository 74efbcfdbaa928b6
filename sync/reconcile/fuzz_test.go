package reconcile

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// spoken is every message of some honest sessions, as frames, by side: with
// frontiers, with a descent, and on open streams with a memory.
var spoken = sync.OnceValue(func() (all [][2][][]byte) {
	w := newWorld("fuzz")
	one, two := w.newChain("one", 4, 100), w.newChain("two", 3, 300)
	for minTree := range 2 {
		a, b := w.newMemory().with(one, 4).with(two, 1), w.newMemory().with(one, 2).with(two, 3)
		b.with(w.newChain("four", 8, 100), 8)
		a.log.grow(1, "")
		a.past, b.past = new(Memory), new(Memory)
		a.minTree, b.minTree, a.segment, b.segment = minTree, minTree, 3, 3
		var said [2][][]byte
		x := newWire(panicker{}, a.mustSession(w, Initiator), b.mustSession(w, Responder))
		x.tap = func(from int, _ Msg, frame []byte) { said[from] = append(said[from], frame) }
		x.round()
		three := w.newChain("three", 2, 100)
		for who := 1; who <= 3; who++ {
			[]*memory{a, b}[who%2].with(three, (who+1)/2)
			x.lead(who)
			x.run()
		}
		all = append(all, said)
	}
	return all
})

type panicker struct{}

func (panicker) Helper()                   {}
func (panicker) Fatal(v ...any)            { panic(v) }
func (panicker) Fatalf(f string, v ...any) { panic(f) }

// FuzzFrame: what is read as a frame is that frame's only encoding, and no
// byte after it is touched. RUN, which is read by hand, agrees with the codec.
func FuzzFrame(f *testing.F) {
	for _, said := range spoken() {
		for _, frame := range slices.Concat(said[0], said[1]) {
			f.Add(frame)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		m, n, err := ReadFrame(r)
		if err != nil {
			if m != nil || !errors.Is(err, ErrPeer) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%v, %v", m, err)
			}
			return
		}
		if n != len(b)-r.Len() {
			t.Fatalf("says %d bytes, took %d", n, len(b)-r.Len())
		}
		again, err := AppendFrame(nil, m)
		if err != nil || !bytes.Equal(again, b[:n]) {
			t.Fatalf("%+v: written again %x, %v", m, again, err)
		}
		if run, ok := m.(Envelopes); ok {
			checkRunCodec(t, run, b[lengthSize+kindSize:n])
		}
	})
}

// plainRun is a RUN body for the codec of the space package.
type plainRun struct {
	_         struct{} `cbor:",toarray"`
	Cert, Run []byte
}

func checkRunCodec(t *testing.T, m Envelopes, body []byte) {
	var p plainRun
	if err := space.Unmarshal(body, &p); err != nil {
		t.Fatalf("the codec refuses the body: %v", err)
	}
	var joined []byte
	for _, e := range m.Run {
		joined = append(joined, e.Bytes()...)
	}
	cert := []byte{}
	if m.Cert != nil {
		cert = m.Cert.Bytes()
	}
	if !bytes.Equal(p.Cert, cert) || !bytes.Equal(p.Run, joined) {
		t.Fatal("the codec reads another run")
	}
}

// TestRunHeads: every width of a byte string's head, read by hand and by the
// codec; and what is not canonical is refused by both.
func TestRunHeads(t *testing.T) {
	for _, n := range []int{0, 1, 23, 24, 255, 256, math.MaxUint16, math.MaxUint16 + 1, MaxRunBytes} {
		want, err := space.Marshal(make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		got := append(appendBytesHead(nil, n), make([]byte, n)...)
		if !bytes.Equal(got, want) {
			t.Errorf("%d: head %x", n, got[:min(len(got), 6)])
		}
		s, rest, err := cutBytes(append(got, 7))
		if err != nil || len(s) != n || len(rest) != 1 {
			t.Errorf("%d: %d and %d bytes, %v", n, len(s), len(rest), err)
		}
	}
	for _, b := range [][]byte{nil, {0x58}, {0x58, 0x01, 0}, {0x59, 0, 1, 0}, {0x5a, 0, 0, 0, 1, 0}, {0x5f, 0xff}, {0x5b, 0, 0, 0, 0, 0, 0, 0, 0}, {0x60}, {0xf6}, {0x42, 0}} {
		if s, _, err := cutBytes(b); err == nil {
			t.Errorf("%x: read as %x", b, s)
		}
	}
}

// TestBodiesRefused: bodies that say nothing, or twice.
func TestBodiesRefused(t *testing.T) {
	w := newWorld("bodies")
	one := w.newChain("one", 3, 100)
	h := envelope.Header{Type: envelope.Sealed, Topic: w.topic, Chain: one.id, Seq: 3}
	raw, err := envelope.Build(h, [24]byte{}, make([]byte, 272), func([]byte) []byte { return make([]byte, 64) })
	if err != nil {
		t.Fatal(err)
	}
	ephemeral, err := envelope.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	good := Envelopes{Cert: &one.cert, Run: one.envs}
	for name, c := range map[string]struct {
		kind Kind
		body []byte
		want error
	}{
		"good":                     {KindRun, appendRun(nil, good), nil},
		"bytes after the run":      {KindRun, append(appendRun(nil, good), 0), space.ErrMalformed},
		"no certificate":           {KindRun, appendRun(nil, Envelopes{Run: one.envs}), space.ErrMalformed},
		"one certificate too many": {KindRun, appendRun(nil, Envelopes{Cert: &one.cert, Run: one.envs[1:]}), space.ErrMalformed},
		"ephemeral":                {KindRun, appendRun(nil, Envelopes{Run: []envelope.Envelope{ephemeral}}), space.ErrMalformed},
		"no envelopes":             {KindRun, appendRun(nil, Envelopes{}), space.ErrMalformed},
		"no array":                 {KindRun, []byte{0x81, 0x40}, space.ErrMalformed},
		"nothing":                  {KindRun, nil, space.ErrMalformed},
		"more and last":            {KindControlPage, []byte{0x83, 0x41, 1, 0xf5, 0xf5}, space.ErrMalformed},
		"null page":                {KindControlPage, []byte{0x83, 0xf6, 0xf4, 0xf5}, space.ErrMalformed},
		"empty page goes on":       {KindControlPage, []byte{0x83, 0x40, 0xf5, 0xf4}, space.ErrMalformed},
		"null frontier":            {KindFrontier, []byte{0x82, 0xf6, 0xf5}, space.ErrMalformed},
		"null want":                {KindWant, []byte{0x82, 0xf6, 0xf5}, space.ErrMalformed},
		"short signature":          {KindAuth, []byte{0x81, 0x41, 0}, space.ErrNotCanonical},
		"unknown kind":             {14, []byte{0x80}, space.ErrMalformed},
	} {
		if _, err := decode(c.kind, c.body); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// TestFrameLimits: a length is judged before memory is taken.
func TestFrameLimits(t *testing.T) {
	for k := range 256 {
		limit := maxLength(Kind(k))
		for _, c := range []struct {
			length uint32
			want   error
		}{{0, space.ErrMalformed}, {1, space.ErrMalformed}, {uint32(limit) + 1, space.ErrTooLarge}, {math.MaxUint32, space.ErrTooLarge}} {
			want := c.want
			if limit == 0 {
				want = space.ErrMalformed
			}
			if err := checkLength(Kind(k), c.length); !errors.Is(err, want) {
				t.Errorf("%v, length %d: %v", Kind(k), c.length, err)
			}
		}
		if limit > MaxFrame-lengthSize {
			t.Errorf("%v: %d is more than a frame", Kind(k), limit)
		}
	}
	w := newWorld("limits")
	big := w.newChain("big", 3, envelope.MaxPadded)
	if _, err := AppendFrame(nil, Envelopes{Run: big.envs}); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("written all the same: %v", err)
	}
	if _, err := AppendFrame(nil, Envelopes{Cert: &big.cert, Run: big.envs[:1]}); err != nil {
		t.Errorf("the largest envelope: %v", err)
	}
	f := manyChains(MaxPage, 0, true)
	for i := range f.Chains {
		f.Chains[i].Seq = math.MaxInt64
	}
	if _, err := AppendFrame(nil, f); err != nil {
		t.Errorf("the largest frontier: %v", err)
	}
	want := Want{Ranges: make([]Range, MaxPage)}
	for i := range want.Ranges {
		want.Ranges[i].From, want.Ranges[i].To = math.MaxInt64, math.MaxInt64
	}
	if _, err := AppendFrame(nil, want); err != nil {
		t.Errorf("the largest want: %v", err)
	}
}

// FuzzSession: after some honest messages anything may come. Nothing panics,
// what is held stays bounded, and Equal never stands without equal statements.
func FuzzSession(f *testing.F) {
	for kind, said := range spoken() {
		for side := range said {
			for n := range said[1-side] {
				rest := bytes.Join(said[1-side][n:], nil)
				f.Add(side == 1, kind == 1, uint8(n), rest)
				f.Add(side == 1, kind == 1, uint8(max(n-1, 0)), rest)
			}
		}
	}
	w := newWorld("fuzz")
	one := w.newChain("one", 2, 100)
	f.Fuzz(func(t *testing.T, responder, descends bool, honest uint8, b []byte) {
		m := w.newMemory().with(one, 2)
		m.past = new(Memory)
		said := spoken()[0]
		role, from := Initiator, 1
		if responder {
			role, from = Responder, 0
		}
		cfg := m.config(w, role)
		cfg.Keys = liar{w.fetch}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if descends {
			s.minTree, said = 1, spoken()[1]
		}
		if _, err := s.Start(); err != nil {
			t.Fatal(err)
		}
		frames := said[from]
		if responder {
			frames = frames[1:] // the opening
		}
		frames = frames[:min(int(honest), len(frames))]
		heard := feedSession(t, s, bytes.NewReader(append(bytes.Join(frames, nil), b...)))
		if s.err == nil && s.pass != nil && (len(s.pass.asked) > heard*MaxPage || s.pass.heard > MaxChains) {
			t.Fatalf("keeps %d ranges of %d chains after %d messages", len(s.pass.asked), s.pass.heard, heard)
		}
		if len(s.control.page) > MaxControlPage {
			t.Fatal("keeps more than a control page")
		}
	})
}

// feedSession steps through the frames of r until one is refused.
func feedSession(t *testing.T, s *Session, r io.Reader) (heard int) {
	for {
		m, _, err := ReadFrame(r)
		if err != nil {
			return heard
		}
		heard++
		out, _, err := s.Step(m)
		for n := 0; len(out) > 0; n++ {
			if n > 16 {
				t.Fatal("has no end of things to say")
			}
			out, _, _ = s.More()
		}
		if err == nil && s.res.Equal && stated(m) != nil && *stated(m) != s.mine.Digest {
			t.Fatalf("equal to %+v, having said %+v", m, s.mine)
		}
		if err != nil {
			return heard
		}
	}
}

// stated is the digest a message states.
func stated(m Msg) *[32]byte {
	switch m := m.(type) {
	case Digest:
		return &m.Digest
	case Beacon:
		return &m.Digest
	}
	return nil
}
