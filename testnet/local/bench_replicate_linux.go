package local

import (
	"fmt"
	"os"
	"strings"
)

// loopbackBytes is what the loopback interface has carried so far.
func loopbackBytes() float64 {
	b, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var n float64
		name, counts, _ := strings.Cut(strings.TrimSpace(line), ":")
		if _, err := fmt.Sscan(counts, &n); err == nil && name == "lo" {
			return n
		}
	}
	return 0
}

// peakMiB is the most memory a process has had resident.
func peakMiB(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kib float64
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(v, &kib); err == nil {
				return kib / 1024
			}
		}
	}
	return 0
}

// cpuOf is the processor time a process has used, in seconds.
func cpuOf(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const user, system, ticks = 11, 12, 100
	var u, s float64
	if len(fields) > system {
		_, _ = fmt.Sscan(fields[user], &u)
		_, _ = fmt.Sscan(fields[system], &s)
	}
	return (u + s) / ticks
}
