package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/journal"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"pgregory.net/rapid"

	"github.com/kithnet/kith/internal/store/storetest"
)

// logOf is a log of records, as the engine writes it, and where each ends.
func logOf(t testing.TB, records [][]byte) (log []byte, ends []int) {
	t.Helper()
	var b bytes.Buffer
	w := journal.NewWriter(&b)
	for _, r := range records {
		next, err := w.Next()
		if err == nil {
			_, err = next.Write(r)
		}
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, b.Len())
	}
	return b.Bytes(), ends
}

// recordsOf reads a log as the engine does. Unless it is strict it reads
// around damage.
func recordsOf(log []byte, strict bool) (records [][]byte, err error) {
	for r := journal.NewReader(bytes.NewReader(log), nil, strict, true); ; {
		next, err := r.Next()
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		var record []byte
		if err == nil {
			record, err = io.ReadAll(next)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) && !strict {
			continue
		}
		if err != nil {
			return records, err
		}
		records = append(records, record)
	}
}

func endOf(t testing.TB, log []byte) int {
	t.Helper()
	n, err := logEnd(bytes.NewReader(log), int64(len(log)))
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// padded is a log written ahead to whole pages, and to at least n bytes.
func padded(log []byte, n int) []byte {
	n = (max(n, len(log)) + page - 1) / page * page
	return append(slices.Clone(log), make([]byte, n-len(log))...)
}

// Records of any size, zeros at their ends among them, end where they end.
func TestLogEnd(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var records [][]byte
		for range rapid.IntRange(0, 12).Draw(rt, "records") {
			n := rapid.OneOf(rapid.IntRange(1, 60), rapid.IntRange(4000, 4200), rapid.IntRange(32_700, 32_800), rapid.IntRange(1, 90_000)).Draw(rt, "size")
			r := bytes.Repeat([]byte{rapid.SampledFrom([]byte{0, 1}).Draw(rt, "fill")}, n)
			r[0] = 1
			records = append(records, r)
		}
		log, _ := logOf(t, records)
		ahead := padded(log, len(log)+rapid.IntRange(0, 100_000).Draw(rt, "ahead"))
		end := endOf(t, ahead)
		// Fewer zeros than a header, before the end of a block or of the file,
		// may be in it or not.
		if end < len(log) || end-len(log) >= logHeader {
			t.Fatalf("a log of %d bytes in %d ends at %d", len(log), len(ahead), end)
		}
		got, err := recordsOf(ahead[:end], true)
		equal(t, "records", []any{len(got), err}, []any{len(records), nil})
		if len(ahead) >= len(log)+2*logHeader {
			spoilt := slices.Clone(ahead)
			at := rapid.IntRange(len(log)+logHeader, len(ahead)-1).Draw(rt, "spoilt")
			spoilt[at] = 1
			if end := endOf(t, spoilt); end <= at {
				t.Fatalf("a log with something at %d ends at %d", at, end)
			}
			equal(t, "end in half a page", endOf(t, ahead[:len(ahead)-1]), len(ahead)-1)
		}
	})
}

// Wherever a log that was written ahead stops being what was written, being cut
// there or going on in zeros: the records before are read, and no others; and a
// strict reader objects unless the place is one where the log could have ended.
func TestLogCutAnywhere(t *testing.T) {
	var records [][]byte
	records = append(records, bytes.Repeat([]byte{1}, logBlock-1000)) // the next ones cross a block
	for i := range 12 {
		records = append(records, append(bytes.Repeat([]byte{byte(i + 2)}, 150), make([]byte, i%9)...))
	}
	log, ends := logOf(t, records)
	ahead := padded(log, len(log)+5000)
	whole := func(at int) (n int) {
		for n < len(ends) && ends[n] <= at {
			n++
		}
		return n
	}
	for at := range len(ahead) + 1 {
		if at > 100 && at < logBlock-1500 || at > len(log)+20 && at < len(ahead)-20 {
			continue // all the same
		}
		zeroed := padded(ahead[:at], len(ahead))
		n := whole(at)
		// Zeros at the end of a record are there without having been written.
		for n < len(ends) && bytes.Equal(zeroed[:ends[n]], ahead[:ends[n]]) {
			n++
		}
		checkCut(t, fmt.Sprint("zeros from ", at), zeroed, records, n, slices.Contains(ends, at) || at == 0 || at >= len(log) || n > whole(at))
		n = whole(at)
		checkCut(t, fmt.Sprint("cut at ", at), ahead[:at], records, n, false)
	}
}

