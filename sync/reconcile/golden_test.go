package reconcile

import (
	"crypto/ed25519"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var (
	update = flag.Bool("update", false, "rewrite the golden transcripts")
	full   = flag.Bool("full", false, "run the property tests at their full size")
)

// shards is in how many parts, side by side, the property test runs.
const shards = 4

// TestMain sets the size of the property tests, unless the command line does.
func TestMain(m *testing.M) {
	flag.Parse()
	checks := 5_000 / shards
	if *full {
		checks = 100_000 / shards
	}
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		if err := flag.Set("rapid.checks", strconv.Itoa(checks)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// describe is one line about a message.
func describe(m Msg) string {
	short := func(b []byte) string { return fmt.Sprintf("%x", b[:4]) }
	switch m := m.(type) {
	case Challenge:
		return fmt.Sprintf("topic %s nonce %s", short(m.Topic[:]), short(m.Nonce[:]))
	case Control:
		return fmt.Sprintf("term %d seq %d hash %s", m.Term, m.Seq, short(m.Hash[:]))
	case ControlPage:
		return fmt.Sprintf("%d bytes more %v last %v", len(m.Chunk), m.More, m.Last)
	case Digest:
		return fmt.Sprintf("epoch %d count %d digest %s", m.Epoch, m.Count, short(m.Digest[:]))
	case Frontier:
		s := fmt.Sprintf("last %v", m.Last)
		for _, h := range m.Chains {
			s += fmt.Sprintf(" %s:%d:%s", short(h.Chain[:]), h.Seq, short(h.Tag[:]))
		}
		return s
	case Want:
		s := fmt.Sprintf("last %v", m.Last)
		for _, r := range m.Ranges {
			s += fmt.Sprintf(" %s:%d-%d", short(r.Chain[:]), r.From, r.To)
		}
		return s
	case Envelopes:
		chain := m.Run[0].Chain()
		return fmt.Sprintf("%s:%d-%d cert %v %d bytes", short(chain[:]), m.Run[0].Seq(), m.Run[len(m.Run)-1].Seq(), m.Cert != nil, payload(m))
	case Done:
		return fmt.Sprintf("past %d", m.Past)
	case Beacon:
		return fmt.Sprintf("log %s from %d past %s count %d digest %s base %x%s", short(m.Log[:]), m.From, short(m.Past[:]),
			m.Count, short(m.Digest[:]), m.Base, changed(m.Changes, m.Fresh))
	case Vector:
		return fmt.Sprintf("past %d count %d digest %.4x%s", m.Past, m.Count, m.Digest, changed(m.Changes, m.Fresh))
	case Segments:
		s := ""
		for _, r := range m.Ranges {
			s += fmt.Sprintf(" %s:%d-%d", short(r.Chain[:]), r.From, r.To)
		}
		return strings.TrimSpace(s)
	case Manifest:
		s := fmt.Sprintf("%s from %d last %v", short(m.Chain[:]), m.First, m.Last)
		for h := m.Heads; len(h) > 0; h = h[32:] {
			s += " " + short(h)
		}
		return s
	case Tree:
		return fmt.Sprintf("depth %d mask %x, %d tags last %v", m.Depth, m.Mask, len(m.Tags)/len(Tag{}), m.Last)
	}
	return ""
}

func changed(known []Change, fresh []FreshChain) (s string) {
	for _, c := range known {
		s += fmt.Sprintf(" #%d:%d:%x:%v", c.Index, c.Seq, c.Tag[:4], c.Forked)
	}
	for _, c := range fresh {
		s += fmt.Sprintf(" %x:%d:%x:%v", c.Chain[:4], c.Seq, c.Tag[:4], c.Forked)
	}
	return s
}

// transcript writes what was said and how it ended.
func transcript(x *wire) *strings.Builder {
	var b strings.Builder
	names := []string{"I", "R"}
	x.tap = func(from int, m Msg, frame []byte) {
		line := fmt.Sprintf("%s> %-9s %6d  %s", names[from], m.Kind(), len(frame), describe(m))
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
		if len(frame) <= 128 {
			fmt.Fprintf(&b, "     %x\n", frame)
		} else {
			fmt.Fprintf(&b, "     sha256 %x\n", sha256.Sum256(frame))
		}
	}
	return &b
}

func outcome(b *strings.Builder, x *wire) {
	for i, name := range []string{"I", "R"} {
		r := x.side[i].Result()
		if x.errs[i] != nil {
			fmt.Fprintf(b, "%s: error: %v\n", name, x.errs[i])
			continue
		}
		fmt.Fprintf(b, "%s: done %v equal %v stalled %v count %d digest %x passes %d rounds %d trips %d past %d received %d duplicate %d refused %d sent %d forked %d pages %d payload %d\n",
			name, x.done[i], r.Equal, r.Stalled, r.Count, r.Digest[:4], r.Passes, r.Rounds, r.RoundTrips, r.Past, r.Received, r.Duplicate, r.Refused, r.Sent, r.Forked, r.Pages, r.PayloadBytes)
	}
}

// epochs are earlier ones held from the first on.
type epochs struct {
	first uint64
	held  string
}

func (e epochs) Since(from uint64) (uint64, [32]byte, error) {
	first := max(e.first, from)
	return first, [32]byte(seed(fmt.Sprint(first, e.held))), nil
}

func whole(x *wire) *wire {
	x.start()
	x.run()
	return x
}

func TestTranscripts(t *testing.T) {
	w := newWorld("golden")
	one, two, three := w.newChain("one", 5, 100), w.newChain("two", 4, 300), w.newChain("three", 3, 100)
	both := func() (*memory, *memory) {
		return w.newMemory().with(one, 3), w.newMemory().with(one, 3)
	}
	scenarios := []struct {
		name string
		talk func(x func(a, b *memory) *wire) *wire
	}{
		{"equal", func(talk func(a, b *memory) *wire) *wire {
			x := talk(both())
			x.start()
			x.run()
			return x
		}},
		{"responder-empty", func(talk func(a, b *memory) *wire) *wire {
			x := talk(w.newMemory().with(one, 5).with(two, 4), w.newMemory())
			x.start()
			x.run()
			return x
		}},
		{"initiator-empty", func(talk func(a, b *memory) *wire) *wire {
			x := talk(w.newMemory(), w.newMemory().with(one, 5).with(two, 4))
			x.start()
			x.run()
			return x
		}},
		{"both-differ", func(talk func(a, b *memory) *wire) *wire {
			x := talk(w.newMemory().with(one, 5).with(two, 1), w.newMemory().with(one, 2).with(two, 4).with(three, 3))
			x.start()
			x.run()
			return x
		}},
		{"next-round", func(talk func(a, b *memory) *wire) *wire {
			a, b := both()
			x := talk(a, b)
			x.start()
			x.run()
			b.with(one, 5)
			x.start()
			x.run()
			return x
		}},
		{"initiator-forged", func(talk func(a, b *memory) *wire) *wire {
			x := talk(both())
			x.side[0].cfg.Keys = NewFetchKey(ed25519.NewKeyFromSeed(seed("stranger")))
			x.start()
			x.run()
			return x
		}},
		{"responder-forged", func(talk func(a, b *memory) *wire) *wire {
			x := talk(both())
			x.side[1].cfg.Keys = liar{NewFetchKey(ed25519.NewKeyFromSeed(seed("stranger")))}
			x.start()
			x.run()
			return x
		}},
		{"control-initiator-ahead", func(talk func(a, b *memory) *wire) *wire {
			a, b := both()
			a.log.grow(2, "")
			x := talk(a, b)
			x.start()
			x.run()
			return x
		}},
		{"control-responder-ahead", func(talk func(a, b *memory) *wire) *wire {
			a, b := both()
			b.log.pad = maxChunk
			b.log.grow(2, "")
			x := talk(a, b)
			x.start()
			x.run()
			return x
		}},
		{"big-runs", func(talk func(a, b *memory) *wire) *wire {
			big := w.newChain("big", 6, 60_000)
			x := talk(w.newMemory().with(big, 6), w.newMemory().with(one, 1))
			x.start()
			x.run()
			return x
		}},
		{"unequal-after-pass", func(talk func(a, b *memory) *wire) *wire {
			x := talk(w.newMemory().with(one, 5), w.newMemory().with(one.fork(3, 2), 5).with(two, 2))
			x.start()
			x.run()
			return x
		}},
		{"vector", func(talk func(a, b *memory) *wire) *wire {
			a, b := both()
			a.past, b.past = new(Memory), new(Memory)
			x := talk(a, b)
			x.round()
			b.with(one, 5)
			x.lead(1) // who lacks it leads
			x.run()
			b.with(two, 1)
			x.lead(2) // who has it leads
			x.run()
			a.with(three, 3)
			b.with(two, 3)
			x.lead(3) // both at once
			x.run()
			return x
		}},
		{"tree", func(talk func(a, b *memory) *wire) *wire {
			a, b := w.newMemory(), w.newMemory()
			for i := range 40 {
				c := w.newChain(fmt.Sprint("leaf ", i), 2, 100)
				a.with(c, min(2, 1+i%13))
				b.with(c, min(2, 1+i%7))
			}
			a.minTree, b.minTree = 3, 3
			return whole(talk(a, b))
		}},
		{"segments", func(talk func(a, b *memory) *wire) *wire {
			long := w.newChain("long", 22, 100)
			x := talk(w.newMemory().with(two, 1), w.newMemory().with(long, 22).with(one, 5).with(two, 4))
			for _, s := range x.side {
				s.segment, s.minCold = 4, 2
			}
			return whole(x)
		}},
		{"segments-cut", func(talk func(a, b *memory) *wire) *wire {
			long := w.newChain("long", 22, 100)
			x := talk(w.newMemory().with(long, 2), w.newMemory().with(long, 22))
			for _, s := range x.side {
				s.segment, s.minCold = 4, 2
			}
			x.side[1].cfg.MaxServe = 2_000
			whole(x)
			return whole(x)
		}},
		{"earlier", func(talk func(a, b *memory) *wire) *wire {
			a, b := both()
			a.earlier, b.earlier = epochs{3, "x"}, epochs{2, "x"}
			x := whole(talk(a, b))
			a.earlier = epochs{3, "y"}
			x.side[0].cfg.Earlier = a.earlier
			x.lead(1) // differs
			x.run()
			x.lead(2) // the other side holds less and cannot tell
			x.run()
			return x
		}},
	}
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			var b *strings.Builder
			x := sc.talk(func(a, r *memory) *wire {
				x := newWire(t, a.session(t, w, Initiator), r.session(t, w, Responder))
				b = transcript(x)
				return x
			})
			outcome(b, x)
			golden(t, filepath.Join("testdata", sc.name+".txt"), b.String())
		})
	}
}

// liar signs with one key and believes every signature.
type liar struct{ FetchKey }

func (liar) Verify(_, _ []byte) bool { return true }

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: not as recorded; got\n%s", path, got)
	}
}
