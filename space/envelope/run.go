package envelope

import (
	"crypto/sha256"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/sync/lthash"
)

// Caps of a run: what may be read between two checks.
const (
	// MaxRun is the most envelopes of one run.
	MaxRun = 1024
	// MaxRunBytes is the most bytes of one run.
	MaxRunBytes = 8 << 20
)

// Head is the last envelope of a chain's prefix.
type Head struct {
	Seq uint64
	ID  ID
}

// ParseRun parses the envelopes that b is made of, one after the other, at
// most MaxRun: consecutive envelopes of one chain, each linked to the one
// before. It checks no signature. It keeps b.
func ParseRun(b []byte) ([]Envelope, error) {
	if len(b) > MaxRunBytes {
		return nil, fmt.Errorf("parse run: %w: %d bytes", space.ErrTooLarge, len(b))
	}
	run := make([]Envelope, 0, min(len(b)/minSize+1, MaxRun))
	for len(b) > 0 {
		if len(run) == MaxRun {
			return nil, fmt.Errorf("parse run: %w: more than %d envelopes", space.ErrTooLarge, MaxRun)
		}
		n, err := size(b)
		if err != nil {
			return nil, fmt.Errorf("parse run: %w", err)
		}
		run = append(run, Envelope{raw: b[:n:n], id: sha256.Sum256(b[:n])})
		b = b[n:]
	}
	if err := linked(run); err != nil {
		return nil, fmt.Errorf("parse run: %w", err)
	}
	return run, nil
}

// linked refuses what is not a run of consecutive envelopes of one chain and
// topic, each linked to the one before. An ephemeral envelope stands alone.
func linked(run []Envelope) error {
	if len(run) == 0 {
		return fmt.Errorf("%w: empty run", space.ErrMalformed)
	}
	for i := range run {
		if run[i].Type().Ephemeral() && len(run) > 1 {
			return fmt.Errorf("%w: %v envelope in a run", space.ErrMalformed, run[i].Type())
		}
		if i == 0 {
			continue
		}
		e, before := run[i], run[i-1]
		if e.Chain() != before.Chain() || e.Topic() != before.Topic() {
			return fmt.Errorf("%w: run of several chains", space.ErrMalformed)
		}
		if e.Seq() != before.Seq()+1 {
			return fmt.Errorf("%w: sequence %d follows %d", space.ErrMalformed, e.Seq(), before.Seq())
		}
		if e.Prev() != before.id {
			return fmt.Errorf("%w: sequence %d does not link to %d", space.ErrForged, e.Seq(), before.Seq())
		}
	}
	return nil
}

// shape is linked with the caps of a run, for chains alone.
func shape(run []Envelope) error {
	if len(run) > MaxRun || runBytes(run) > MaxRunBytes {
		return fmt.Errorf("%w: run of %d envelopes", space.ErrTooLarge, len(run))
	}
	if err := linked(run); err != nil {
		return err
	}
	if t := run[0].Type(); t.Ephemeral() {
		return fmt.Errorf("%w: %v envelope is in no chain", space.ErrMalformed, t)
	}
	return nil
}

func runBytes(run []Envelope) int {
	n := 0
	for i := range run {
		n += len(run[i].raw)
	}
	return n
}

// signed checks the one signature that covers a linked run: its last.
func signed(run []Envelope) error {
	if last := run[len(run)-1]; !last.verified && !last.VerifySignature() {
		return fmt.Errorf("%w: signature at sequence %d", space.ErrForged, last.Seq())
	}
	return nil
}

// Sum is what Topic.Check needs of a run and can be computed before its turn,
// by any goroutine.
type Sum struct {
	first, last ID
	n           int
	state       lthash.State
}

// hashShare is how many ids are worth a goroutine.
const hashShare = 64

// SumRun hashes the ids of a linked run and checks its last signature; a bad
// one is left for Check to find. spread may be nil.
func SumRun(run []Envelope, spread lthash.Spread) *Sum {
	last := &run[len(run)-1]
	s := &Sum{first: run[0].id, last: last.id, n: len(run)}
	last.verified = last.verified || last.VerifySignature()
	s.state.Fold(spread, len(run), hashShare, func(part *lthash.State, i int) { part.Add(run[i].id[:]) })
	return s
}

// VerifyRun checks the last signature of a linked run and remembers that it is
// good. space.ErrForged if it is not.
func VerifyRun(run []Envelope) error {
	if err := signed(run); err != nil {
		return fmt.Errorf("verify run: %w", err)
	}
	run[len(run)-1].verified = true
	return nil
}

// of reports whether s is of this very run, which is linked: its ends tell.
func (s *Sum) of(run []Envelope) bool {
	return s != nil && s.n == len(run) && s.first == run[0].id && s.last == run[len(run)-1].id
}

// CheckRun checks that run continues a chain at prev, or begins it if prev is
// nil: consecutive, linked, and with a valid signature at its last envelope,
// which covers all before it. Whether the chain is certified, and whether
// sequence 0 names its certificate, is the caller's matter. An authentic run
// that stands elsewhere is ErrGap or ErrFork, one that is wrong is
// space.ErrForged, space.ErrMalformed or space.ErrTooLarge.
func CheckRun(prev *Head, run []Envelope) error {
	if err := shape(run); err != nil {
		return fmt.Errorf("check run: %w", err)
	}
	if err := signed(run); err != nil {
		return fmt.Errorf("check run: %w", err)
	}
	next := uint64(0)
	if prev != nil {
		next = prev.Seq + 1
	}
	first := run[0]
	switch {
	case first.Seq() > next:
		return fmt.Errorf("check run: %w", ErrGap{Have: next, Want: first.Seq()})
	case first.Seq() < next:
		return fmt.Errorf("check run: %w: it begins below the head", space.ErrMalformed)
	case prev != nil && first.Prev() != prev.ID:
		return fmt.Errorf("check run: %w at sequence %d", ErrFork, prev.Seq)
	}
	return nil
}

// Covered is the length of the longest beginning of a linked run that ends in
// a valid signature: what may be passed on. A writer may sign one envelope
// badly and the next one well; whoever cuts a run between them passes on what
// its receiver must refuse.
func Covered(run []Envelope) int {
	for n := len(run); n > 0; n-- {
		if run[n-1].VerifySignature() {
			return n
		}
	}
	return 0
}
