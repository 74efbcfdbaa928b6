package node

import "time"

const (
	receiptGap   = 10 * time.Second       // between receipts of one topic where much is written
	receiptBurst = 4                      // after calm so many may follow each other
	receiptAfter = 200 * time.Millisecond // from a round that ended equal with a relay to its receipt
	receiptSoon  = 2 * time.Second        // from a change to a receipt, whatever rounds have shown
)

// pace spaces the receipts of one topic at one relay. A signature and a sync of
// its disk are what a receipt costs the relay, and a relay keeps thousands of
// topics: where entries come all the time one is enough in receiptGap. After
// calm receiptBurst are free, so that whoever waits for "signed for" does not
// wait for nothing. It is a bucket that gains one in each gap; the zero value is
// full.
type pace struct {
	full time.Time // when it is
}

// next is when a receipt may be asked for.
func (p pace) next() time.Time { return p.full.Add(-(receiptBurst - 1) * receiptGap) }

// take pays for one.
func (p *pace) take(now time.Time) {
	if p.full.Before(now) {
		p.full = now
	}
	p.full = p.full.Add(receiptGap)
}
