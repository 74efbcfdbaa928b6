package resident

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Trim takes the pages of the program out of the process: its start touches
// nearly all of them, with those that the kernel maps around each, and what
// runs then half. They are the file's and unchanged. The kernel keeps them, and
// maps them again as they are touched, a microsecond for 64 KiB.
func Trim() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("read what is mapped: %w", err)
	}
	defer f.Close()
	all, err := unwritten(f)
	if err != nil {
		return fmt.Errorf("read what is mapped: %w", err)
	}
	for _, m := range all {
		_, _, e := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
		if e != 0 {
			return fmt.Errorf("give back the pages of the program: %w", e)
		}
	}
	return nil
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// unwritten reads an smaps (proc(5)) and answers the mappings of files that
// cannot be written and hold no page of the process's own. A page that was
// relocated while the program was loaded is its own: to give it back would
// undo that.
func unwritten(smaps io.Reader) ([]mapping, error) {
	var out []mapping
	var at mapping
	file := false // at is a file's, to read alone
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) < 3:
		case f[0] == "Anonymous:":
			if file && f[1] == "0" {
				out = append(out, at)
			}
			file = false
		case !strings.HasSuffix(f[0], ":"):
			from, to, _ := strings.Cut(f[0], "-")
			a, err1 := strconv.ParseUint(from, 16, 64)
			b, err2 := strconv.ParseUint(to, 16, 64)
			if err1 != nil || err2 != nil {
				return nil, fmt.Errorf("mapping %q is not two addresses", f[0])
			}
			at = mapping{uintptr(a), uintptr(b)}
			file = len(f) > 5 && f[4] != "0" && strings.HasPrefix(f[1], "r-")
		}
	}
	return out, lines.Err()
}
