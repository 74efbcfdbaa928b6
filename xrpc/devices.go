package xrpc

import (
	"context"
	"time"

	"github.com/kithnet/kith/space"
)

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
