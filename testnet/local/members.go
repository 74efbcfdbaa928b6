package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// comers are the nodes of the second half of the story, and what they are.
const (
	reader  = "eli" // reads, until it is removed
	private = "fay" // reads and writes what is its own
	newest  = "gil" // comes while the authority is off
)

// whole are the nodes that belong to the space and read all of it.
func (d *demo) whole() []*node {
	return slices.DeleteFunc(d.all(), func(n *node) bool { return n.name == reader || n.name == private })
}

// comes starts a node and lets it join at a level.
func (d *demo) comes(ctx context.Context, name string, level space.Level) (*node, error) {
	inv, err := d.all()[0].Invite(ctx, d.id, xrpc.InviteOptions{Level: level, MaxUses: 1})
	if err != nil {
		return nil, err
	}
	d.canary(linkSecrets(inv.Link)...)
	started, err := d.enter(ctx, name)
	if err != nil {
		return nil, err
	}
	n := started[0]
	j, err := n.JoinWait(ctx, inv.Link, 25*time.Second)
	if err != nil {
		return nil, fmt.Errorf("%s joins: %w", name, err)
	}
	if j.Level != level {
		return nil, fmt.Errorf("%s joined at level %s, wanted %s", name, j.Level, level)
	}
	return n, nil
}

