package resident

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestUnwritten(t *testing.T) {
	entry := func(head, anonymous string) string {
		return head + "\nSize:               8256 kB\nRss:                7584 kB\nPrivate_Dirty:         0 kB\nAnonymous:      " +
			anonymous + " kB\nVmFlags: rd ex mr mw me sd \n"
	}
	smaps := entry("00400000-00c10000 r-xp 00000000 fd:00 1313 /usr/bin/kith", "0") +
		entry("00c10000-01a10000 r--p 00810000 fd:00 1313 /usr/bin/a file with blanks", "0") +
		entry("01a10000-01a20000 r--p 01610000 fd:00 1313 /usr/bin/kith", "4") + // relocated
		entry("01a20000-01a90000 rw-p 01620000 fd:00 1313 /usr/bin/kith", "0") +
		entry("01a90000-01ac0000 r--p 00000000 00:00 0", "0") +
		entry("7ffd2000-7ffd4000 r-xp 00000000 00:00 0 [vdso]", "0")
	got, err := unwritten(strings.NewReader(smaps))
	if want := []mapping{{0x400000, 0xc10000}, {0xc10000, 0x1a10000}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("mappings %x, %v; want %x", got, err, want)
	}
	if got, err := unwritten(strings.NewReader(entry("here-there r-xp 00000000 fd:00 1313 /usr/bin/kith", "0"))); err == nil {
		t.Errorf("mappings %x of addresses that are none", got)
	}
}

// The program goes on with fewer of its pages in memory.
func TestTrim(t *testing.T) {
	before := filePages(t)
	if err := Trim(); err != nil {
		t.Fatal(err)
	}
	if after := filePages(t); after >= before {
		t.Errorf("%d KiB of files are resident, %d were before", after, before)
	}
}

// filePages is how much of files is resident, in KiB.
func filePages(t *testing.T) (kib int) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "RssFile:"); ok {
			if _, err := fmt.Sscan(v, &kib); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kib
}
