package node

import (
	"cmp"
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
	Refused        atomic.Uint64 // entries and chains that members' rules refuse
	Disputed       atomic.Uint64 // chains whose device or tag is not their author's
	Unopened       atomic.Uint64 // spaces that did not open
	Redrawn        atomic.Uint64 // repos drawn again because their author states another digest
	Mended         atomic.Uint64 // and were then what the author states
	Mismatched     atomic.Uint64 // and were not
	Refolds        atomic.Uint64 // spaces folded again
	Corrupt        atomic.Uint64 // and built anew: what was kept did not add up
	Compacted      atomic.Uint64 // superseded envelopes dropped
	CompactedBytes atomic.Uint64
	PrunedOps      atomic.Uint64 // ops of oplogs dropped because they are old
	Belied         atomic.Uint64 // claims of equal digests that the claimer's own entries deny
	Dropped        atomic.Uint64 // frames dropped because a space was busy
	SyncDone       atomic.Uint64
	SyncFailed     atomic.Uint64
	SyncBytes      atomic.Int64
	Barren         atomic.Uint64 // peers whose rounds came to nothing
	Blamed         atomic.Uint64 // sync streams that broke by their peer's fault
}

func (s *stats) snapshot(m *gossip.Mesh) map[string]uint64 {
	out := map[string]uint64{
		"entriesRefused": s.Refused.Load(), "chainsDisputed": s.Disputed.Load(), "spacesUnopened": s.Unopened.Load(),
		"reposRedrawn": s.Redrawn.Load(), "reposMended": s.Mended.Load(), "repoMismatches": s.Mismatched.Load(), "claimsBelied": s.Belied.Load(),
		"envelopesCompacted": s.Compacted.Load(), "bytesCompacted": s.CompactedBytes.Load(), "opsPruned": s.PrunedOps.Load(),
		"spacesRefolded": s.Refolds.Load(), "spacesCorrupt": s.Corrupt.Load(),
		"framesDropped": s.Dropped.Load(), "syncSessions": s.SyncDone.Load(), "syncFailures": s.SyncFailed.Load(),
		"syncBytes": uint64(s.SyncBytes.Load()), "syncPeersBlamed": s.Blamed.Load(), "syncPeersBarren": s.Barren.Load(),
	}
	for name, v := range m.Counters().All() {
		out[camel("gossip "+strings.TrimPrefix(name, "gossip "))] = v
	}
	return out
}

// counters are all of the node's that only rise, by name.
func (n *Node) counters() map[string]uint64 {
	out := n.stats.snapshot(n.mesh)
	c, r := n.sched.counters(), n.rates.counters()
	for name, v := range map[string]uint64{
		"sessionsEnded": c.Ended, "sessionsUnequal": c.Unequal, "sessionsCut": c.Cut, "sessionsSlow": c.Slow,
		"sessionsRefused": c.Refused, "sessionsFailed": c.Failed, "sessionsStalled": c.Stalled,
		"sessionsDropped": c.Dropped, "sessionsWaited": c.Waited,
		"rateWaits": r.Waits, "rateWaitedMs": uint64(r.Waited.Milliseconds()), "rateRefused": r.Refused,
	} {
		out[name] = v
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

// status is one space in numbers. A peer is in sync with us only if what it
// showed last, and lately, is what we hold now.
func (a *actor) status() xrpc.SpaceStatus {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s := xrpc.SpaceStatus{
		URI: a.id.String(), Name: a.name, Role: a.role(), Epoch: a.ctl.Epoch, InSyncWith: []xrpc.SyncPeer{},
		Refused: a.refused.Load(), Frozen: a.proof != nil, Damaged: a.doubt, UnverifiedHead: a.unverified != "",
	}
	for _, r := range a.repos {
		s.Records += r.Count()
	}
	a.addDigest(&s)
	now := time.Now()
	for _, shown := range a.syncs {
		if p, ok := a.inSync(shown); ok && now.Sub(time.UnixMilli(p.At)) < freshFor {
			s.InSyncWith = append(s.InSyncWith, p)
		}
	}
	slices.SortFunc(s.InSyncWith, func(x, y xrpc.SyncPeer) int { return strings.Compare(x.PeerID, y.PeerID) })
	for _, r := range a.rounds {
		s.Rounds = append(s.Rounds, r)
	}
	slices.SortFunc(s.Rounds, func(x, y xrpc.Round) int { return strings.Compare(x.PeerID, y.PeerID) })
	s.Mismatches = a.mismatches()
	s.Behind, s.BehindBy = a.behind()
	s.LastError = a.trouble()
	return s
}

// freshFor is how old a peer's word may be for status to say "in sync": each
// connected peer is asked, or asks, more often.
const freshFor = 5 * time.Minute

// addDigest sums up what is held of each epoch. mu is held.
func (a *actor) addDigest(s *xrpc.SpaceStatus) {
	epochs := make([]*epoch, 0, len(a.epochs))
	for _, e := range a.epochs {
		epochs = append(epochs, e)
		s.Entries += e.topic.Count()
		for range e.topic.Forks() {
			s.Forks++
		}
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
}

// behind is how many entries this node knows of and cannot show yet, and how
// it knows. What peers hold beyond us and what our chains are known to lack may
// be the same entries: the larger counts. mu is held.
func (a *actor) behind() (n uint64, by []xrpc.Lag) {
	missing, waiting := a.lag()
	if missing > 0 {
		by = append(by, xrpc.Lag{Entries: missing, Why: xrpc.LagChains})
	}
	for _, r := range a.rounds {
		if a.now == nil || r.Error != "" || r.Equal || r.PeerCount <= a.now.topic.Count() {
			continue
		}
		more := r.PeerCount - a.now.topic.Count()
		by = append(by, xrpc.Lag{Entries: more, Why: xrpc.LagPeer, From: r.PeerID, At: r.At})
		missing = max(missing, more)
	}
	slices.SortFunc(by, func(x, y xrpc.Lag) int { return strings.Compare(x.From, y.From) })
	if waiting > 0 {
		by = append(by, xrpc.Lag{Entries: waiting, Why: xrpc.LagWaiting})
	}
	return missing + waiting, by
}

// mismatches are the words that do not fit what is here. mu is held.
func (a *actor) mismatches() (out []xrpc.Mismatch) {
	for author, p := range a.apart {
		if p.drawn {
			out = append(out, xrpc.Mismatch{
				Kind: xrpc.MismatchRecords, DID: author, Ours: p.ours.shown(), Stated: p.theirs.shown(), Since: p.since.UnixMilli(),
			})
		}
	}
	for with, b := range a.belied {
		out = append(out, xrpc.Mismatch{
			Kind: xrpc.MismatchView, DID: b.did, PeerID: with.String(), Since: b.at.UnixMilli(),
			Ours: xrpc.RepoHead{Count: b.claimed}, Stated: xrpc.RepoHead{Count: b.stated},
		})
	}
	slices.SortFunc(out, func(x, y xrpc.Mismatch) int {
		return cmp.Or(strings.Compare(string(x.DID), string(y.DID)), strings.Compare(x.Kind+x.PeerID, y.Kind+y.PeerID))
	})
	return out
}

func (h repoHead) shown() xrpc.RepoHead {
	return xrpc.RepoHead{Rev: h.rev.String(), Count: h.count, Hash: hex.EncodeToString(h.hash[:])}
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
