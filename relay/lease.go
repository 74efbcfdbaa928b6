package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"math"
	"time"

	"golang.org/x/time/rate"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// lease gives the lease on a descriptor's topic, making it if there is none.
// from is the address that asks, as block has it; the proof was checked.
func (r *Relay) lease(ctx context.Context, d envelope.Descriptor, code, from string) (Lease, error) {
	now := r.cfg.Now()
	if err := current(d, now); err != nil {
		return Lease{}, err
	}
	r.leasing.Lock()
	defer r.leasing.Unlock()
	hash := []byte{}
	quota := r.cfg.Open
	if code != "" {
		q, known := r.cfg.Codes[code]
		sum := sha256.Sum256([]byte(code))
		if at, used := r.codeUsed(sum); !known || used && at != d.Topic() {
			return Lease{}, fmt.Errorf("the access code is unknown or serves another topic: %w", ErrRefused)
		}
		hash, quota = sum[:], q
	}
	t := r.topic(d.Topic())
	if t != nil && !bytes.Equal(t.described().Fetch, d.Fetch) {
		return Lease{}, fmt.Errorf("another fetch key than this topic's: %w", ErrDescriptor)
	}
	if code == "" && r.cfg.Closed && (t == nil || !t.leased(now)) {
		return Lease{}, fmt.Errorf("this relay gives no lease without an access code: %w", ErrRefused)
	}
	if t == nil {
		return r.begin(d, hash, quota, from)
	}
	return t.releaseAs(ctx, d, hash, quota)
}

func (r *Relay) codeUsed(sum [32]byte) (envelope.TopicID, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	at, ok := r.codes[sum]
	return at, ok
}

// begin makes a topic. leasing is held.
func (r *Relay) begin(d envelope.Descriptor, code []byte, q Quota, from string) (Lease, error) {
	now := r.cfg.Now()
	switch {
	case !r.doors.lease(from, now):
		return Lease{}, fmt.Errorf("too many new leases from this address: %w", ErrBusy)
	case r.held.Load() >= int64(min(r.cfg.MaxBytes, math.MaxInt64)):
		return Lease{}, fmt.Errorf("it holds all that it may: %w", ErrNoRoom)
	case r.shards.Room() <= 0:
		return Lease{}, fmt.Errorf("its hosts serve as many topics as they may: %w", ErrNoRoom)
	}
	l := ledger{Desc: d.Bytes(), Key: make([]byte, 32), First: uint64(now.Unix()), Grants: []grant{newGrant(code, q)}}
	rand.Read(l.Key)
	l.Grants[0].extend(d, r.cfg.LeaseTime, now)
	t, err := r.openTopic(l)
	if err != nil {
		return Lease{}, fmt.Errorf("%w: %w", ErrInternal, err)
	}
	t.host = -1
	if err := r.join(t); err != nil {
		return Lease{}, fmt.Errorf("%w: %w", ErrInternal, err)
	}
	t.host = max(t.host, 0)
	l.Host = uint64(t.host)
	if err := t.save(l); err != nil {
		if t.gossip != nil {
			t.gossip.Close()
		}
		return Lease{}, err
	}
	r.enter(t)
	return t.answer(&l.Grants[0]), nil
}

func newGrant(code []byte, q Quota) grant {
	g := grant{Token: make([]byte, 32), Code: code, Bytes: q.Bytes, Rate: q.Rate}
	rand.Read(g.Token)
	return g
}

// releaseAs gives the lease that a code pays for on a topic that is known: the
// one that there is, or one more. A newer descriptor takes the place of the old.
func (t *topic) releaseAs(ctx context.Context, d envelope.Descriptor, code []byte, q Quota) (Lease, error) {
	return t.change(ctx, func(l *ledger) (*grant, error) {
		if d.NotAfter > t.desc.NotAfter {
			l.Desc = d.Bytes()
		} else {
			d = t.desc
		}
		g := l.grantOf(code)
		if g == nil && len(code) == 0 && t.relay.cfg.Closed {
			// Closed, and leased by a code: whoever holds the fetch key is told.
			return &l.Grants[0], nil
		}
		if g == nil {
			l.Grants = append(l.Grants, newGrant(code, q))
			g = &l.Grants[len(l.Grants)-1]
		}
		g.extend(d, t.relay.cfg.LeaseTime, t.relay.cfg.Now())
		return g, nil
	})
}

// renew makes a lease run its whole time again.
func (t *topic) renew(ctx context.Context, token Token) (Lease, error) {
	return t.change(ctx, func(l *ledger) (*grant, error) {
		now := t.relay.cfg.Now()
		g := l.byToken(token)
		if g == nil || len(g.Code) == 0 && t.relay.cfg.Closed {
			return nil, fmt.Errorf("the token is none of this topic's, or the relay has closed: %w", ErrRefused)
		}
		if err := current(t.desc, now); err != nil {
			return nil, err
		}
		g.extend(t.desc, t.relay.cfg.LeaseTime, now)
		return g, nil
	})
}

// change alters a copy of the ledger on the owner, keeps it, and answers the
// grant it was about.
func (t *topic) change(ctx context.Context, f func(*ledger) (*grant, error)) (Lease, error) {
	var out Lease
	var err error
	called := t.call(ctx, func() {
		l := t.ledger
		l.Grants = append([]grant(nil), l.Grants...)
		l.Host = uint64(t.host)
		var g *grant
		if g, err = f(&l); err != nil {
			return
		}
		if err = t.save(l); err == nil {
			out = t.answer(g)
		}
	})
	if called != nil {
		return Lease{}, fmt.Errorf("%w: %w", ErrInternal, called)
	}
	if err == nil {
		t.relay.enter(t)
	}
	return out, err
}

// save keeps a ledger on disk and makes it the topic's.
func (t *topic) save(l ledger) error {
	b, err := space.Marshal(l)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInternal, err)
	}
	desc, err := envelope.ParseDescriptor(l.Desc)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInternal, err)
	}
	if err := t.relay.store.Put(topicTable, t.id[:], b, store.Own); err != nil {
		return diskError(err)
	}
	q, _ := l.live(t.relay.cfg.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ledger, t.desc = l, desc
	t.bucket.SetLimit(rate.Limit(q.Rate))
	t.bucket.SetBurst(int(q.Rate * burst))
	return nil
}

// answer is a grant as it is told, with what the topic has in all.
func (t *topic) answer(g *grant) Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	q, _ := t.ledger.live(t.relay.cfg.Now())
	return Lease{
		Token: g.Token, Expires: g.Expires, Bytes: q.Bytes, Used: t.held(), Rate: q.Rate,
		RetentionDays: uint64(t.relay.cfg.Retention / day), Addrs: t.relay.addrsOf(t.host),
	}
}

// described is the topic's descriptor.
func (t *topic) described() envelope.Descriptor {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.desc
}

// leased reports whether a lease runs.
func (t *topic) leased(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, until := t.ledger.live(now)
	return now.Before(until)
}

// Terms is what the relay says of itself to whoever asks.
func (r *Relay) Terms() Terms {
	return Terms{
		Version: 1, Open: !r.cfg.Closed, Bytes: r.cfg.Open.Bytes, Rate: r.cfg.Open.Rate,
		Days: uint64(r.cfg.LeaseTime / day), MaxEnvelope: envelope.MaxSize, MaxObject: MaxObject,
		RetentionDays: uint64(r.cfg.Retention / day), Addrs: r.addrsOf(0),
	}
}
