package node

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/car"
)

// Values are at random places of the disk and each is sealed: several hands
// read them faster, within a window that bounds what is in memory.
const (
	readHands   = 4
	readClaim   = 8         // values a hand takes on at a time
	windowCount = 512       // values
	windowBytes = 512 << 10 // of values; each hand may go over it by a claim
)

// each calls do for parts of 0 to n, several at a time, until one fails.
func each(n int, do func(from, to int) error) error {
	hands := min(readHands, runtime.GOMAXPROCS(0), (n+readClaim-1)/readClaim)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	work := func() {
		for failed.Load() == nil {
			from := int(next.Add(readClaim)) - readClaim
			if from >= n {
				return
			}
			if err := do(from, min(from+readClaim, n)); err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		}
	}
	var wg sync.WaitGroup
	for range hands - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// window is a part of an index and its values, so far as they fit.
type window struct {
	values []space.Record
	err    error
}

// read reads the values of x from the first on, until there are enough.
func (v *repoView) read(x car.Index) window {
	x = x[:min(len(x), windowCount)]
	w := window{values: make([]space.Record, len(x))}
	var size, end atomic.Int64
	end.Store(int64(len(x)))
	w.err = each(len(x), func(from, to int) error {
		if int64(from) >= end.Load() {
			return nil
		}
		return v.some(x[from:to], func(i int, r space.Record) {
			w.values[from+i] = r
			if size.Add(int64(len(r))) <= windowBytes {
				return
			}
			// What is claimed already goes on, the rest waits for its own window.
			now := int64(from/readClaim+readHands) * readClaim
			for was := end.Load(); now < was && !end.CompareAndSwap(was, now); was = end.Load() {
			}
		})
	})
	w.values = w.values[:end.Load()]
	return w
}

// values gives the values of x in order, reading ahead by one window.
func (v *repoView) values(x car.Index, give func(space.Record) error) error {
	ahead := make(chan window, 1)
	start := func(x car.Index) { go func() { ahead <- v.read(x) }() }
	start(x)
	for {
		w := <-ahead
		if w.err != nil {
			return w.err
		}
		x = x[len(w.values):]
		if len(x) > 0 {
			start(x)
		}
		for _, r := range w.values {
			if err := give(r); err != nil {
				if len(x) > 0 {
					<-ahead
				}
				return err
			}
		}
		if len(x) == 0 {
			return nil
		}
	}
}
