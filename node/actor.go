package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// actor owns one space: its goroutine alone changes the space, one message of
// its inbox at a time, and lives only while there are some. Readers take mu and
// see what is committed; nothing is visible before the store has it.
type actor struct {
	id  space.ID
	sid [32]byte

	self    *self // who this node is
	store   *store.Space
	out     outlet
	stats   *stats
	log     *slog.Logger
	inbox   inbox
	ended   chan struct{} // closed when the space ends
	wants   chan struct{} // wakes who tends the space, see Node.tend
	tended  atomic.Bool   // somebody does
	differs atomic.Bool   // a peer's digest differs with nothing left to exchange: fold again
	refused atomic.Uint64 // entries and chains that members' rules refuse

	hub hub // of those who follow the space

	// drawing is held while an author's records are drawn again: who reads records
	// waits, and sees them as they were or as they are. Taken before still.
	drawing sync.RWMutex
	still   sync.RWMutex // keeps what is in memory and in the store the same while both are read

	mu         sync.RWMutex // guards what follows; written by run's goroutine alone
	name       string       // local petname
	ctl        *control.State
	epochs     map[envelope.TopicID]*epoch
	now        *epoch                     // the newest epoch whose keys are here
	closed     map[uint64]seal.ControlKey // epochs of which the log alone is open to us
	repos      map[space.DID]*repo
	syncs      map[peer.ID]map[uint64]xrpc.SyncPeer // the last equal digests, by peer and epoch
	rounds     map[peer.ID]xrpc.Round               // the last round with each peer, in the epoch in force
	claims     map[peer.ID]map[uint64]boast         // what peers said to hold, by epoch
	belied     map[peer.ID]belied                   // peers whose owners' entries say otherwise
	barren     map[peer.ID]int                      // rounds in a row that came to nothing, see fruitless
	unverified peer.ID                              // the one node that has shown how far the log goes; "" once another has, or a link named a head
	homes      map[identity.DeviceID]peer.ID        // where devices of members run, as their hellos say
	leaving    []byte                               // set: this member's word that it goes, not in the log yet
	proof      *forkProof                           // set: the log forked and the space is frozen
	ahead      map[envelope.ChainID]uint64          // how long chains are known to be, where we hold less
	chains     map[envelope.ChainID]*chain          // what a chain holds beside its position is run's alone
	held       held                                 // its rows; next is run's alone
	pages      []store.ObjectRow                    // of the entry that is being appended
	confirmed  time.Time                            // when a peer last showed the head of the log that we hold
	broken     error                                // the last failed commit; nil when well
	sent       sending                              // the child space that sends this person, if one does
	apart      map[space.DID]*apart                 // authors whose last word is not what we hold
	doubt      bool                                 // the store was repaired and no peer has said since that nothing is missing

	caughtUp atomic.Int64 // bytes of runs taken since the start

	// Owned by run's goroutine.
	writer    *seal.Writer
	unstated  int                // own entries since the last statement
	stmtDue   time.Time          // zero: nothing to state
	moved     map[space.DID]bool // authors whose repos were not held against their word since
	saidLast  [32]byte           // the digest that this device last stated
	checkDue  time.Time          // zero: no digest to compare
	verifyDue time.Time          // zero: no repo to hold against what its author states
	outbox    outbox
	early     [][]byte    // control entries that came before their turn
	recut     []space.DID // authors whose records are to be drawn again
	pairs     map[pairKey]seal.Pair
	flight    *flight   // a change that is being written; none between two messages that are no runs
	taken     []message // from the inbox and to be handled next, see lookAhead
	missed    []peer.ID // whose entries could not be kept since the disk failed
}

// outlet is what an actor asks of the node around it. None of it blocks.
type outlet interface {
	gossiper
	directory
	keeper
	family
	// mend takes up writing again after the disk failed, or tells why not.
	mend() error
}

// keeper keeps keys and gets those that are missing.
type keeper interface {
	// keepEpochs makes new or changed keys of epochs durable.
	keepEpochs(a *actor, closed []closedRecord, epochs ...*epoch) error
	// opened makes a new epoch's topic heard.
	opened(*actor, *epoch)
	// departed hears nothing more of a space this member is out of.
	departed(*actor)
	// acquaint gets the identity logs of members from others of the space.
	acquaint(*actor, []control.Member)
	// need asks for what the space lacks: keys of its epoch, a certificate.
	need(*actor)
}

