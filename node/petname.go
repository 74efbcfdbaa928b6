package node

import (
	"context"
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

var _ xrpc.Petnames = (*Node)(nil)

// petname is what the owner calls the space; "" is nothing.
func (a *actor) petname() string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.name
}

// SetPetname names a space. The name lies in the key record of the space, and
// goes to the owner's other devices with the sealed list of spaces.
func (n *Node) SetPetname(ctx context.Context, id space.ID, name string) error {
	a, err := n.byID(id)
	if err != nil {
		return err
	}
	n.naming.Lock()
	defer n.naming.Unlock()
	for _, r := range n.all() {
		if name != "" && r.actor != a && r.petname() == name {
			return fmt.Errorf("name %q: %w", name, xrpc.ErrPetnameTaken)
		}
	}
	m := &renaming{n: n, name: name, reply: make(chan error, 1)}
	err, sendErr := ask(ctx, a, m, m.reply)
	if sendErr != nil {
		return sendErr
	}
	return err
}

// renaming is a petname for the space, which alone writes its key record.
type renaming struct {
	n     *Node
	name  string
	reply chan error // buffered
}

func (m *renaming) handle(a *actor) {
	rec, err := m.n.readKeys(spaceKeyName(m.n.storeKey, a.sid))
	if err == nil {
		rec.Name = m.name
		err = m.n.saveKeys(rec)
	}
	if err != nil {
		m.reply <- diskError(fmt.Errorf("keep a petname: %w", err))
		return
	}
	a.mu.Lock()
	a.name = m.name
	a.mu.Unlock()
	m.reply <- nil
}
