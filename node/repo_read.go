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
	readClaim   = 4         // values a hand takes on at a time
	windowCount = 512       // values
	windowBytes = 512 << 10 // of values; each hand may go over it by a claim
)

// each calls do for 0 to n-1, several at a time, and gives the first error.
func each(n int, do func(i int) error) error {
	hands := min(readHands, runtime.GOMAXPROCS(0), n/readClaim)
	if hands < 2 {
		for i := range n {
			if err := do(i); err != nil {
				return err
			}
		}
		return nil
	}
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range hands {
		wg.Go(func() {
			for {
				from := int(next.Add(readClaim)) - readClaim
				for i := from; i < min(from+readClaim, n); i++ {
					if failed.Load() != nil {
						return
					}
					if err := do(i); err != nil {
						failed.CompareAndSwap(nil, &err)
						return
					}
				}
				if from >= n {
					return
				}
			}
		})
	}
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
	w.err = each(len(x), func(i int) error {
		if int64(i) >= end.Load() {
			return nil
		}
		var err error
		if w.values[i], err = v.value(x[i]); err != nil {
			return err
		}
		if size.Add(int64(len(w.values[i]))) > windowBytes {
			// What is claimed already goes on, the rest waits for its own window.
			now := int64(i/readClaim+readHands) * readClaim
			for was := end.Load(); now < was && !end.CompareAndSwap(was, now); was = end.Load() {
			}
		}
		return nil
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
