package node

import (
	"crypto/rand"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// BenchmarkRemoval removes one member of a large space. ratio is what it takes
// to build the entry and apply it: the keys of the new epoch drawn and wrapped to
// everybody who stays, the pages sealed, the entry proposed, checked, signed and
// applied; over the bare wraps of the same number on the same cores, in turns.
// durable-ratio is the whole call, with the keys, the pages and the entry on
// disk. peak-MB is the most memory that the process held meanwhile, with all it
// knows of the members.
func BenchmarkRemoval(b *testing.B) {
	for _, members := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) { benchRemoval(b, members) })
	}
}

func benchRemoval(b *testing.B, members int) {
	n, a, crowd := planted(b, members)
	for i := range crowd {
		crowd[i].Log = nil // the node has its own
	}
	peak := watchMemory(b)
	var built, whole, bare time.Duration
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		p, pages := buildRemoval(b, n, a, crowd[i])
		took := time.Since(start)
		if _, err := a.commitProposal(b.Context(), p, pages); err != nil {
			b.Fatal(err)
		}
		built, whole = built+took, whole+time.Since(start)
		b.StopTimer()
		bare += bareWraps(b, n, crowd[i+1:])
		b.StartTimer()
	}
	if got := a.control().Len(); got != members-b.N {
		b.Fatalf("%d members, want %d", got, members-b.N)
	}
	b.ReportMetric(built.Seconds()/bare.Seconds(), "ratio")
	b.ReportMetric(whole.Seconds()/bare.Seconds(), "durable-ratio")
	b.ReportMetric(1000*bare.Seconds()/float64(b.N), "bare-ms/op")
	b.ReportMetric(float64(peak())/1e6, "peak-MB")
}

// buildRemoval makes the entry that takes somebody out, and applies it to the
// state of the log. Nothing is kept.
func buildRemoval(b *testing.B, n *Node, a *actor, who Stranger) (control.Proposal, []store.ObjectRow) {
	b.Helper()
	st := a.control()
	m, ok := st.Member(who.C)
	if !ok {
		b.Fatal("no member")
	}
	kind, body, pages, err := a.removal(st, m, nil)
	if err != nil {
		b.Fatal(err)
	}
	sk := n.self.device.Sig()
	p, err := control.Propose(st, kind, body, sk, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	ck := a.lockedControlKey(st.Epoch).Bytes()
	e, err := control.Commit(st, p, sk, ck, time.Now().UnixMilli(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := control.Apply(st, e); err != nil {
		b.Fatal(err)
	}
	return p, pages
}

// watchMemory looks every few milliseconds how much memory the process holds;
// the answer is the most that it saw.
func watchMemory(b *testing.B) (peak func() uint64) {
	debug.FreeOSMemory() // what it took to make the members up
	done, most := make(chan struct{}), make(chan uint64)
	go func() {
		held := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for high := uint64(0); ; {
			select {
			case <-tick.C:
				metrics.Read(held)
				high = max(high, held[0].Value.Uint64()-held[1].Value.Uint64())
			case <-done:
				most <- high
				return
			}
		}
	}()
	return func() uint64 { close(done); return <-most }
}

// planted is a node with a space of so many members, all but its owner made up.
func planted(tb testing.TB, members int) (*Node, *actor, []Stranger) {
	tb.Helper()
	home := tb.TempDir()
	if _, _, err := Init(home, nil); err != nil {
		tb.Fatal(err)
	}
	n, err := New(Config{Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { n.Close() })
	crowd := strangersOf(tb, members-1)
	id, err := Plant([]*Node{n}, crowd, 0)
	if err != nil {
		tb.Fatal(err)
	}
	a, err := n.byID(id)
	if err != nil {
		tb.Fatal(err)
	}
	return n, a, crowd
}

func strangersOf(tb testing.TB, many int) []Stranger {
	tb.Helper()
	crowd, errs := make([]Stranger, many), make([]error, many)
	onAllCores(many, func(i int) { crowd[i], errs[i] = NewStranger() })
	for _, err := range errs {
		if err != nil {
			tb.Fatal(err)
		}
	}
	return crowd
}

func onAllCores(many int, do func(int)) {
	var wg sync.WaitGroup
	var taken atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(taken.Add(1)) - 1; i < many; i = int(taken.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

// bareWraps wraps a fresh key to the owner and everybody else, and does nothing
// with it.
func bareWraps(b *testing.B, n *Node, crowd []Stranger) time.Duration {
	b.Helper()
	to := []identity.PUKPublic{n.self.ownState().PUK}
	for _, s := range crowd {
		who, ok := n.identity(s.C)
		if !ok {
			b.Fatal("somebody is unknown")
		}
		to = append(to, who.PUK)
	}
	gk, err := seal.NewGroupKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	keys, errs := seal.Full(gk), make([]error, len(to))
	start := time.Now()
	onAllCores(len(to), func(i int) {
		_, errs[i] = seal.Wrap(to[i], seal.WrapContext{Epoch: 2}, keys)
	})
	took := time.Since(start)
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
	return took
}

// BenchmarkAdoption is what a member's node does with a removal from a large
// space that comes from the sequencer: the entry checked, opened and applied,
// the own wrap found on its page and opened.
func BenchmarkAdoption(b *testing.B) {
	for _, members := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			n, a, crowd := planted(b, members)
			before := a.control()
			if err := n.RemoveMember(b.Context(), a.id, crowd[0].DID); err != nil {
				b.Fatal(err)
			}
			raw, ok, err := a.rawControl(a.control().Head.Seq)
			if err != nil || !ok {
				b.Fatal(ok, err)
			}
			ck := a.lockedControlKey(1).Bytes()
			b.ReportAllocs()
			for b.Loop() {
				e, err := control.Parse(raw)
				if err == nil {
					err = e.Open(ck)
				}
				if err != nil {
					b.Fatal(err)
				}
				next, err := control.Apply(before, e)
				if err != nil {
					b.Fatal(err)
				}
				a.mu.RLock()
				_, err = a.unwrap(next, e.Rotation())
				a.mu.RUnlock()
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
