package oracle_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/oracle"
)

var full = flag.Bool("full", false, "run 20 times as many histories")

// shards is how many tests the histories are spread over, to use all cores.
const shards = 4

func TestMain(m *testing.M) {
	flag.Parse()
	checks := 1000
	if *full {
		checks *= 20
	}
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		if err := flag.Set("rapid.checks", fmt.Sprint(checks/shards)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// everythingEach is how many histories there are for one in which every secret
// is tried in every role.
const everythingEach = 20

// judge lets everybody try everything on all that was sent, and reports where
// what is open differs from what the model says. It counts whom it asked.
func (w *world) judge(everything bool, count map[string]int) error {
	var cs []identity.Commitment
	for _, p := range w.people {
		cs = append(cs, p.state.C)
	}
	var common []*oracle.Item
	for _, p := range w.people {
		common = append(common, p.items(w.whose)...)
	}
	common = append(common, w.sent...)
	var faults []error
	ask := func(k knower, arm func(*oracle.Attacker)) {
		a := oracle.New(cs, w.kems)
		a.Everything, a.Whose = everything, w.whose
		a.See(common...)
		arm(a)
		found := map[string]bool{}
		for _, s := range a.Secrets() {
			found[w.secrets[s]] = true
		}
		shelf := w.books.of(k)
		for _, f := range w.facts {
			count["question"]++
			if want := w.books.knows(k, shelf, f); want != (found[f.name] || a.Open(f.name)) {
				faults = append(faults, fmt.Errorf("%s: %s: knows %v, should be %v", k.name, f.name, !want, want))
			}
		}
	}
	for _, p := range w.people {
		for _, as := range w.standing(p) {
			count[as]++
		}
		ask(knower{name: p.name, who: p.name}, func(a *oracle.Attacker) {
			a.Hold(p.seed[:], oracle.AsSeed)
			for _, d := range p.devices {
				d.hold(a)
			}
			for _, k := range p.puks {
				a.Hold(k.Marshal()[5:], oracle.AsPUK)
			}
			for _, k := range slices.Concat(p.drew, w.links) {
				a.Hold(k, oracle.AsOther)
			}
		})
		for _, d := range p.devices {
			if d.revoked == 0 {
				continue
			}
			count["revoked device"]++
			ask(knower{name: "revoked device " + d.name, who: p.name, below: d.revoked}, func(a *oracle.Attacker) {
				d.hold(a)
				for _, k := range p.puks[:d.revoked-1] {
					a.Hold(k.Marshal()[5:], oracle.AsPUK)
				}
			})
		}
	}
	if len(faults) > 8 {
		faults = append(faults[:8], fmt.Errorf("and %d more", len(faults)-8))
	}
	return errors.Join(faults...)
}

// standing is what a person is, and was, in the spaces of the world.
func (w *world) standing(p *person) []string {
	var out []string
	in := false
	for _, b := range w.books {
		_, now := b.level[p.name]
		was, kept := false, false
		for _, at := range b.pages {
			_, all := at.all[p.name]
			_, self := at.self[p.name]
			_, admitted := at.issuer[p.name]
			was, kept = was || all || self, kept || admitted
		}
		in = in || was
		if was && !now {
			out = append(out, "removed member")
		}
		if kept && !b.admits[p.name] {
			out = append(out, "removed keeper")
		}
		if b.level[p.name] == space.LevelReadSelf {
			out = append(out, "read_self member")
		}
	}
	if !in {
		out = append(out, "outsider")
	}
	return out
}

// last lets the spaces settle and the owners write once more. Who reads that
// is who is in now, and no page of the model is needed to say it.
func (w *world) last() []fact {
	w.audits(nil, nil, 0)
	for _, r := range slices.Backward(w.rooms) {
		for _, p := range w.people {
			w.visits(r, p, 0)
		}
	}
	var out []fact
	for _, r := range w.rooms {
		r.write(r.owner, r.state.Epoch, space.LevelWrite)
		out = append(out, w.facts[len(w.facts)-1])
	}
	return out
}

func (w *world) settled(last []fact) error {
	for _, p := range w.people {
		k := knower{who: p.name}
		shelf := w.books.of(k)
		for _, f := range last {
			in := w.books.present(p.name, f.room) >= space.LevelRead
			if w.books.knows(k, shelf, f) != in {
				return fmt.Errorf("%s reads %s: %v, and should be %v", p.name, f.name, !in, in)
			}
		}
		for _, d := range p.devices {
			if d.revoked == 0 {
				continue
			}
			k := knower{who: p.name, below: d.revoked}
			shelf := w.books.of(k)
			for _, f := range last {
				if w.books.knows(k, shelf, f) {
					return fmt.Errorf("revoked device %s reads %s", d.name, f.name)
				}
			}
		}
	}
	return nil
}

// history lets people found three spaces, and then the steps happen.
func history(seed uint64, steps []step, broken flaw) *world {
	w := newWorld(seed, broken)
	w.found("alpha", w.people[0], seed%2 == 0)
	w.found("beta", w.people[1], seed%3 != 0)
	w.found("gamma", w.people[0], true)
	if broken == sound { // some are members from the beginning
		for i := range 3 * (len(names) - 1) {
			if l := int(w.rand.Uint64() % 16); l < 9 {
				w.adds(w.rooms[i%3], w.people[i/3], l)
			}
		}
	}
	for _, s := range steps {
		w.take(s)
	}
	return w
}

// upTo draws a number below n, all alike.
func upTo(n int) *rapid.Generator[int] {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return rapid.SampledFrom(all)
}

func steps() *rapid.Generator[[]step] {
	what, who, room, extra := upTo(len(happenings)), upTo(len(names)-1), upTo(3), upTo(12)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{what.Draw(t, "what"), who.Draw(t, "who"), room.Draw(t, "room"), extra.Draw(t, "extra")}
	}), 20, 60)
}

