package testnet_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/kithnet/kith/testnet"
)

// TestHostileHour gives two members who rarely meet a relay that for sixty
// minutes goes away, comes back with what it had some time ago, or with
// nothing. Nothing that was written is lost or made up, and the relay that
// signed for what it no longer has is named.
func TestHostileHour(t *testing.T) {
	testnet.Bubble(t, func(t *testing.T) {
		w := testnet.New(t, 2, testnet.Link{Latency: 30 * time.Millisecond, Jitter: 20 * time.Millisecond}, 6)
		r := w.Relay()
		id := relayed(t, w, r)
		a, b := w.Node(0), w.Node(1)
		rng := rand.New(rand.NewPCG(6, 0))
		var kept string // what the relay had some time ago
		written := 0
		minutes := 60
		if testing.Short() {
			minutes = 20
		}
		w.Wall(a, b)
		for minute := range minutes {
			for i, n := range []*testnet.Node{a, b} {
				if err := n.Put(id, fmt.Sprintf("m%d-%d", minute, i), "in the hour of the relay"); err != nil {
					t.Fatal(err)
				}
				written++
			}
			switch rng.IntN(8) {
			case 0: // away for a while
				r.Stop()
				time.Sleep(20 * time.Second)
				r.Start()
			case 1: // as it was some time ago
				r.Stop()
				if kept != "" {
					r.Wipe()
					if err := os.CopyFS(r.Dir+"/store", os.DirFS(kept)); err != nil {
						t.Fatal(err)
					}
				}
				r.Start()
			case 2: // a new disk
				r.Stop()
				r.Wipe()
				r.Start()
			case 3: // to come back to
				r.Stop()
				kept = t.TempDir()
				if err := os.CopyFS(kept, os.DirFS(r.Dir+"/store")); err != nil {
					t.Fatal(err)
				}
				r.Start()
			}
			if minute%20 == 19 { // the two meet for a moment
				w.Unwall(a, b)
				time.Sleep(20 * time.Second)
				w.Wall(a, b)
			}
			time.Sleep(time.Minute)
		}
		w.Unwall(a, b)
		w.WaitConverged(id, 5*time.Minute)
		for minute := range minutes {
			for i := range 2 {
				for _, n := range w.Nodes() {
					if err := n.Has(id, fmt.Sprintf("m%d-%d", minute, i)); err != nil {
						t.Errorf("lost: m%d-%d: %v", minute, i, err)
					}
				}
			}
		}
		st, err := a.SpaceStatus(id)
		if err != nil || st.Records != uint64(written) {
			t.Errorf("%d records, %d were written: %v", st.Records, written, err)
		}
		var caught error = errors.New("nobody names the relay")
		for _, n := range w.Nodes() {
			if row, err := relayRow(n, id, 0); err == nil && len(row.Caught) > 0 {
				t.Log(row.Caught[0])
				caught = nil
			}
		}
		if caught != nil {
			t.Error(caught)
		}
	})
}