// says lets a node write a note and the others see it.
func (d *demo) says(ctx context.Context, n *node, kind string, seenBy []*node) error {
	d.canary("a word of " + n.name)
	path, rec, err := note(kind, 0, "a word of "+n.name+", number")
	if err != nil {
		return err
	}
	if _, err := n.PutRecord(ctx, d.id, path, rec, nil); err != nil {
		return fmt.Errorf("%s writes: %w", n.name, err)
	}
	d.acked(n, path, rec.CID())
	for _, other := range seenBy {
		err := until(ctx, func() error {
			_, err := other.Record(ctx, d.id, n.DID, path)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s reads what %s wrote: %w", other.name, n.name, err)
		}
	}
	return nil
}

// readOnly: a member that reads everything is refused as a writer.
func (d *demo) readOnly(ctx context.Context) (string, error) {
	n, err := d.comes(ctx, reader, space.LevelRead)
	if err != nil {
		return "", err
	}
	if err := d.allRead(ctx, []*node{n}); err != nil {
		return "", err
	}
	path, rec, err := note("no", 0, "never written, number")
	if err != nil {
		return "", err
	}
	if _, err := n.PutRecord(ctx, d.id, path, rec, nil); !errors.Is(err, space.ErrForbidden) {
		return "", fmt.Errorf("%s may only read, and its write was answered %v", n.name, err)
	}
	return fmt.Sprintf("%s reads all %d records; its write is refused: Forbidden", n.name, len(d.want)), nil
}

// readSelf: a member of level read_self holds everybody's ciphertext and the
// keys of its own records alone.
func (d *demo) readSelf(ctx context.Context) (string, error) {
	yes := true
	if _, err := d.all()[0].UpdateSpace(ctx, d.id, xrpc.PolicyPatch{SelfWrite: &yes}); err != nil {
		return "", err
	}
	n, err := d.comes(ctx, private, space.LevelReadSelf)
	if err != nil {
		return "", err
	}
	if err := d.says(ctx, n, "mine", d.whole()); err != nil {
		return "", err
	}
	if err := d.sees(ctx, n, 1); err != nil {
		return "", err
	}
	var s xrpc.SpaceStatus
	err = until(ctx, func() error {
		var err error
		if _, s, err = n.status(ctx, d.id); err == nil && s.Entries < uint64(len(d.want))/xrpc.MaxWrites {
			err = fmt.Errorf("%s holds %d envelopes", n.name, s.Entries)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s holds %d envelopes and reads the one record that it wrote; the others read it", n.name, s.Entries), nil
}

// sees holds if a node shows so many records.
func (d *demo) sees(ctx context.Context, n *node, records int) error {
	have, err := n.listing(ctx, d.id, "")
	if err == nil && len(have) != records {
		err = fmt.Errorf("%s sees %d records, not %d", n.name, len(have), records)
	}
	return err
}

// remove takes the reader out: what is written from then on it cannot read,
// and its node says that there is no such space any more.
func (d *demo) remove(ctx context.Context) (string, error) {
	nodes := d.all()
	i := slices.IndexFunc(nodes, func(n *node) bool { return n.name == reader })
	gone := nodes[i]
	start := time.Now()
	if err := nodes[0].RemoveMember(ctx, d.id, gone.DID); err != nil {
		return "", err
	}
	var epoch uint64
	for _, n := range d.whole() {
		err := until(ctx, func() error {
			info, err := n.Space(ctx, d.id)
			if epoch = info.Epoch; err == nil && epoch < 2 {
				err = fmt.Errorf("%s is still in epoch %d", n.name, epoch)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	took := time.Since(start)
	err := until(ctx, func() error {
		_, err := gone.Space(ctx, d.id)
		if errors.Is(err, space.ErrSpaceNotFound) {
			return nil
		}
		return fmt.Errorf("%s is removed, and its node answers %w", gone.name, err)
	})
	if err != nil {
		return "", err
	}
	others := d.whole()
	for _, n := range others[:2] {
		if err := d.says(ctx, n, "after", others); err != nil {
			return "", err
		}
	}
	path, _, err := note("after", 0, "")
	if err != nil {
		return "", err
	}
	if _, err := gone.Record(ctx, d.id, others[1].DID, path); !errors.Is(err, space.ErrSpaceNotFound) {
		return "", fmt.Errorf("%s asks for what was written after it was removed: %w", gone.name, err)
	}
	return fmt.Sprintf("%d nodes in epoch %d after %d ms, %s out of it; what was written since, it cannot read",
		len(others), epoch, took.Milliseconds(), gone.name), nil
}

// keeper lets another member's node order the log and admit, switches the
// authority's off, and lets somebody join.
func (d *demo) keeper(ctx context.Context) (string, error) {
	nodes := d.all()
	authority, keeper := nodes[0], nodes[1]
	if _, err := authority.SetKeeper(ctx, d.id, keeper.DID, []xrpc.Cap{xrpc.CapAdmit, xrpc.CapSequence}); err != nil {
		return "", err
	}
	if _, err := authority.AppointSequencer(ctx, d.id, keeper.DID); err != nil {
		return "", err
	}
	inv, err := authority.Invite(ctx, d.id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		return "", err
	}
	d.canary(linkSecrets(inv.Link)...)
	err = until(ctx, func() error {
		ds, err := keeper.Invites(ctx, d.id)
		if err == nil && !slices.ContainsFunc(ds, func(v xrpc.InviteInfo) bool { return v.ID == inv.ID }) {
			err = fmt.Errorf("%s does not know the invite", keeper.name)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if err := authority.stop(); err != nil {
		return "", fmt.Errorf("stop %s: %w", authority.name, err)
	}
	late, err := d.enter(ctx, newest)
	if err != nil {
		return "", err
	}
	start := time.Now()
	if _, err := late[0].JoinWait(ctx, inv.Link, 25*time.Second); err != nil {
		return "", fmt.Errorf("%s joins while %s is off: %w", newest, authority.name, err)
	}
	joined := time.Since(start)
	if err := d.allRead(ctx, late); err != nil {
		return "", err
	}
	read := time.Since(start)
	if err := d.says(ctx, late[0], "hello", []*node{keeper}); err != nil {
		return "", err
	}
	back, err := d.again(ctx, authority)
	if err != nil {
		return "", err
	}
	if err := d.allRead(ctx, []*node{back}); err != nil {
		return "", err
	}
	if err := until(ctx, func() error { return d.rosterOf(ctx, d.whole(), 6) }); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s let %s in after %d ms, with the whole history after %d ms, while %s was off; %s came back and knows it",
		keeper.name, newest, joined.Milliseconds(), read.Milliseconds(), authority.name, authority.name), nil
}
