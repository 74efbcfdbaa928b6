package node

import (
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// pukOf is a generation of the per-user key: the newest, or one before it.
func (s *self) pukOf(gen uint32) (identity.PUK, error) {
	puk, st := s.ownPUK(), s.ownState()
	for puk.Gen() > gen {
		var err error
		if puk, err = puk.Previous(st); err != nil {
			return identity.PUK{}, err
		}
	}
	if puk.Gen() != gen {
		return identity.PUK{}, fmt.Errorf("generation %d of the per-user key: %w", gen, space.ErrNoKey)
	}
	return puk, nil
}
