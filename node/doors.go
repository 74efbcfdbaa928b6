package node

import (
	"fmt"
	"sync"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// publicPerHour is how many strangers a node lets into one public space in an
// hour.
const publicPerHour = 600

// doors count who comes in where nobody needs an invite.
type doors struct {
	mu   sync.Mutex // guards what follows
	hour map[[32]byte]time.Time
	in   map[[32]byte]int
}

// enter counts one more; space.ErrUnavailable: too many came this hour.
func (d *doors) enter(sid [32]byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hour == nil {
		d.hour, d.in = map[[32]byte]time.Time{}, map[[32]byte]int{}
	}
	if time.Since(d.hour[sid]) > time.Hour {
		d.hour[sid], d.in[sid] = time.Now(), 0
	}
	if d.in[sid] >= publicPerHour {
		return fmt.Errorf("too many newcomers this hour: %w", space.ErrUnavailable)
	}
	d.in[sid]++
	return nil
}

// approval is a request to join by an invite that needs somebody's word. It is
// known while the node runs: who asks, asks again.
type approval struct {
	ID     string // what the approver names it by
	Space  [32]byte
	Invite [16]byte
	Who    identity.State
	Log    [][]byte
	At     time.Time
	Given  bool
}

const maxApprovals = 1000

// approvals are the requests that wait.
type approvals struct {
	mu  sync.Mutex // guards all
	all map[string]*approval
}

// check passes who was approved, and notes everybody else as waiting.
func (p *approvals) check(sid [32]byte, invite [16]byte, who identity.State, log [][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := fmt.Sprintf("%x%x", sid[:4], who.C[:8])
	if have := p.all[id]; have != nil && have.Given && have.Invite == invite {
		return nil
	}
	if p.all == nil {
		p.all = map[string]*approval{}
	}
	if _, known := p.all[id]; !known && len(p.all) >= maxApprovals {
		return fmt.Errorf("too many requests wait: %w", space.ErrUnavailable)
	}
	p.all[id] = &approval{ID: id, Space: sid, Invite: invite, Who: who, Log: log, At: time.Now()}
	return errWaiting
}

// of are the requests that wait for a space.
func (p *approvals) of(sid [32]byte) (out []approval) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.all {
		if a.Space == sid && !a.Given {
			out = append(out, *a)
		}
	}
	return out
}

// decide gives or denies an approval.
func (p *approvals) decide(sid [32]byte, id string, give bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.all[id]
	if a == nil || a.Space != sid || a.Given {
		return fmt.Errorf("request %s: %w", id, space.ErrRequestNotFound)
	}
	if a.Given = give; !give {
		delete(p.all, id)
	}
	return nil
}
