package xrpc

import (
	"context"
	"slices"
	"time"

	"github.com/kithnet/kith/space"
)

type epochAnswer struct {
	URI   string `json:"uri"`
	Epoch uint64 `json:"epoch"`
}

// rotate opens a new epoch.
func rotate(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	epoch, err := c.s.Keys.Rotate(c.ctx(), id)
	return epochAnswer{c.d.spaceURI(id), epoch}, err
}

// readCaps reads caps; without it a keeper has all of them.
func (c *call) readCaps() ([]Cap, error) {
	if !c.body.has("caps") {
		return slices.Clone(AllCaps), nil
	}
	names, err := c.body.texts("caps", len(AllCaps))
	if err != nil {
		return nil, err
	}
	return ParseCaps(names)
}

// ParseCaps reads the names of capabilities, each at most once and at least
// one, and puts them into their order.
func ParseCaps(names []string) ([]Cap, error) {
	var caps []Cap
	for _, known := range AllCaps {
		if slices.Contains(names, string(known)) {
			caps = append(caps, known)
		}
	}
	if len(caps) != len(names) || len(caps) == 0 {
		return nil, faultf(errRequest, "caps: want one or more of %q, each once", AllCaps)
	}
	return caps, nil
}

// setKeeper replaces the capabilities of a member.
func setKeeper(c *call) (any, error) {
	id, did, err := c.spaceAndDID()
	if err != nil {
		return nil, err
	}
	caps, err := c.readCaps()
	if err != nil {
		return nil, err
	}
	m, err := c.s.Keepers.SetKeeper(c.ctx(), id, did, caps)
	return objectOf(m), err
}

func removeKeeper(c *call) (any, error) {
	id, did, err := c.spaceAndDID()
	if err != nil {
		return nil, err
	}
	return done{true}, c.s.Keepers.RemoveKeeper(c.ctx(), id, did)
}

func appointSequencer(c *call) (any, error) {
	id, did, err := c.spaceAndDID()
	if err != nil {
		return nil, err
	}
	m, err := c.s.Keepers.AppointSequencer(c.ctx(), id, did)
	return objectOf(m), err
}

type devicesAnswer struct {
	Devices []Device `json:"devices"`
}

func listDevices(c *call) (any, error) {
	all, err := c.s.Devices.Devices(c.ctx())
	all = append([]Device{}, sorted(all, func(d Device) string { return d.ID })...)
	for i := range all {
		all[i].Caps = orEmpty(all[i].Caps)
	}
	return devicesAnswer{all}, err
}

func approveDevice(c *call) (any, error) {
	code, err := c.required("code")
	if err != nil {
		return nil, err
	}
	addr, _, err := c.in.text("addr")
	if err != nil {
		return nil, err
	}
	d, err := c.s.Devices.ApproveDevice(c.ctx(), code, addr)
	d.Caps = orEmpty(d.Caps)
	return d, err
}

func revokeDevice(c *call) (any, error) {
	id, err := c.hexID("id")
	if err != nil {
		return nil, err
	}
	d, err := c.s.Devices.RevokeDevice(c.ctx(), id)
	d.Caps = orEmpty(d.Caps)
	return d, err
}

// backUp writes a backup on the node's machine, as long as that takes within
// ten minutes.
func backUp(c *call) (any, error) {
	file, err := c.required("file")
	if err != nil {
		return nil, err
	}
	passphrase, _, err := c.body.text("passphrase")
	if err != nil {
		return nil, err
	}
	c.extend(mostWait * time.Second)
	ctx, cancel := context.WithTimeout(c.ctx(), mostWait*time.Second)
	defer cancel()
	return c.s.Backups.Backup(ctx, file, passphrase)
}

// spaceStatus is one space of the node's status.
func spaceStatus(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	st, err := c.s.Node.Status(c.ctx())
	if err != nil {
		return nil, err
	}
	st = filled(st)
	for _, s := range st.Spaces {
		if s.URI == id.String() || s.URI == id.AT() {
			return s, nil
		}
	}
	return nil, space.ErrSpaceNotFound
}
