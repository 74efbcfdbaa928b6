package store

import (
	"encoding/binary"
	"io"
	"syscall"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"pgregory.net/rapid"

	"github.com/kithnet/kith/internal/store/storetest"
)

// logRun uses logs as the engine does: one is written to, the one before may
// still be on its way into a table. What is written is numbers, in order.
type logRun struct {
	t      *rapid.T
	disk   *storetest.Disk
	files  *files
	log    storage.Writer
	num    int64
	old    bool   // the log before has no table yet
	next   uint64 // to be written
	first  uint64 // of the newest log
	table  uint64 // the first that no table holds
	synced uint64 // the first that may go
}

const loggedBytes = 1000 // each number is padded to

func fd(num int64) storage.FileDesc { return storage.FileDesc{Type: storage.TypeJournal, Num: num} }

func newLogRun(t *rapid.T) *logRun {
	r := &logRun{t: t, disk: storetest.NewDisk()}
	under, _ := r.disk.Files(false)
	r.files = &files{Storage: under, logs: make(map[storage.FileDesc]*logWriter), names: r.disk.Names}
	r.begin()
	return r
}

func (r *logRun) begin() {
	log, err := r.files.Create(fd(r.num + 1))
	if err != nil {
		r.t.Fatal(err)
	}
	if r.log != nil {
		if err := r.log.Close(); err != nil {
			r.t.Fatal(err)
		}
		r.old = true
	}
	r.log, r.num, r.first = log, r.num+1, r.next
}

func (r *logRun) write() error {
	b := binary.BigEndian.AppendUint64(nil, r.next+1)
	_, err := r.log.Write(append(b, make([]byte, loggedBytes-len(b))...))
	if err == nil {
		r.next++
	}
	return err
}

// tabled is the end of the compaction of the log before.
func (r *logRun) tabled() {
	r.table = r.first
	if err := r.files.Remove(fd(r.num - 1)); err != nil {
		r.t.Fatal(err)
	}
	r.old = false
}

// check reads the logs that a power cut leaves.
func (r *logRun) check(keep func(int) int) {
	under, _ := r.disk.Clone(keep).Files(true)
	at := r.table
	for num := r.num - 1; num <= r.num; num++ {
		f, err := under.Open(fd(num))
		if err != nil {
			continue
		}
		b, err := io.ReadAll(f)
		if err != nil {
			r.t.Fatal(err)
		}
		for ; len(b) >= loggedBytes; b = b[loggedBytes:] {
			n := binary.BigEndian.Uint64(b)
			if n == 0 {
				break // written ahead
			}
			if n-1 != at {
				r.t.Fatalf("log %d goes on at %d behind %d", num, n-1, at)
			}
			at++
		}
	}
	if at < r.synced {
		r.t.Fatalf("%d are left of %d synced", at, r.synced)
	}
}

// Whatever survives of logs that follow each other is a prefix of what was
// written, with all that was synced.
func TestLogsLeaveAPrefix(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newLogRun(rt)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0, 1:
				if r.old {
					r.tabled()
				}
			case 2:
				if !r.old && r.next > r.first {
					r.begin()
				}
			case 3:
				if err := r.log.Sync(); err != nil {
					rt.Fatal(err)
				}
				r.synced = r.next
			default:
				for range rapid.IntRange(1, 400).Draw(rt, "writes") {
					if err := r.write(); err != nil {
						rt.Fatal(err)
					}
				}
			}
			kept := rapid.IntRange(0, 1<<20).Draw(rt, "kept")
			r.check(func(n int) int { return (n%17 + 1) * kept % (n + 1) }) // another share of each log
			r.check(func(n int) int { return n })
		}
		if err := r.log.Close(); err != nil {
			rt.Fatal(err)
		}
		r.synced = r.next
		r.check(func(n int) int { return n })
	})
}

// What waits for the log before is not lost to a disk that fails for a while.
func TestHeldIsNotLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newLogRun(rt)
		writes := func(name string) {
			for range rapid.IntRange(1, 600).Draw(rt, name) {
				if r.write() != nil {
					break
				}
			}
		}
		writes("before")
		r.begin()
		writes("held")
		r.disk.Torn = rapid.Bool().Draw(rt, "torn")
		r.disk.BreakAfter(rapid.IntRange(0, 4).Draw(rt, "good"), syscall.ENOSPC)
		if rapid.Bool().Draw(rt, "tabled") {
			r.tabled()
			writes("more")
		} else if err := r.log.Sync(); err == nil {
			r.synced = r.next
		}
		r.disk.Heal()
		if err := r.log.Close(); err != nil {
			rt.Fatal(err)
		}
		r.synced = r.next
		r.check(func(n int) int { return n })
	})
}
