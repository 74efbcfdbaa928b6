package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/kithnet/kith/internal/store/storetest"
)

// history is a store that is written to, and what it must hold after each
// acknowledged commit.
type history struct {
	t     *testing.T
	f     *storetest.Disk
	store *Store
	space *Space
	rng   *rand.Rand

	mu     sync.Mutex // guards what follows
	states []map[string]string
	own    int // the last commit that was acknowledged as Own
	n      int // the last that was acknowledged
}

var historyID, historyDEK = [32]byte{7}, [32]byte{8}

func newHistory(t *testing.T, f *storetest.Disk, seed uint64) *history {
	h := &history{t: t, f: f, rng: rand.New(rand.NewPCG(seed, 0)), states: []map[string]string{{}}}
	h.store = openFaulty(t, f)
	h.space = h.store.Space(historyID, historyDEK)
	return h
}

// commit writes some rows, all of them saying n, the number of the commit.
func (h *history) commit(c Class) error {
	h.mu.Lock()
	n := len(h.states)
	state := maps.Clone(h.states[n-1])
	meta := map[string][]byte{"n": []byte(strconv.Itoa(n))}
	state["n"] = strconv.Itoa(n)
	for range 1 + h.rng.IntN(6) {
		name := fmt.Sprint("row ", h.rng.IntN(40))
		if h.rng.IntN(5) == 0 {
			meta[name] = nil
			delete(state, name)
			continue
		}
		state[name] = fmt.Sprint(n, " ", h.rng.Uint64())
		value := make([]byte, len(state[name]), 2048)
		copy(value, state[name])
		meta[name] = value[:len(value)+h.rng.IntN(2000)]
	}
	h.states = append(h.states, state)
	h.mu.Unlock()
	err := h.space.Commit(c, &Batch{Meta: meta})
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.states = h.states[:n]
		return err
	}
	h.n = n
	if c == Own {
		h.own = n
	}
	return nil
}

func (h *history) class() Class {
	return []Class{Own, Remote, Remote, Derived, Derived}[h.rng.IntN(5)]
}

// read gives what a space holds, as commit notes it.
func read(t *testing.T, s *Space) map[string]string {
	t.Helper()
	state := map[string]string{}
	for i := -1; i < 40; i++ {
		name := fmt.Sprint("row ", i)
		if i < 0 {
			name = "n"
		}
		v, ok, err := s.Meta(name)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			state[name] = trim(v)
		}
	}
	return state
}

func trim(v []byte) string {
	for len(v) > 0 && v[len(v)-1] == 0 {
		v = v[:len(v)-1]
	}
	return string(v)
}

// same fails unless the space holds what it held after commit n.
func (h *history) same(s *Space, n int) {
	h.t.Helper()
	if got := read(h.t, s); !maps.Equal(got, h.states[n]) {
		h.t.Fatalf("after commit %d:\n got %v\nwant %v", n, got, h.states[n])
	}
}

// Whatever instant the power is cut at, and however much of what was not
// synced survives: the store holds all commits up to some number, each of them
// whole, and every acknowledged Own commit is among them.
func TestCrashClones(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { crashClones(t, seed) })
	}
}