// gossiper moves what the actor has to say.
type gossiper interface {
	// publish hands a frame to gossip; a failure only delays.
	publish(envelope.Frame)
	// reconcile asks for a session with one peer of the space.
	reconcile(space [32]byte, with peer.ID)
	// compare asks for sessions with a few connected peers, to learn whether
	// the space is in sync again after it moved.
	compare(space [32]byte)
	// forgetTalks forgets what was agreed on with peers about a space.
	forgetTalks(*actor)
	// settleFork trades with one peer what is known of a chain of which we hold
	// different branches.
	settleFork(a *actor, topic envelope.TopicID, chain envelope.ChainID, with peer.ID)
}

// directory knows people and where they are.
type directory interface {
	// addrs are this node's own addresses and those of the space's peers.
	addrs(space [32]byte) (own, others []string)
	// meet tells where a member's node says it is.
	meet(space [32]byte, addrs []string)
	// identity is what the identity log of a member says, if it is known.
	identity(identity.Commitment) (identity.State, bool)
	// learn takes entries of a member's log, whose head the roster names.
	learn(c identity.Commitment, roster [32]byte, entries [][]byte)
	// identityLog is a member's identity log, nil if unknown.
	identityLog(identity.Commitment) [][]byte
}

// repo is one author's records and what goes with them.
type repo struct {
	*space.Repo
	ops  uint64      // rows of the local oplog
	said word        // the author's last word on it
	sure attribution // the worst of the author's chains

	blobs  blobIndex
	sorted sortedIndex
}

// resume does what a restart interrupted: entries that were accepted and not
// yet materialised, and frames that were committed and not yet published.
func (a *actor) resume() {
	a.rebuildOwed()
	a.retry()
	a.flushOutbox()
	a.release()
	if a.lacks() {
		a.out.need(a)
	}
}

func (a *actor) tick(now time.Time) {
	a.heal()
	if !a.stmtDue.IsZero() && !now.Before(a.stmtDue) {
		a.state()
	}
	if !a.checkDue.IsZero() && !now.Before(a.checkDue) {
		a.checkDue = time.Time{}
		a.out.compare(a.sid)
	}
	if !a.verifyDue.IsZero() && !now.Before(a.verifyDue) {
		a.verifyDue = time.Time{}
		a.verify(now)
	}
	due := false
	for _, ch := range a.chains {
		if !ch.parked.IsZero() && !now.Before(ch.parked) {
			ch.parked, due = time.Time{}, true
		}
	}
	if due {
		a.retry()
	}
}

// fail notes a commit that did not happen. What is in memory is as it was
// before, but the disk may hold the batch, so nothing more is written until
// heal has read the space again. The chain is given up: it is never resumed.
func (a *actor) fail(err error) {
	a.endChain()
	a.stmtDue = time.Time{}
	a.mu.Lock()
	a.broken = err
	a.mu.Unlock()
	a.log.Error("commit failed; the space stops acknowledging until it is read again", "err", err)
}

// heal takes up writing again after a failed commit, once the disk does: it
// reads the space anew and goes on as after a restart.
func (a *actor) heal() {
	err := a.out.mend()
	if a.broken == nil {
		return
	}
	if err == nil {
		if err = a.load(); err == nil {
			a.resume()
			for _, p := range a.missed {
				a.out.reconcile(a.sid, p)
			}
			a.missed = nil
			return
		}
		err = fmt.Errorf("%w: %w", space.ErrUnavailable, err)
	}
	a.mu.Lock()
	a.broken = err
	a.mu.Unlock()
}

// ask sends a message and waits for its answer.
func ask[T any](ctx context.Context, a *actor, m message, reply <-chan T) (T, error) {
	var zero T
	if err := a.send(ctx, m); err != nil {
		return zero, err
	}
	select {
	case r := <-reply:
		return r, nil
	case <-a.ended:
		return zero, space.ErrUnavailable
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}