// TestKnowledge: with every byte ever sent and every secret it ever held, and
// after trying everything, each person, each revoked device and an outsider
// know exactly what the model says.
func TestKnowledge(t *testing.T) {
	var n atomic.Int64
	var mu sync.Mutex // guards total
	total := map[string]int{}
	t.Run("histories", func(t *testing.T) {
		for i := range shards {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) {
					w := history(rapid.Uint64Max(1<<63-1).Draw(t, "seed"), steps().Draw(t, "steps"), sound)
					last := w.last()
					count := map[string]int{"history": 1}
					if err := errors.Join(w.judge(n.Add(1)%everythingEach == 0, count), w.settled(last)); err != nil {
						t.Fatal(err)
					}
					mu.Lock()
					defer mu.Unlock()
					for k, v := range count {
						total[k] += v
					}
				})
			})
		}
	})
	t.Log(total)
	if n.Load() < 500 { // a failure found, or a size given
		return
	}
	for _, k := range []string{"removed member", "removed keeper", "read_self member", "revoked device", "outsider"} {
		if total[k] < 100 {
			t.Errorf("%d times a %s was asked", total[k], k)
		}
	}
}

// busy is a history in which everything happens that a flaw could show in.
var busy = func() []step {
	var out []step
	do := func(name string, who, room, extra int) {
		i := slices.Index(happeningNames, name)
		out = append(out, step{i, who, room, extra})
	}
	do("writes", 0, 0, 0)
	do("adds", 2, 0, 1) // cai reads
	do("adds", 3, 0, 2) // dee writes
	do("adds", 4, 0, 0) // eve reads herself
	do("writes", 3, 0, 0)
	do("getsDevice", 3, 0, 0)
	do("rotates", 0, 0, 0)
	do("writes", 0, 0, 0)
	do("losesDevice", 3, 0, 0)
	do("rotates", 0, 0, 0)
	do("audits", 0, 0, 0)
	do("writes", 0, 0, 0)
	do("removes", 2, 0, 0)
	do("writes", 0, 0, 0)
	do("writes", 4, 0, 0)
	do("rotates", 0, 0, 0)
	do("writes", 0, 0, 0)
	do("adds", 2, 0, 1)
	return out
}()

var happeningNames = strings.Fields(`writes writes writesLate adds adds removes levels rotates keeps getsDevice losesDevice
	keeps keeps getsDevice losesDevice turnsHistory delegates undelegates audits renews visits invites uninvites`)

// TestTheOracleTells: broken rules do not pass, and the sound ones do.
func TestTheOracleTells(t *testing.T) {
	const noHistory, withHistory = 1, 2
	for _, c := range []struct {
		broken flaw
		seed   uint64
		says   string
	}{
		{sound, noHistory, ""}, {sound, withHistory, ""},
		{staticKeys, noHistory, "cai"}, {oldKey, noHistory, "revoked device dee/1"}, {tellsRemoved, noHistory, "cai"},
		{fullToSelf, noHistory, "eve"}, {issuerToAll, noHistory, "issuer"}, {openHistory, noHistory, "cai"},
		{controlForPrev, withHistory, "eve"}, {stalePUK, noHistory, "revoked device dee/1"},
		{careless, noHistory, "revoked device dee/1"}, {sharedHello, noHistory, "eve"},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.broken, c.seed), func(t *testing.T) {
			w := history(c.seed, busy, c.broken)
			err := w.judge(true, map[string]int{})
			switch {
			case c.says == "" && err != nil:
				t.Fatal(err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Fatalf("the oracle says %v, and nothing of %s", err, c.says)
			}
		})
	}
}
