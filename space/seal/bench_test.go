package seal

import (
	"crypto/hpke"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/kithnet/kith/space/envelope"
)

// entryBody fills the smallest envelope: 256 bytes with its length.
var entryBody = text(252)

func BenchmarkSealEntry(b *testing.B) {
	e := newEpoch(50)
	w, _ := e.chain(person(1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Seal(e.rand, envelope.Entry, entryBody); err != nil {
			b.Fatal(err)
		}
	}
}

// nextEntry is a reader before its one entry; again puts it there again.
func nextEntry() (r *Reader, entry envelope.Envelope, again func()) {
	e := newEpoch(51)
	w, run := e.chain(person(1), entryBody)
	r = e.reader(w)
	if _, err := drain(r, run[:1]); err != nil {
		panic(err)
	}
	return r, run[1], func() { r.next, r.start = 1, 1 }
}

func BenchmarkOpenEntry(b *testing.B) {
	r, entry, again := nextEntry()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.Open(entry); err != nil {
			b.Fatal(err)
		}
		again()
	}
}

// TestOpenAllocs: a bulk sync opens entries by the hundred thousand.
func TestOpenAllocs(t *testing.T) {
	r, entry, again := nextEntry()
	n := testing.AllocsPerRun(100, func() {
		if _, _, err := r.Open(entry); err != nil {
			t.Fatal(err)
		}
		again()
	})
	if n > 3 {
		t.Errorf("%v allocations an entry, want at most 3", n)
	}
}

func BenchmarkOpenLong(b *testing.B) {
	e := newEpoch(52)
	w, run := e.chain(person(1), text(MaxBody))
	b.SetBytes(MaxBody)
	for b.Loop() {
		if got, err := drain(e.reader(w), run); err != nil || len(got) != 2 {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewWriter(b *testing.B) {
	e := newEpoch(53)
	cred := e.credential(person(1))
	for b.Loop() {
		w := must(NewWriter(e.rand, cred, e.issuer.Topic(), e.keys, person(1)))
		if _, _, err := w.Hello(e.rand, testHello()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrap(b *testing.B) {
	to, ctx, keys := puk(1, 1).Public(), WrapContext{C: person(1)}, newEpoch(54).keys
	for b.Loop() {
		if _, err := Wrap(to, ctx, keys); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnwrap(b *testing.B) {
	own, ctx, keys := puk(1, 1), WrapContext{C: person(1)}, newEpoch(55).keys
	kid := must(keys.Group()).KID()
	wrap := must(Wrap(own.Public(), ctx, keys))
	for b.Loop() {
		if _, err := Unwrap(own, ctx, kid, wrap); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPairKey(b *testing.B) {
	own, their := puk(1, 1), puk(1, 2).Public()
	for b.Loop() {
		if _, err := PairKey([32]byte{1}, own, person(1), their, person(2)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPairTag(b *testing.B) {
	p := must(PairKey([32]byte{1}, puk(1, 1), person(1), puk(1, 2).Public(), person(2)))
	for b.Loop() {
		PairTag(p, [32]byte{1}, 1, envelope.ChainID{1})
	}
}

// BenchmarkWrapAll wraps for a roster over all cores, as a node that rotates
// does. ns/wrap is to be held against BenchmarkBareWrap over the cores.
func BenchmarkWrapAll(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			to, keys := puk(1, 1).Public(), newEpoch(54).keys
			for b.Loop() {
				var wg sync.WaitGroup
				for w := range runtime.NumCPU() {
					wg.Go(func() {
						for i := w; i < n; i += runtime.NumCPU() {
							if _, err := Wrap(to, WrapContext{C: person(byte(i))}, keys); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/wrap")
		})
	}
}

// BenchmarkBareWrap is one X-Wing seal of 32 bytes and nothing around it.
func BenchmarkBareWrap(b *testing.B) {
	pk := must(puk(1, 1).Public().KEMKey())
	payload, info := make([]byte, 32), make([]byte, 90)
	for b.Loop() {
		if _, err := hpke.Seal(pk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, payload); err != nil {
			b.Fatal(err)
		}
	}
}
