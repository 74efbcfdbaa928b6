package node

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kithnet/kith/gossip"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// stats counts what status shows. Leaves, safe for concurrent use.
type stats struct {
	Refused    atomic.Uint64 // entries and chains that members' rules refuse
	Disputed   atomic.Uint64 // chains whose device or tag is not their author's
	Unopened   atomic.Uint64 // spaces that did not open
	Dropped    atomic.Uint64 // frames dropped because a space was busy
	SyncDone   atomic.Uint64
	SyncFailed atomic.Uint64
	SyncBytes  atomic.Int64
}

func (s *stats) snapshot(m *gossip.Mesh) map[string]uint64 {
	out := map[string]uint64{
		"entriesRefused": s.Refused.Load(), "chainsDisputed": s.Disputed.Load(), "spacesUnopened": s.Unopened.Load(),
		"framesDropped": s.Dropped.Load(), "syncSessions": s.SyncDone.Load(), "syncFailures": s.SyncFailed.Load(),
		"syncBytes": uint64(s.SyncBytes.Load()),
	}
	for name, v := range m.Counters().All() {
		out[camel("gossip "+strings.TrimPrefix(name, "gossip "))] = v
	}
	return out
}

// camel writes the words of a counter's name in the way of JSON keys.
func camel(words string) string {
	first, rest, _ := strings.Cut(words, " ")
	for w := range strings.FieldsSeq(rest) {
		first += strings.ToUpper(w[:1]) + w[1:]
	}
	return first
}

// status is one space in numbers. A peer is in sync with us only if its last
// stated digest is the one we hold now.
func (a *actor) status() xrpc.SpaceStatus {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s := xrpc.SpaceStatus{
		URI: a.id.String(), Name: a.name, Role: a.role(), Epoch: a.ctl.Epoch, InSyncWith: []xrpc.SyncPeer{},
	}
	for _, r := range a.repos {
		s.Records += r.Count()
	}
	epochs := make([]*epoch, 0, len(a.epochs))
	for _, e := range a.epochs {
		epochs = append(epochs, e)
		s.Entries += e.topic.Count()
	}
	slices.SortFunc(epochs, func(x, y *epoch) int { return int(x.n) - int(y.n) })
	h := sha256.New()
	for _, e := range epochs {
		d := e.topic.Digest()
		var n [16]byte
		binary.BigEndian.PutUint64(n[:], e.n)
		binary.BigEndian.PutUint64(n[8:], e.topic.Count())
		h.Write(n[:])
		h.Write(d[:])
	}
	s.Digest = hex.EncodeToString(h.Sum(nil))
	for _, shown := range a.syncs {
		if p, ok := a.inSync(shown); ok {
			s.InSyncWith = append(s.InSyncWith, p)
		}
	}
	slices.SortFunc(s.InSyncWith, func(x, y xrpc.SyncPeer) int { return strings.Compare(x.PeerID, y.PeerID) })
	s.Behind = a.lag()
	s.LastError = a.trouble()
	return s
}

// role is what this member may do here, in a word. mu is held.
func (a *actor) role() string {
	level, in := a.standing(a.ctl)
	switch {
	case a.ctl.Deleted:
		return "deleted"
	case !in:
		return "removed"
	}
	return level.String()
}

// inSync reports whether a peer last showed what we hold now, in the epoch in
// force and in every other that it showed. mu is held.
func (a *actor) inSync(shown map[uint64]xrpc.SyncPeer) (newest xrpc.SyncPeer, ok bool) {
	if a.now == nil {
		return newest, false
	}
	if newest, ok = shown[a.now.n]; !ok {
		return newest, false
	}
	for _, e := range a.epochs {
		if p, known := shown[e.n]; known && p.Digest != "" && !a.equalNow(p, e) {
			return newest, false
		}
	}
	return newest, true
}

// equalLately reports whether any peer held in the last minutes what we held.
func (a *actor) equalLately() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, shown := range a.syncs {
		for _, p := range shown {
			if p.Digest != "" && time.Since(time.UnixMilli(p.At)) < settledFor {
				return true
			}
		}
	}
	return false
}

// trouble says what keeps the space from working as it should. mu is held.
func (a *actor) trouble() string {
	refused := a.refusedByCut()
	switch {
	case a.broken != nil:
		return a.broken.Error()
	case a.proof != nil:
		return space.ErrFrozen.Error()
	case refused > 0:
		return fmt.Sprintf("%d of your entries were not known to anybody when your right to write ended: they do not count", refused)
	case a.lacksKeys():
		return fmt.Sprintf("waiting for the keys of epoch %d", a.ctl.Epoch)
	case len(a.held.rows) > 0:
		return fmt.Sprintf("%d batches are kept here and not sent yet: they wait for somebody who confirms the epoch and certifies this writer", len(a.held.rows))
	}
	return ""
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