// checkCut checks that n records are read; if sound is set, strictly so.
func checkCut(t *testing.T, what string, log []byte, records [][]byte, n int, sound bool) {
	t.Helper()
	cut := log[:endOf(t, log)]
	got, err := recordsOf(cut, true)
	if err != nil && sound {
		t.Fatalf("%s: %v", what, err)
	}
	if err == nil && len(got) != n {
		t.Fatalf("%s: %d records without a word, %d are there", what, len(got), n)
	}
	got, err = recordsOf(cut, false)
	if err != nil || len(got) != n {
		t.Fatalf("%s: %d records, %v; %d are there", what, len(got), err, n)
	}
	for i, r := range got {
		if !bytes.Equal(r, records[i]) {
			t.Fatalf("%s: record %d is another", what, i)
		}
	}
}

// The end that is found takes nothing away from what the engine reads.
func FuzzLogEnd(f *testing.F) {
	log, _ := logOf(f, [][]byte{{1}, bytes.Repeat([]byte{2}, 3000), append([]byte{3}, make([]byte, 500)...)})
	f.Add(log, uint16(1))
	f.Add(log, uint16(0))
	f.Add(log[:len(log)-1], uint16(3))
	f.Add([]byte{}, uint16(2))
	f.Fuzz(func(t *testing.T, log []byte, pages uint16) {
		log = log[:min(len(log), 3*logBlock)]
		if pages > 0 {
			log = padded(log, int(pages%32)*page)
		}
		end := endOf(t, log)
		if end > len(log) || len(bytes.Trim(log[end:], "\x00")) > 0 {
			t.Fatalf("%d of %d bytes", end, len(log))
		}
		want, _ := recordsOf(log, false)
		got, err := recordsOf(log[:end], false)
		equal(t, "records", []any{got, err}, []any{want, nil})
		if _, err := recordsOf(log, true); err == nil {
			_, err = recordsOf(log[:end], true)
			equal(t, "strictly", err, nil)
		}
	})
}

// aheadDisk is a disk with a log of a few small commits, written ahead.
func aheadDisk(t *testing.T) (h *history, size int) {
	t.Helper()
	f := storetest.NewDisk()
	h = newHistory(t, f, 1)
	for range smallSyncs {
		if err := h.commitSmall(); err != nil {
			t.Fatal(err)
		}
	}
	f.Edit(storage.TypeJournal, func(b []byte) []byte {
		size = len(b)
		return b
	})
	if size != endOfSmall(size) {
		t.Fatalf("a log of %d bytes was not written ahead", size)
	}
	return h, size
}

// endOfSmall is the size of a log that was written ahead once, of which less
// than a page was used.
func endOfSmall(int) int { return int(aheadOf(minWriteBuffer)) + page }

// commitSmall is commit with a row of some bytes.
func (h *history) commitSmall() error {
	n := len(h.states)
	text := fmt.Sprint(n)
	h.states = append(h.states, map[string]string{"n": text, "row 1": text})
	h.n, h.own = n, n
	return h.space.Commit(Own, &Batch{Meta: map[string][]byte{"n": []byte(text), "row 1": []byte(text)}})
}

// A store whose log was written ahead is cut, or goes on in zeros, at every
// point: it holds the commits before that point, and if the point is within one
// Recovered says so.
func TestStoreCutAnywhere(t *testing.T) {
	h, size := aheadDisk(t)
	disk := h.f.Clone(nil)
	var log []byte
	disk.Edit(storage.TypeJournal, func(b []byte) []byte {
		log = slices.Clone(b)
		return b
	})
	closeStore(t, h.store)
	end := endOf(t, log)
	silent := 0
	for at := range end + 100 {
		for _, cut := range []bool{false, true} {
			damaged := disk.Clone(nil)
			damaged.Edit(storage.TypeJournal, func(b []byte) []byte {
				if cut {
					return b[:at]
				}
				return padded(b[:at], size)
			})
			s := openFaulty(t, damaged)
			sp := s.Space(historyID, historyDEK)
			n := commitOf(read(t, sp)["n"])
			h.same(sp, n)
			if !s.Recovered() && !cut {
				silent++
			}
			if at >= end && n != h.n || at < end && !s.Recovered() && at > 0 && n == h.n {
				t.Fatalf("at %d of %d: commit %d, recovered %v", at, end, n, s.Recovered())
			}
			if !cut && at >= end && s.Recovered() {
				t.Fatalf("at %d: zeros behind the end of %d are damage", at, end)
			}
			closeStore(t, s)
		}
	}
	// Before each commit, and behind the last.
	if silent > smallSyncs+100 {
		t.Errorf("at %d points nothing was said", silent)
	}
}

