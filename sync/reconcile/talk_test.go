package reconcile

import (
	"bytes"
)

// failer is what testing.T and rapid.T share.
type failer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// wire lets two sessions talk, one message at a time, through the codec.
type wire struct {
	t    failer
	side [2]*Session                 // initiator, responder
	ways [2][]Msg                    // under way from that side
	done [2]bool                     // round over for that side
	errs [2]error                    // what ended that side
	said [2]int                      // messages a side has said
	bend func(from int, m Msg) []Msg // a peer that deviates
	tap  func(from int, m Msg, frame []byte)
}

func newWire(t failer, initiator, responder *Session) *wire {
	return &wire{t: t, side: [2]*Session{initiator, responder}}
}

// start begins a round. The responder's opening has been read already, so the
// initiator's CHALLENGE goes no further.
func (x *wire) start() {
	x.done = [2]bool{}
	for i, s := range x.side {
		fresh := !s.started
		out, err := s.Start()
		if err != nil {
			x.errs[i] = err
		}
		x.post(i, out)
		if i == 0 && fresh && len(x.ways[0]) > 0 {
			x.ways[0] = x.ways[0][1:]
		}
	}
}

// lead begins a round: bit 0 the initiator, bit 1 the responder, both at once.
func (x *wire) lead(who int) {
	x.done = [2]bool{}
	for i, s := range x.side {
		if who&(1<<i) == 0 {
			continue
		}
		err := s.Lead()
		var out []Msg
		if err == nil {
			out, _, err = s.More()
		}
		x.errs[i] = err
		x.post(i, out)
	}
}

func (x *wire) post(from int, out []Msg) {
	for _, m := range out {
		bent := []Msg{m}
		if x.bend != nil {
			bent = x.bend(from, m)
		}
		for _, m := range bent {
			frame, err := AppendFrame(nil, m)
			if err != nil {
				x.t.Fatalf("%T: %v", m, err)
			}
			if x.tap != nil {
				x.tap(from, m, frame)
			}
			x.said[from]++
			x.ways[from] = append(x.ways[from], m)
		}
	}
}

// hear delivers the oldest message from a side. Decoding is part of it.
func (x *wire) hear(from int) {
	to := 1 - from
	m := x.ways[from][0]
	x.ways[from] = x.ways[from][1:]
	if x.errs[to] != nil {
		return
	}
	frame, err := AppendFrame(nil, m)
	if err != nil {
		x.t.Fatal(err)
	}
	got, n, err := ReadFrame(bytes.NewReader(frame))
	if err != nil {
		x.errs[to] = err
		return
	}
	if n != len(frame) {
		x.t.Fatalf("frame of %d bytes read as %d", len(frame), n)
	}
	out, done, err := x.side[to].Step(got)
	x.took(to, out, done, err)
}

// pull asks a side for more to say and reports whether there was any.
func (x *wire) pull(i int) bool {
	if x.errs[i] != nil {
		return false
	}
	out, done, err := x.side[i].More()
	x.took(i, out, done, err)
	return len(out) > 0
}

func (x *wire) took(i int, out []Msg, done bool, err error) {
	x.errs[i], x.done[i] = err, x.done[i] || done
	x.post(i, out)
}

// run lets them talk in turn until nobody has anything to say.
func (x *wire) run() {
	for {
		moved := false
		for i := range x.side {
			for len(x.ways[i]) > 0 {
				x.hear(i)
				moved = true
			}
			moved = x.pull(i) || x.pull(1-i) || moved
		}
		if !moved {
			return
		}
	}
}

// round is start, run and a check that both sides came to an end.
func (x *wire) round() (a, b Result) {
	x.t.Helper()
	x.start()
	x.run()
	for i := range x.side {
		if x.errs[i] != nil {
			x.t.Fatalf("side %d: %v", i, x.errs[i])
		}
		if !x.done[i] {
			x.t.Fatalf("side %d: not done, phase %d", i, x.side[i].phase)
		}
	}
	return x.side[0].Result(), x.side[1].Result()
}
