package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/sync/reconcile"
	"github.com/kithnet/kith/xrpc"
)

// A peer can say that its digest is ours without holding what we hold: it has
// heard ours. Its owner's own entries tell: each statement names how many
// entries its writer held. Sets only grow, so who claimed n entries and wrote
// later that it holds fewer did not hold them.

// boast is what a peer claimed to hold of an epoch, and how far the chains
// were that are written there: what follows them was written later.
type boast struct {
	count uint64
	heads map[envelope.ChainID]uint64
}

// belied is a peer whose claim its owner's entry did not bear out.
type belied struct {
	did             space.DID
	claimed, stated uint64
	at              time.Time
}

// claimed notes that a peer said to hold as much as we do. mu is held.
func (a *actor) claimed(with peer.ID, e *epoch, count uint64) {
	if old, ok := a.claims[with][e.n]; ok && old.count > count {
		return
	}
	b := boast{count: count, heads: map[envelope.ChainID]uint64{}}
	for head := range e.topic.Chains() {
		// A chain that is not read yet, or is being read again, may be the peer's.
		ch := a.chains[head.ID]
		if ch == nil || ch.device == (identity.DeviceID{}) || a.homes[ch.device] == with {
			b.heads[head.ID] = head.Length
		}
	}
	if a.claims[with] == nil {
		a.claims[with] = map[uint64]boast{}
	}
	a.claims[with][e.n] = b
}

// unclaim forgets what was claimed of an epoch of which entries were taken back.
// mu is held.
func (a *actor) unclaim(epoch uint64) {
	for _, by := range a.claims {
		delete(by, epoch)
	}
}

// witness holds what a writer says it held when it wrote seq against what its
// node claimed before.
func (a *actor) witness(ch *chain, at *position, seq uint64, view space.View) {
	a.mu.Lock()
	defer a.mu.Unlock()
	home, known := a.homes[at.device]
	b, claimed := a.claims[home][ch.epoch.n]
	from, there := b.heads[ch.id]
	if !known || !claimed || !there || seq < from || view.Count >= b.count {
		return // of a chain that was not there nobody knows whether it is read again
	}
	a.belied[home] = belied{did: at.author, claimed: b.count, stated: view.Count, at: time.Now()}
	delete(a.syncs[home], ch.epoch.n)
	delete(a.claims[home], ch.epoch.n)
	a.stats.Belied.Add(1)
	a.log.Warn("a peer claimed equal digests, and its owner's entry says that it held less",
		"peer", home, "author", fingerprintOf(at.author), "claimed", b.count, "held", view.Count)
}

// shown notes a digest that a peer has and we have. mu is held.
func (a *actor) shown(with peer.ID, epoch, count uint64, digest [32]byte) {
	if a.syncs[with] == nil {
		a.syncs[with] = map[uint64]xrpc.SyncPeer{}
	}
	now := time.Now().UnixMilli()
	s := xrpc.SyncPeer{PeerID: with.String(), Since: now, At: now, Count: count, Digest: fmt.Sprintf("%x", digest)}
	if old := a.syncs[with][epoch]; old.Digest == s.Digest && old.Count == count {
		s.Since = old.Since
	}
	a.syncs[with][epoch] = s
}

// roundFailed notes a reconciliation that did not come to an end.
func (a *actor) roundFailed(with peer.ID, err error) {
	if errors.Is(err, errUnequal) {
		return // it came to an end, and synced has noted it
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.rounds[with]
	r.PeerID, r.At, r.Equal, r.Error = with.String(), time.Now().UnixMilli(), false, err.Error()
	a.rounds[with] = r
}

// barrenMax is how many rounds in a row may come to nothing. Where entries land
// on our side meanwhile that happens between honest nodes too, but not for long.
const barrenMax = 8

// fruitless counts a round that left the digests different and brought nothing
// that is new here. It answers how many there were in a row. A peer that hides
// something, states what is not, or does not keep what it is given, makes no
// other rounds; it is named once and no longer asked again at once.
func (a *actor) fruitless(with peer.ID, res reconcile.Result) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if res.Equal || res.Received > 0 {
		delete(a.barren, with)
		return 0
	}
	a.barren[with]++
	if a.barren[with] == barrenMax {
		a.stats.Barren.Add(1)
		a.log.Warn("rounds with a peer come to nothing: it states what it does not give, or does not keep what it is given",
			"peer", with, "rounds", barrenMax, "count", res.Count, "peerCount", res.PeerCount)
	}
	return a.barren[with]
}

// refuse counts an entry or a chain that members' rules refuse.
func (a *actor) refuse() {
	a.refused.Add(1)
	a.stats.Refused.Add(1)
}
