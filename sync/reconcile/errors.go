package reconcile

import (
	"errors"
	"fmt"

	"github.com/kithnet/kith/space"
)

var (
	// ErrPeer: the peer broke the protocol or sent what can never be valid.
	// It always stands together with the reason, one of the errors below or of
	// space and space/envelope.
	ErrPeer = errors.New("peer at fault")
	// ErrAuth: the other side has not the topic's fetch key, or we do not know
	// the topic: a responder answers both alike.
	ErrAuth = errors.New("not authorised for this topic")
	// ErrOrder: a message that has no place at this point.
	ErrOrder = errors.New("message out of turn")
	// ErrFrontier: chains unsorted, doubled, too many, or an empty page.
	ErrFrontier = errors.New("bad frontier")
	// ErrWant: a range that is empty or outside the frontier we stated, or
	// ranges unsorted or doubled.
	ErrWant = errors.New("bad want")
	// ErrUnasked: a run, or a part of one, that we did not ask for.
	ErrUnasked = errors.New("run was not asked for")
	// ErrVerdict: the peer's verdict is not what the digests say.
	ErrVerdict = errors.New("verdict contradicts the digests")
	// ErrControlFork: the two control logs differ at the same place. It is not
	// blamed on the peer: one sequencer signed both. ControlLog.ControlSince
	// returns it for a head that is not on our log.
	ErrControlFork = errors.New("control logs have forked")
)

// blame marks reason as the peer's doing.
func blame(step string, reason error) error {
	return fmt.Errorf("%s: %w: %w", step, ErrPeer, reason)
}

// byPeer reports whether an error that our replica gave back for something a
// peer sent says that the bytes can never be valid.
func byPeer(err error) bool {
	for _, reason := range []error{
		space.ErrForged, space.ErrMalformed, space.ErrNotCanonical, space.ErrTooLarge,
	} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}
