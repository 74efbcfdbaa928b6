package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

const day = 24 * time.Hour

// Quota is what a lease allows.
type Quota struct {
	Bytes uint64 // of envelopes, certificates and objects
	Rate  uint64 // envelopes a second over all writers, ten times that at once
}

// ledger is what a relay promised for a topic, and what it has to know of it to
// keep that. It is kept on disk as it stands; zero is none.
type ledger struct {
	_      struct{} `cbor:",toarray"`
	Desc   []byte   // topic descriptor
	Key    []byte   // of the topic's rows on disk
	Host   uint64   // which host served it last
	First  uint64   // Unix seconds of the first lease
	Grants []grant
}

// grant is a lease as it is kept.
type grant struct {
	_           struct{} `cbor:",toarray"`
	Token       []byte
	Code        []byte // SHA-256 of the access code; empty: the open lease
	Bytes, Rate uint64
	Expires     uint64 // Unix seconds
}

// live sums the grants that run at a time, and says until when the last does.
func (l *ledger) live(now time.Time) (q Quota, until time.Time) {
	for _, g := range l.Grants {
		end := time.Unix(int64(g.Expires), 0)
		if end.After(until) {
			until = end
		}
		if now.Before(end) {
			q.Bytes += g.Bytes
			q.Rate += g.Rate
		}
	}
	return q, until
}

// grantOf is the grant that a code paid for; "" is the open one.
func (l *ledger) grantOf(code []byte) *grant {
	i := slices.IndexFunc(l.Grants, func(g grant) bool { return bytes.Equal(g.Code, code) })
	if i < 0 {
		return nil
	}
	return &l.Grants[i]
}

// byToken is the grant of a token.
func (l *ledger) byToken(t Token) *grant {
	i := slices.IndexFunc(l.Grants, func(g grant) bool { return bytes.Equal(g.Token, t[:]) })
	if i < 0 {
		return nil
	}
	return &l.Grants[i]
}

// extend makes a grant run its whole time again, not beyond the descriptor.
func (g *grant) extend(d envelope.Descriptor, length time.Duration, now time.Time) {
	g.Expires = max(g.Expires, min(uint64(now.Add(length).Unix()), d.NotAfter))
}

// forgotten reports whether nothing of the topic has to be kept any more.
func (l *ledger) forgotten(now time.Time) bool {
	_, until := l.live(now)
	kept := time.Unix(int64(l.First), 0).Add(KeepDays * day)
	return !now.Before(until) && !now.Before(kept)
}

// current refuses a descriptor that is over or ends too late.
func current(d envelope.Descriptor, now time.Time) error {
	if d.NotAfter <= uint64(max(0, now.Unix())) || d.NotAfter > uint64(now.Add(MaxAhead*day).Unix()) {
		return fmt.Errorf("it ends at Unix second %d: %w", d.NotAfter, ErrExpired)
	}
	return nil
}

// arrival is a row of a topic's log of what came, in order. Rows are numbered
// from 0 without a gap but for what was dropped.
//
//	0   1   0 a run, 1 an object
//	1   32  chain, or hash
//	33  8   first sequence; of an object its class
//	41  4   envelopes
//	45  4   bytes
//	49  1   types of the envelopes, bit by number
//	50  8   Unix seconds
//	58  8   bytes used by the topic after it, of all that ever came
type arrival struct {
	object bool
	id     [32]byte
	from   uint64
	count  uint32
	bytes  uint32
	types  uint8
	at     uint64
	used   uint64
}

const arrivalSize = 66

func (a arrival) append(b []byte) []byte {
	kind := byte(0)
	if a.object {
		kind = 1
	}
	b = append(append(b, kind), a.id[:]...)
	b = binary.BigEndian.AppendUint64(b, a.from)
	b = binary.BigEndian.AppendUint32(b, a.count)
	b = binary.BigEndian.AppendUint32(b, a.bytes)
	b = append(b, a.types)
	b = binary.BigEndian.AppendUint64(b, a.at)
	return binary.BigEndian.AppendUint64(b, a.used)
}

func parseArrival(b []byte) (arrival, error) {
	if len(b) != arrivalSize || b[0] > 1 {
		return arrival{}, fmt.Errorf("arrival of %d bytes: %w", len(b), space.ErrMalformed)
	}
	return arrival{
		object: b[0] == 1, id: [32]byte(b[1:33]), from: binary.BigEndian.Uint64(b[33:]),
		count: binary.BigEndian.Uint32(b[41:]), bytes: binary.BigEndian.Uint32(b[45:]), types: b[49],
		at: binary.BigEndian.Uint64(b[50:]), used: binary.BigEndian.Uint64(b[58:]),
	}, nil
}

// arrivalOf is the row of a run.
func arrivalOf(run []envelope.Envelope, cert bool, now time.Time) arrival {
	a := arrival{id: run[0].Chain(), from: run[0].Seq(), count: uint32(len(run)), at: uint64(now.Unix())}
	size := 0
	for i := range run {
		size += run[i].Len()
		a.types |= 1 << run[i].Type()
	}
	if cert {
		size += envelope.CertificateSize
	}
	a.bytes = uint32(size)
	return a
}

// droppable reports whether a row is of nothing but entries, or a shard, and
// older than what the topic keeps.
func (a arrival) droppable(before time.Time) bool {
	if a.at >= uint64(max(0, before.Unix())) {
		return false
	}
	if a.object {
		return Class(a.from) == Shard
	}
	return a.types == 1<<envelope.Entry
}
