package control

import (
	"fmt"

	"github.com/kithnet/kith/space"
)

// ErrStale is an entry that the state has left behind: its place in the log
// is taken already (perhaps by this very entry) or its term is over.
type ErrStale struct {
	Have space.Head // the state's head
	Got  space.Head // the entry
}

func (e ErrStale) Error() string {
	return fmt.Sprintf("control entry %d.%d is behind the head %d.%d", e.Got.Term, e.Got.Seq, e.Have.Term, e.Have.Seq)
}

// ErrGap is an entry from further on: entries from Want on are missing. Only
// its framing and, within the same term, its signatures were checked.
type ErrGap struct {
	Want uint64 // the first seq that is missing
	Have space.Head
	Got  space.Head
}

func (e ErrGap) Error() string {
	return fmt.Sprintf("control entry %d.%d is ahead: entry %d is missing", e.Got.Term, e.Got.Seq, e.Want)
}

// ErrFork says that the sequencer signed two histories: Ours and Theirs have
// one place in the log and different hashes. Entry is the signed entry that
// shows it: Theirs itself, or the one after that names Theirs as its prev. It
// is told of the last Recent places. Where two entries of the authority open
// one term, the two may have different places.
type ErrFork struct {
	Ours, Theirs space.Head
	Entry        *Entry
}

func (e ErrFork) Error() string {
	return fmt.Sprintf("control log forked at %d.%d: %x and %x", e.Ours.Term, e.Ours.Seq, e.Ours.Hash[:4], e.Theirs.Hash[:4])
}

// ErrSuperseded is an entry by which the authority opens a higher term on an
// earlier entry than our head: what stands behind that one is void. Replay up
// to Accept and apply the entry again. Known is false if Accept is none of our
// last Recent heads: of another branch, then, or far back. Accept has no true
// Term then.
type ErrSuperseded struct {
	Accept space.Head
	Known  bool
}

func (e ErrSuperseded) Error() string {
	return fmt.Sprintf("a new sequencer goes on from control entry %d %x", e.Accept.Seq, e.Accept.Hash[:4])
}