func crashClones(t *testing.T, seed uint64) {
	f := storetest.NewDisk()
	h := newHistory(t, f, seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	type cut struct {
		disk *storetest.Disk
		own  int
	}
	var mu sync.Mutex
	var cuts []cut
	f.OnOp = func() {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(12) != 0 {
			return
		}
		h.mu.Lock()
		own := h.own
		h.mu.Unlock()
		keep := func(n int) int { return 0 }
		if rng.IntN(2) == 0 {
			keep = func(n int) int { return rng.IntN(n + 1) }
		}
		cuts = append(cuts, cut{f.Clone(keep), own})
	}
	for range 300 {
		if err := h.commit(h.class()); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	if len(cuts) < 20 {
		t.Fatalf("only %d cuts", len(cuts))
	}
	for i, c := range cuts {
		s := openFaulty(t, c.disk)
		space := s.Space(historyID, historyDEK)
		n := 0
		if v, ok, err := space.Meta("n"); err != nil {
			t.Fatal(err)
		} else if ok {
			n, _ = strconv.Atoi(trim(v))
		}
		if n < c.own {
			t.Fatalf("cut %d: commit %d was acknowledged as durable, the last is %d", i, c.own, n)
		}
		h.same(space, n)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The same on a disk that writes its sectors in any order: every acknowledged
// Own commit is there, and if anything from between is not, that is told.
func TestCrashClonesOfSectors(t *testing.T) {
	told := 0
	for seed := range uint64(6) {
		f := storetest.NewDisk()
		h := newHistory(t, f, seed)
		rng := rand.New(rand.NewPCG(seed, 1))
		type cut struct {
			disk *storetest.Disk
			own  int
		}
		var mu sync.Mutex
		var cuts []cut
		f.OnOp = func() {
			mu.Lock()
			defer mu.Unlock()
			if rng.IntN(12) != 0 {
				return
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			most := rng.IntN(101)
			cuts = append(cuts, cut{f.CloneSectors(func() bool { return rng.IntN(100) < most }), h.own})
		}
		for range 300 {
			if err := h.commit(h.class()); err != nil {
				t.Fatal(err)
			}
		}
		closeStore(t, h.store)
		for i, c := range cuts {
			s := openFaulty(t, c.disk)
			got := read(t, s.Space(historyID, historyDEK))
			n := commitOf(got["n"])
			if !s.Recovered() {
				h.same(s.Space(historyID, historyDEK), n)
			} else {
				told++
			}
			for name, value := range h.states[c.own] {
				if got, ok := got[name]; !ok && !h.deleted(name, c.own) || ok && commitOf(got) < commitOf(value) {
					t.Fatalf("cut %d: %s is %q, and was %q in commit %d, which was durable", i, name, got, value, c.own)
				}
			}
			closeStore(t, s)
		}
	}
	if told == 0 {
		t.Error("sectors in any order did no harm: none came so")
	}
}

// commitOf is the number of the commit that wrote a value.
func commitOf(value string) int {
	number, _, _ := strings.Cut(value, " ")
	n, _ := strconv.Atoi(number)
	return n
}

// deleted reports whether a row is gone after some commit behind n.
func (h *history) deleted(name string, n int) bool {
	for _, state := range h.states[n:] {
		if _, ok := state[name]; !ok {
			return true
		}
	}
	return false
}

// powerCuts are what cuts at the operations of a disk would leave.
type powerCuts struct {
	f *storetest.Disk

	mu    sync.Mutex // guards what follows
	on    bool
	disks []*storetest.Disk
}

// cutsOf is to be called before the disk is used.
func cutsOf(f *storetest.Disk) *powerCuts {
	p := &powerCuts{f: f}
	f.OnOp = p.cut
	return p
}

func (p *powerCuts) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on {
		p.disks = append(p.disks, p.f.Clone(func(n int) int { return n * (len(p.disks) % 5) / 4 }))
	}
}

func (p *powerCuts) turn(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = on
}

// during gives the cuts before each operation of f, and the one after it.
func (p *powerCuts) during(f func()) []*storetest.Disk {
	p.turn(true)
	f()
	p.cut()
	p.turn(false)
	return p.disks
}

// Every operation in turn is the one at which the disk fills up, with and
// without the first half of the write arriving. The commit that meets it fails
// and leaves nothing, reads go on, and once there is space so do writes.
func TestDiskFull(t *testing.T) {
	for n := 0; n < 60; n++ {
		f := storetest.NewDisk()
		f.Torn = n%2 == 0
		h := newHistory(t, f, uint64(n))
		for range n % 7 {
			h.mustCommit()
		}
		f.BreakAfter(n/2, syscall.ENOSPC)
		h.untilRefused(ErrFull)
		h.same(h.space, h.n)
		if err := h.commit(Own); !errors.Is(err, ErrFull) {
			t.Fatalf("op %d: on a full disk: %v", n, err)
		}
		if err := h.store.Err(); !errors.Is(err, ErrFull) {
			t.Fatalf("op %d: Err is %v", n, err)
		}
		h.same(h.space, h.n)
		f.Heal()
		h.goesOn()
	}
}

// After any other failure nothing is written until Reopen, even though the
// disk would take it.
func TestDiskFailure(t *testing.T) {
	for n := 0; n < 60; n++ {
		f := storetest.NewDisk()
		f.Torn = n%2 == 0
		if n%3 == 0 {
			f.Only = func(op string, _ storage.FileType) bool { return op == "sync" }
		}
		h := newHistory(t, f, uint64(n))
		for range n % 7 {
			h.mustCommit()
		}
		f.BreakAfter(n/2, syscall.EIO)
		h.untilRefused(ErrIO)
		h.same(h.space, h.n)
		f.Heal()
		if err := h.commit(Own); !errors.Is(err, ErrIO) {
			t.Fatalf("op %d: before Reopen: %v", n, err)
		}
		h.same(h.space, h.n)
		if err := h.store.Reopen(); err != nil {
			t.Fatalf("op %d: Reopen: %v", n, err)
		}
		h.goesOn()
	}
}

func (h *history) mustCommit() {
	h.t.Helper()
	if err := h.commit(h.class()); err != nil {
		h.t.Fatal(err)
	}
}

// untilRefused commits until that is refused.
func (h *history) untilRefused(want error) {
	h.t.Helper()
	for range 10_000 {
		switch err := h.commit(h.class()); {
		case err == nil:
		case errors.Is(err, want):
			return
		default:
			h.t.Fatalf("commit: %v, want %v", err, want)
		}
	}
	h.t.Fatal("never refused")
}

// goesOn checks that a healed store holds what was acknowledged and takes
// writes, and that a power cut then loses nothing.
func (h *history) goesOn() {
	h.t.Helper()
	for range 20 {
		h.mustCommit()
		h.same(h.space, h.n)
	}
	if err := h.commit(Own); err != nil {
		h.t.Fatal(err)
	}
	after := openFaulty(h.t, h.f.Clone(nil))
	if after.recovered {
		h.t.Error("a power cut after a sync looks like damage")
	}
	h.same(after.Space(historyID, historyDEK), h.n)
	for _, s := range []*Store{after, h.store} {
		if err := s.Close(); err != nil {
			h.t.Fatal(err)
		}
	}
}

// Power cuts while a store is being opened lose nothing that was durable
// before, not even when they follow each other.
func TestCrashWhileOpening(t *testing.T) {
	for seed := range uint64(8) {
		f := storetest.NewDisk()
		h := newHistory(t, f, seed)
		for range 60 {
			h.mustCommit()
		}
		if err := h.commit(Own); err != nil {
			t.Fatal(err)
		}
		disk := f.Clone(nil)
		if err := h.store.Close(); err != nil {
			t.Fatal(err)
		}
		for op := range 25 {
			var cut *storetest.Disk
			var mu sync.Mutex
			n := 0
			disk.OnOp = func() {
				mu.Lock()
				defer mu.Unlock()
				if n++; n == op%8+1 {
					cut = disk.Clone(nil)
				}
			}
			s := openFaulty(t, disk)
			h.same(s.Space(historyID, historyDEK), h.n)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if cut != nil {
				disk = cut
			}
		}
	}
}
