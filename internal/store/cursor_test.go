package store

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space/envelope"
)

// longChain writes n envelopes of about 30,000 bytes, one in a commit, and gives
// how many bytes they have.
func longChain(t testing.TB, sp *Space, c *chainMaker, n int) (size int) {
	c.size = envelope.PaddedSize(30_000)
	for range n {
		r := c.next(1)
		size += r.Envs[0].Len()
		commit(t, sp, Derived, &Batch{Run: r})
	}
	return size
}

// Tables that overlap are not read again and again for each of their rows. There
// are as many as do before the engine merges them.
func TestReadingAChainReadsItOnce(t *testing.T) {
	d := storetest.NewDisk()
	s := openFaulty(t, d)
	defer closeStore(t, s)
	sp, c := s.Space([32]byte{1}, [32]byte{2}), newChain(t, 1, 2)
	size := longChain(t, sp, c, 40)
	cur := sp.Cursor(c.topic)
	defer cur.Close()
	before, got := d.Read(storage.TypeTable), uint64(0)
	for got < c.chain.Length {
		run, err := cur.Run(c.chain.ID, got, math.MaxUint64, 128<<10)
		if err != nil || len(run) == 0 {
			t.Fatalf("%d envelopes at %d: %v", len(run), got, err)
		}
		got += uint64(len(run))
	}
	if read := d.Read(storage.TypeTable) - before; read > size*5/4 {
		t.Errorf("%d bytes read of a chain of %d", read, size)
	}
}

// A cursor sees what was committed since it began, once it gets there, and reads
// another chain, or from elsewhere, when it is asked to.
func TestCursorGoesOn(t *testing.T) {
	sp := openMemory(t).Space([32]byte{1}, [32]byte{2})
	c, other := newChain(t, 1, 2), newChain(t, 1, 3)
	longChain(t, sp, c, 80)
	longChain(t, sp, other, 5)
	cur := sp.Cursor(c.topic)
	defer cur.Close()
	ask := func(of *chainMaker, from uint64, want int) {
		t.Helper()
		run, err := cur.Run(of.chain.ID, from, math.MaxUint64, 100<<10)
		if err != nil || len(run) != want || want > 0 && (run[0].Seq() != from || run[0].Chain() != of.chain.ID) {
			t.Fatalf("%d envelopes from %d, want %d: %v", len(run), from, want, err)
		}
	}
	for from := range uint64(26) {
		ask(c, 3*from, 3)
	}
	longChain(t, sp, c, 4)
	ask(c, 78, 2) // read before those were there
	ask(c, 80, 3)
	ask(c, 83, 1)
	ask(c, 84, 0)
	longChain(t, sp, c, 1)
	ask(c, 84, 1)
	ask(other, 3, 2)
	ask(other, 5, 0)
	ask(c, 7, 3)
}

// A cursor that nobody asks gives its snapshot back: the store can heal.
func TestIdleCursorRests(t *testing.T) {
	bubble(t, func(t *testing.T, _ *storetest.Disk, s *Store, sp *Space) {
		c := newChain(t, 1, 2)
		longChain(t, sp, c, 150)
		cur := sp.Cursor(c.topic)
		for from := uint64(0); from < c.chain.Length; {
			run, err := cur.Run(c.chain.ID, from, math.MaxUint64, 1<<20)
			if err != nil || len(run) == 0 {
				t.Fatalf("%d envelopes at %d: %v", len(run), from, err)
			}
			synctest.Wait()
			if from += uint64(len(run)); from < c.chain.Length && readersOf(s) == 0 {
				t.Fatal("the cursor does not keep its place")
			}
			time.Sleep(2 * cursorRest)
			synctest.Wait()
			if n := readersOf(s); n > 0 {
				t.Fatalf("%d readers of an idle cursor", n)
			}
		}
		cur.Close()
	})
}

func readersOf(s *Store) int {
	s.engine.hmu.Lock()
	defer s.engine.hmu.Unlock()
	return s.engine.readers
}
