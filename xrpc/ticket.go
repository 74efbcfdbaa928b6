package xrpc

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"

	"github.com/kithnet/kith/space"
)

// A ticket opens one WebSocket in place of a token, for pages that cannot send
// headers with one. It is good once, for ticketLife.
const (
	ticketLife = 30 * time.Second
	maxTickets = 10_000
)

type tickets struct {
	mu   sync.Mutex // guards what follows
	open map[[32]byte]ticket
}

// ticket is for one method and one space. It is kept by its hash: whoever sees
// the memory of a node cannot use it.
type ticket struct {
	caller  caller
	method  string
	space   space.ID
	expires time.Time
}

func (t *tickets) issue(k ticket, now time.Time) (string, error) {
	var b [32]byte
	rand.Read(b[:])
	text := base64.RawURLEncoding.EncodeToString(b[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) >= maxTickets {
		for h, old := range t.open {
			if now.After(old.expires) {
				delete(t.open, h)
			}
		}
	}
	if len(t.open) >= maxTickets {
		return "", faultf(space.ErrUnavailable, "too many tickets are open; try again")
	}
	if t.open == nil {
		t.open = map[[32]byte]ticket{}
	}
	t.open[sha256.Sum256([]byte(text))] = k
	return text, nil
}

// take uses a ticket up, whatever it is for.
func (t *tickets) take(text string, now time.Time) (ticket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := sha256.Sum256([]byte(text))
	k, ok := t.open[h]
	delete(t.open, h)
	return k, ok && now.Before(k.expires)
}

type ticketAnswer struct {
	Ticket    string `json:"ticket"`
	ExpiresAt string `json:"expiresAt"`
}

// createTicket issues a ticket for a socket that the caller may open. Who may
// not open it learns that there.
func createTicket(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	nsid, err := c.required("method")
	if err != nil {
		return nil, err
	}
	if nsid != "dev.kith.space.subscribe" {
		return nil, faultf(errRequest, "method: %q is not a WebSocket of this node", clip(nsid))
	}
	until := time.Now().Add(ticketLife)
	text, err := c.s.tickets.issue(ticket{c.caller, nsid, id, until}, time.Now())
	if err != nil {
		return nil, err
	}
	return ticketAnswer{text, timeText(until.UnixMicro())}, nil
}

// redeem finds the caller by the ticket in the query. errAuth: there is none.
func (c *call) redeem() (caller, error) {
	q := c.r.URL.Query()
	if len(q["ticket"]) != 1 || len(q["space"]) != 1 {
		return caller{}, errAuth
	}
	k, ok := c.s.tickets.take(q.Get("ticket"), time.Now())
	id, err := space.ParseID(q.Get("space"))
	if !ok || err != nil || k.method != c.nsid || k.space != id {
		return caller{}, faultf(errToken, "ticket: not one of this node, for this method and space; each is good once, for %s", ticketLife)
	}
	return k.caller, nil
}
