//go:build !linux

package local

// loopbackBytes is not known here.
func loopbackBytes() float64 { return 0 }

// peakMiB is not known here.
func peakMiB(int) float64 { return 0 }

// cpuOf is not known here.
func cpuOf(int) float64 { return 0 }
