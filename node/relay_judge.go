package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/kithnet/kith/relay"
)

// charge is what a relay was caught at: two receipts that it signed, or one
// and what it showed, that do not fit together.
type charge struct {
	_    struct{} `cbor:",toarray"`
	Kind string
	At   uint64 // Unix milliseconds, when it was found
	Said []byte // relay.Receipt
	Then []byte // relay.Receipt; empty where it is held against what was shown
	Held uint64 // entries shown, where Then is empty
}

// The kinds of charges.
const (
	chargeRollback = "rollback" // it held more before than it says now
	chargeSplit    = "split"    // it signed two sets of one size
	chargeHides    = "hides"    // it signed for more than it gives
	chargeClock    = "clock"    // its receipts are not of the time they were asked for
)

// clockSlack is how far a relay's clock may be off.
const clockSlack = 10 * time.Minute

// contradict holds two receipts of one relay about one topic against each
// other. "" is none: counts never fall, and one count has one digest, but for
// chains that were cut at a fork, which the caller knows of.
func contradict(a, b relay.Receipt) string {
	if a.Time > b.Time {
		a, b = b, a
	}
	switch {
	case a.Count == b.Count && a.Digest != b.Digest:
		return chargeSplit
	case a.Count > b.Count:
		return chargeRollback
	}
	return ""
}

// String says it to the owner.
func (c charge) String() string {
	said, err := relay.ParseReceipt(c.Said)
	if err != nil {
		return c.Kind
	}
	at := time.UnixMilli(int64(said.Time)).UTC().Format(time.RFC3339)
	then, err := relay.ParseReceipt(c.Then)
	switch {
	case c.Kind == chargeHides:
		return fmt.Sprintf("it signed for %d entries at %s and gives %d of them", said.Count, at, c.Held)
	case c.Kind == chargeClock:
		return "its receipts are dated " + at + ": its clock is wrong, or it hands out old ones"
	case err != nil:
		return c.Kind
	case c.Kind == chargeSplit:
		return fmt.Sprintf("it signed for two different sets of %d entries, at %s and at %s: it shows different people different things",
			said.Count, at, time.UnixMilli(int64(then.Time)).UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("it signed for %d entries at %s and for %d at %s: it lost some, or hides them from somebody",
		said.Count, at, then.Count, time.UnixMilli(int64(then.Time)).UTC().Format(time.RFC3339))
}

// stand is what is known of one topic at one relay.
type stand struct {
	_       struct{} `cbor:",toarray"`
	Token   []byte   // empty: no lease yet
	Expires uint64   // Unix seconds
	Bytes   uint64
	Used    uint64
	Addrs   []string // of the host that serves the topic
	Kept    [][]byte // receipts, ours and other members', by rising time, at most maxKept
	Last    []byte   // our newest receipt; empty: none
	Pages   bool     // the pages that this topic's readers may fetch are there
	Charges []charge
}

// maxCharges bounds what is kept of a relay's record.
const maxCharges = 8

// charged notes a charge, once of its kind for the same first receipt.
func (s *stand) charged(c charge) bool {
	for _, have := range s.Charges {
		if have.Kind == c.Kind && (c.Kind == chargeClock || string(have.Said) == string(c.Said)) {
			return false
		}
	}
	if len(s.Charges) == maxCharges {
		return false
	}
	s.Charges = append(s.Charges, c)
	return true
}

// maxKept is how many receipts of a topic are kept of one relay.
const maxKept = 16

// hear takes a receipt, asked for here or brought by a member, and reports
// whether it contradicts what is known. forked excuses counts that fall.
func (s *stand) hear(r relay.Receipt, own, forked bool, now time.Time) (caught bool) {
	raw, at := r.Bytes(), len(s.Kept)
	for i, b := range s.Kept {
		had, err := relay.ParseReceipt(b)
		if err != nil || had.Time == r.Time && had.Count == r.Count && had.Digest == r.Digest {
			continue
		}
		first, then := b, raw
		if had.Time > r.Time {
			first, then = raw, b
			at = min(at, i)
		}
		if kind := contradict(had, r); kind != "" && !forked {
			caught = s.charged(charge{Kind: kind, At: uint64(now.UnixMilli()), Said: first, Then: then}) || caught
		}
	}
	if off := now.Sub(time.UnixMilli(int64(r.Time))); own && (off > clockSlack || off < -clockSlack) {
		caught = s.charged(charge{Kind: chargeClock, At: uint64(now.UnixMilli()), Said: raw, Then: []byte{}}) || caught
	}
	if own {
		s.Last = raw
	}
	if !slices.ContainsFunc(s.Kept, func(b []byte) bool { return bytes.Equal(b, raw) }) {
		s.Kept = slices.Insert(slices.Clone(s.Kept), at, raw)
		s.thin(now)
	}
	return caught
}

// thin drops a receipt if there are too many: the one that is missed least, so
// that what is kept reaches back long and is dense of late. Two members who
// meet after days find a moment at which the relay told them different things.
func (s *stand) thin(now time.Time) {
	if len(s.Kept) <= maxKept {
		return
	}
	at := func(i int) float64 {
		return float64(binary.BigEndian.Uint64(s.Kept[i][receiptTime:]))
	}
	least, drop := 0.0, 0
	for i := 1; i < len(s.Kept)-1; i++ {
		age := float64(now.UnixMilli()) - at(i) + 1
		if gap := (at(i+1) - at(i-1)) / max(age, 1); drop == 0 || gap < least {
			least, drop = gap, i
		}
	}
	s.Kept = slices.Delete(s.Kept, drop, drop+1)
}

// receiptTime is where a receipt says its time.
const receiptTime = 73
