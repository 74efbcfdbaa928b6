package control

import (
	"crypto/sha256"
	"fmt"

	"github.com/kithnet/kith/space"
)

// Replay parses, opens and applies a whole log from its genesis. ck gives the
// control key of an epoch, nil if there is none.
func Replay(log [][]byte, ck func(epoch uint64) []byte) (*State, error) {
	var s *State
	for i, raw := range log {
		e, err := Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("replay entry %d: %w", i, err)
		}
		if s, err = replayed(s, e, ck); err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
	}
	if s == nil {
		return nil, fmt.Errorf("replay: %w: empty log", space.ErrMalformed)
	}
	return s, nil
}

// replayed is Apply with the body opened between place and rules: an entry
// that is out of place says so, and not that its key is missing.
func replayed(s *State, e *Entry, ck func(epoch uint64) []byte) (*State, error) {
	if s == nil {
		if !e.InClear() {
			return Apply(nil, e)
		}
		if err := e.Open(nil); err != nil {
			return nil, err
		}
		return Apply(nil, e)
	}
	if err := s.checkPlace(e); err != nil {
		return nil, err
	}
	var key []byte
	if !e.InClear() {
		key = ck(s.Epoch)
	}
	if err := e.Open(key); err != nil {
		return nil, err
	}
	return s.follow(e)
}

// Check holds a log that was offered to a newcomer, and the state it gives,
// against the link: the space must be the one of the link, and the log must
// contain the entry that was its head when the link was made. Otherwise the
// log is of another space, or old, or a second history.
func (l Link) Check(s *State, log [][]byte) error {
	if s.SpaceID != l.SpaceID {
		return fmt.Errorf("invite link: the log is of another space: %w", space.ErrForged)
	}
	for i := len(log) - 1; i >= 0; i-- {
		if sha256.Sum256(log[i]) == l.Head {
			return nil
		}
	}
	return fmt.Errorf("invite link: the log lacks the entry the link names: it is old or another history: %w", space.ErrForged)
}
