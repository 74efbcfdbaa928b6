package node

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestUnhurried: a message on a slow link arrives though it takes several times
// joinDeadline; a side that stops, or that trickles for ever, is given up.
func TestUnhurried(t *testing.T) {
	for _, c := range []struct {
		name  string
		piece int           // bytes that the other side takes, or gives, at once
		every time.Duration // and how often
		stops int           // after so many bytes; 0: never
		whole bool
		took  time.Duration // at most
	}{
		{"slow", 16 << 10, 3 * time.Second, 0, true, joinMost},
		{"stops", 16 << 10, 3 * time.Second, 96 << 10, false, 40 * time.Second},
		{"trickles", 1, 10 * time.Second, 0, false, joinMost + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				msg := bytes.Repeat([]byte("welcome "), 40<<10) // 320 KiB
				pace := func(move func(n int) error) {
					for moved := 0; c.stops == 0 || moved < c.stops; moved += c.piece {
						time.Sleep(c.every)
						if move(c.piece) != nil {
							return
						}
					}
				}
				var wg sync.WaitGroup
				near, far := net.Pipe()
				start := time.Now()
				var got bytes.Buffer
				wg.Go(func() { pace(func(n int) error { _, err := io.CopyN(&got, far, int64(n)); return err }) })
				n, err := unhurried{near, start.Add(joinMost)}.Write(msg)
				judge(t, "write", err, n == len(msg), c.whole, time.Since(start), c.took)
				near.Close()
				wg.Wait()

				near, far = net.Pipe()
				start = time.Now()
				rest := msg
				wg.Go(func() {
					pace(func(n int) error {
						m, err := far.Write(rest[:min(n, len(rest))])
						rest = rest[m:]
						return err
					})
				})
				in := make([]byte, len(msg))
				_, err = io.ReadFull(unhurried{near, start.Add(joinMost)}, in)
				judge(t, "read", err, bytes.Equal(in, msg), c.whole, time.Since(start), c.took)
				near.Close()
				wg.Wait()
			})
		})
	}
}

func judge(t *testing.T, what string, err error, whole, want bool, took, limit time.Duration) {
	t.Helper()
	if whole != want || (err == nil) != want || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || took > limit {
		t.Errorf("%s: whole %t, want %t; %v after %s, want at most %s", what, whole, want, err, took, limit)
	}
}