// Only small synced commits make a log be written ahead, and never to more
// than a table's worth.
func TestWriteAhead(t *testing.T) {
	ahead := int(aheadOf(defaultWriteBuffer))
	for name, c := range map[string]struct {
		class Class
		size  int
		n     int
		zeros int // chunks that are written ahead
	}{
		"own":             {Own, 2000, 100, 3},
		"many own":        {Own, 2000, 600, 19},
		"a buffer of own": {Own, 2000, 1850, 58},
		"large own":       {Own, smallSync + 1, 40, 0},
		"remote in bulk":  {Remote, 60_000, 60, 0},
		"derived":         {Derived, 200, 2000, 0},
		"too few":         {Own, 2000, smallSyncs - 1, 0},
		"few in between":  {Own, 2000, 60, 0},
	} {
		t.Run(name, func(t *testing.T) {
			disk := storetest.NewDisk()
			s := must[*Store](t)(OpenOn(disk, [32]byte{1}, Options{}))
			sp := s.Space(historyID, historyDEK)
			value := make([]byte, c.size)
			for i := range c.n {
				commit(t, sp, c.class, &Batch{Meta: map[string][]byte{fmt.Sprint(i): value}})
				if name == "few in between" && i%(smallSyncs-1) == 0 {
					commit(t, sp, c.class, &Batch{Meta: map[string][]byte{"large": make([]byte, smallSync)}})
				}
			}
			end, size, written := 0, 0, -1
			for written != disk.Written(storage.TypeJournal) { // groups are synced behind our back
				written = disk.Written(storage.TypeJournal)
				disk.Edit(storage.TypeJournal, func(b []byte) []byte {
					size = len(b)
					end = endOf(t, b)
					return b
				})
			}
			more := written - end
			if more < c.zeros*ahead || more > c.zeros*(ahead+page) {
				t.Errorf("%d bytes beside %d of commits; a chunk is %d", more, end, ahead)
			}
			if size > defaultWriteBuffer {
				t.Errorf("a log of %d bytes", size)
			}
			closeStore(t, s)
			disk.Edit(storage.TypeJournal, func(b []byte) []byte {
				if endOf(t, b) != len(b) || len(b)%page == 0 {
					t.Errorf("closed, a log of %d bytes ends at %d", len(b), endOf(t, b))
				}
				return b
			})
		})
	}
}

// fakeLog is a file whose writes can fail.
type fakeLog struct {
	*os.File
	fail error
}

func (f *fakeLog) WriteAt(b []byte, at int64) (int, error) {
	if f.fail != nil && len(b) > 100 {
		n, _ := f.File.WriteAt(b[:len(b)/3], at)
		return n, f.fail
	}
	return f.File.WriteAt(b, at)
}

// A commit does not need what is written ahead of it.
func TestNoRoomAhead(t *testing.T) {
	f := &fakeLog{File: must[*os.File](t)(os.Create(filepath.Join(t.TempDir(), "log")))}
	w := &logWriter{f: f, chunk: page, most: 1 << 20}
	f.fail = errors.New("no space")
	for i := range 3 * smallSyncs {
		if _, err := w.Write([]byte("commit")); err != nil {
			t.Fatal(err)
		}
		if err := w.Sync(); err != nil {
			t.Fatal(err)
		}
		equal(t, "size", must[os.FileInfo](t)(f.Stat()).Size(), int64(6*(i+1)))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(); err == nil {
		t.Error("a sync of a closed file was said to be well")
	}
}
