package node

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
)

// A relay keeps no control log: who has none but relays to ask reads the log out
// of the chains of those who ordered it, and these come in any order. So a
// control entry that is met before its turn is kept until then.

const (
	// earlyMeta holds the entries kept: a DRISL array of byte strings.
	earlyMeta = "early"
	// earlyMost and earlyBytes bound them. What is beyond comes by CTL.
	earlyMost  = 256
	earlyBytes = 4 << 20
)

// isEarly reports whether an entry that could not be applied may be so later.
func isEarly(err error) bool {
	var gap control.ErrGap
	return errors.As(err, &gap) || errors.Is(err, space.ErrNoKey)
}

// keepEarly stages an entry that came before its turn.
func (c *change) keepEarly(raw []byte) {
	have := c.a.early
	if c.early != nil {
		have = *c.early
	}
	size := len(raw)
	for _, e := range have {
		if size += len(e); bytes.Equal(e, raw) {
			return
		}
	}
	if len(have) < earlyMost && size <= earlyBytes {
		c.setEarly(append(slices.Clip(have), bytes.Clone(raw)))
	}
}

// setEarly stages what is kept.
func (c *change) setEarly(entries [][]byte) {
	var row []byte // none: deleted
	if len(entries) > 0 {
		var err error
		if row, err = space.Marshal(entries); err != nil {
			c.a.log.Error("keep control entries", "err", err)
			return
		}
	}
	if c.batch.Meta == nil {
		c.batch.Meta = map[string][]byte{}
	}
	c.early, c.batch.Meta[earlyMeta] = &entries, row
}

func (a *actor) loadEarly() (entries [][]byte, err error) {
	row, ok, err := a.store.Meta(earlyMeta)
	if err == nil && ok {
		err = space.Unmarshal(row, &entries)
	}
	if err != nil {
		return nil, fmt.Errorf("read control entries kept: %w", err)
	}
	return entries, nil
}

// takeEarly applies those entries kept whose turn has come, and drops those
// that no longer can be.
func (a *actor) takeEarly() {
	if len(a.early) == 0 || a.broken != nil {
		return
	}
	c := a.begin()
	left := [][]byte{}
	for _, raw := range a.early {
		err := a.stageControl(c, raw)
		switch {
		case err == nil || a.conflict(err):
		case isEarly(err):
			left = append(left, raw)
		default:
			a.log.Warn("control entry refused", "err", err)
			a.refuse()
		}
	}
	if len(left) == len(a.early) {
		return
	}
	c.setEarly(left)
	if err := c.commit(store.Own); err != nil {
		a.fail(err)
		return
	}
	a.settle(c)
}
