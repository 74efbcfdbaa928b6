package node

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
)

// person is a node that can go away and come back.
type person struct {
	*Node
	home string
	disk *storetest.Disk
}

func newPerson(t *testing.T) *person {
	t.Helper()
	p := &person{home: newHome(t), disk: storetest.NewDisk()}
	p.Node = boot(t, p.home, onDisk(p.disk))
	return p
}

// back starts the node again; it meets those named.
func (p *person) back(t *testing.T, others ...*person) {
	t.Helper()
	p.Node = boot(t, p.home, onDisk(p.disk), func(c *Config) {
		if c.Log != nil && p.Node != nil {
			c.Log = c.Log.With("who", p.self.did[len(p.self.did)-4:])
		}
	})
	for _, o := range others {
		p.meet(t, o)
	}
}

func (p *person) meet(t *testing.T, o *person) {
	t.Helper()
	if _, err := p.Connect(t.Context(), fullAddrs(o.host)[0]); err != nil {
		t.Fatal(err)
	}
}

func (p *person) epochIs(t *testing.T, id space.ID, want uint64) func() error {
	return func() error {
		a, err := p.byID(id)
		if err != nil {
			return err
		}
		a.mu.RLock()
		defer a.mu.RUnlock()
		if a.ctl.Epoch != want || a.now == nil || a.now.n != want {
			return fmt.Errorf("the log is at epoch %d, want %d", a.ctl.Epoch, want)
		}
		return nil
	}
}

// TestPages: above 64 members an epoch's keys are on pages that are not in the
// log. Who is online fetches its page. Who was away over several epochs finds
// the way through all of them with only another member's node up, and once the
// authority's is back it writes in the newest.
func TestPages(t *testing.T) {
	a, b, c := newPerson(t), newPerson(t), newPerson(t)
	id, err := Plant([]*Node{a.Node, b.Node, c.Node}, strangersOf(t, control.MaxInlineWraps+8), 2)
	if err != nil {
		t.Fatal(err)
	}
	a.meet(t, b)
	a.meet(t, c)
	b.meet(t, c)
	space, err := a.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	strangers := map[uint32]bool{}
	for m := range space.control().Members() {
		if m.DID != a.self.did && m.DID != b.self.did && m.DID != c.self.did {
			strangers[m.Slot] = true
		}
	}
	texts := map[*person][]string{}
	write := func(p *person, key string) {
		t.Helper()
		soon(t, "writes "+key, func() error { _, err := putAll(p.Node, id, key, key); return err })
		texts[p] = append(texts[p], key)
	}
	next := uint64(1)
	remove := func() {
		t.Helper()
		for slot := range strangers {
			m, _ := space.control().AtSlot(slot)
			delete(strangers, slot)
			if err := a.RemoveMember(t.Context(), id, m.DID); err != nil {
				t.Fatal(err)
			}
			next++
			return
		}
	}
	write(c, "c-1")
	remove()
	for _, p := range []*person{b, c} {
		soon(t, "adopts the epoch", p.epochIs(t, id, next))
		write(p, "in-2")
	}
	soon(t, "all hold the same", func() error { return errors.Join(alike(a.Node, b.Node, id)(), alike(a.Node, c.Node, id)()) })
	halt(t, c.Node)
	for range 3 {
		remove()
		soon(t, "b adopts the epoch", b.epochIs(t, id, next))
		write(b, fmt.Sprint("b-", next))
		write(a, fmt.Sprint("a-", next))
	}
	soon(t, "both hold the same", alike(a.Node, b.Node, id))
	onPages(t, b.Node, id, next)
	halt(t, a.Node)

	c.back(t, b)
	soon(t, "c adopts the newest epoch", c.epochIs(t, id, next))
	soon(t, "b and c hold the same", alike(b.Node, c.Node, id))
	onPages(t, c.Node, id, next)
	if _, err := putAll(c.Node, id, "held", "held"); err != nil {
		t.Fatal(err)
	}
	texts[c] = append(texts[c], "held")

	a.back(t, b, c)
	space, err = a.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{a, b} {
		soon(t, "what c wrote arrives", reads(p.Node, id, c.self.did, "held"))
	}
	remove()
	for _, p := range []*person{b, c} {
		soon(t, "adopts the epoch", p.epochIs(t, id, next))
		write(p, "finally")
	}
	for _, p := range []*person{a, b, c} {
		for author, keys := range texts {
			for _, key := range keys {
				soon(t, "everybody has "+key, reads(p.Node, id, author.self.did, key))
			}
		}
	}
	soon(t, "all hold the same", func() error { return errors.Join(alike(a.Node, b.Node, id)(), alike(a.Node, c.Node, id)()) })
	for _, p := range []*person{a, b, c} {
		sound(t, p.Node, id)
	}
}

// TestPageAfterKeys: who got the keys of an epoch from a keeper, because nobody
// gave the page that holds them, still gets the page: it is the only one who has
// it when the keeper is away.
func TestPageAfterKeys(t *testing.T) {
	a, b := newPerson(t), newPerson(t)
	id, err := Plant([]*Node{a.Node, b.Node}, strangersOf(t, control.MaxInlineWraps+8), 2)
	if err != nil {
		t.Fatal(err)
	}
	a.meet(t, b)
	a.host.RemoveStreamHandler(objectProtocol)
	for m := range actorOf(t, a.Node, id).control().Members() {
		if m.DID != a.self.did && m.DID != b.self.did {
			if err := a.RemoveMember(t.Context(), id, m.DID); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	soon(t, "b has the keys", b.epochIs(t, id, 2))
	a.host.SetStreamHandler(objectProtocol, a.serveObject)
	onPages(t, b.Node, id, 2)
}

// reads is content when a node has a record of an author.
func reads(n *Node, id space.ID, author space.DID, key string) func() error {
	return func() error {
		_, err := n.Record(n.ctx, id, author, testPath(key))
		return err
	}
}

// onPages checks that the node took the keys of an epoch from its page, and
// that the pages of the log hold what the log says.
func onPages(t *testing.T, n *Node, id space.ID, epoch uint64) {
	t.Helper()
	a, err := n.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	st := a.control()
	rot, err := a.rotationOfEpoch(st)
	if err != nil {
		t.Fatal(err)
	}
	if rot.Epoch.N != epoch || len(rot.Epoch.Wraps) != 0 || len(rot.Epoch.Pages) < 2 {
		t.Fatalf("epoch %d has %d wraps and %d pages", rot.Epoch.N, len(rot.Epoch.Wraps), len(rot.Epoch.Pages))
	}
	soon(t, "the own page is here", func() error { // it may come after the keys
		_, err := a.lockedWrapOf(st, rot, n.self.c)
		return err
	})
}
