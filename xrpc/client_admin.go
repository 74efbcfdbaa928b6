package xrpc

import (
	"context"
	"time"

	"github.com/kithnet/kith/space"
)

// SetKeeper replaces the capabilities of a member.
func (c *Client) SetKeeper(ctx context.Context, id space.ID, who space.DID, caps []Cap) (Member, error) {
	in := about(id, "did", string(who))
	in["caps"] = caps
	return c.changed(ctx, "dev.kith.space.setKeeper", in)
}

// RemoveKeeper takes all capabilities of a member.
func (c *Client) RemoveKeeper(ctx context.Context, id space.ID, who space.DID) error {
	return c.procedure(ctx, "dev.kith.space.removeKeeper", about(id, "did", string(who)), &done{})
}

// AppointSequencer has a member order the log.
func (c *Client) AppointSequencer(ctx context.Context, id space.ID, who space.DID) (Member, error) {
	return c.changed(ctx, "dev.kith.space.appointSequencer", about(id, "did", string(who)))
}

// body is a patch as updateSpace takes it: what is cleared is null.
func (u PolicyPatch) body(id space.ID) map[string]any {
	in := about(id)
	text := func(name string, v *string) {
		switch {
		case v == nil:
		case *v == "":
			in[name] = nil
		default:
			in[name] = *v
		}
	}
	text("mintPolicy", u.Mint)
	text("managingAppDid", u.ManagingApp)
	text("keyPolicy", u.KeyPolicy)
	text("history", u.History)
	text("attribution", u.Attribution)
	text("displayName", u.DisplayName)
	text("description", u.Description)
	if u.AppAccess != nil || u.Allow != nil {
		access := accessBody{Type: space.AccessAllowList}
		set(&access.Type, u.AppAccess)
		set(&access.Allowed, u.Allow)
		in["appAccess"] = access
	}
	if u.PQ != nil {
		in["pq"] = *u.PQ
	}
	if u.SelfWrite != nil {
		in["selfWrite"] = *u.SelfWrite
	}
	if u.MaxEpochLagSeconds != nil {
		in["maxEpochLagSeconds"] = *u.MaxEpochLagSeconds
	}
	switch {
	case u.Config == nil:
	case *u.Config == nil:
		in["config"] = nil
	default:
		in["config"] = *u.Config
	}
	for _, f := range u.Flags {
		in[f.Name] = f.On
	}
	return in
}

// UpdateSpace changes the policy.
func (c *Client) UpdateSpace(ctx context.Context, id space.ID, p PolicyPatch) (SpaceInfo, error) {
	return c.shown(ctx, "com.atproto.simplespace.updateSpace", p.body(id))
}

// shown asks a method that answers with a space.
func (c *Client) shown(ctx context.Context, nsid string, in any) (SpaceInfo, error) {
	var out spaceAnswer
	if err := c.procedure(ctx, nsid, in, &out); err != nil {
		return SpaceInfo{}, err
	}
	return out.Space.info()
}

// DeleteSpace writes the tombstone.
func (c *Client) DeleteSpace(ctx context.Context, id space.ID, reason string) error {
	in := about(id)
	if reason != "" {
		in["reason"] = reason
	}
	return c.procedure(ctx, "com.atproto.simplespace.deleteSpace", in, &done{})
}

// Transfer hands a space over. It waits until shortly before the deadline of
// ctx, or for the standard time if it has none.
func (c *Client) Transfer(ctx context.Context, id space.ID, to space.DID) (SpaceInfo, error) {
	in := about(id, "did", string(to))
	in["waitSeconds"] = min(int64(patienceOf(ctx)/time.Second), mostWait)
	return c.shown(ctx, "dev.kith.space.transfer", in)
}

// AcceptTransfer says that the owner would take a space over.
func (c *Client) AcceptTransfer(ctx context.Context, id space.ID) error {
	return c.procedure(ctx, "dev.kith.space.acceptTransfer", about(id), &done{})
}

// Leave takes the owner off a roster.
func (c *Client) Leave(ctx context.Context, id space.ID) error {
	return c.procedure(ctx, "dev.kith.space.leave", about(id), &done{})
}

// Forget destroys what the node has of a space.
func (c *Client) Forget(ctx context.Context, id space.ID) error {
	return c.procedure(ctx, "dev.kith.space.forget", about(id), &done{})
}

// SetPetname names a space for the node's owner; "" takes its name away.
func (c *Client) SetPetname(ctx context.Context, id space.ID, name string) error {
	return c.procedure(ctx, "dev.kith.space.setPetname", about(id, "name", name), &done{})
}

// Devices lists the owner's devices by id.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	var out devicesAnswer
	err := c.query(ctx, "dev.kith.device.list", nil, &out)
	return out.Devices, err
}

// ApproveDevice makes the machine that showed the code a device.
func (c *Client) ApproveDevice(ctx context.Context, code, addr string) (Device, error) {
	var out Device
	in := map[string]string{"code": code}
	if addr != "" {
		in["addr"] = addr
	}
	err := c.procedure(ctx, "dev.kith.device.approve", in, &out)
	return out, err
}

// RevokeDevice shuts a device out.
func (c *Client) RevokeDevice(ctx context.Context, id string) (Device, error) {
	var out Device
	err := c.procedure(ctx, "dev.kith.device.revoke", map[string]string{"id": id}, &out)
	return out, err
}

// Backup writes a backup on the node's machine.
func (c *Client) Backup(ctx context.Context, file, passphrase string) (Backup, error) {
	var out Backup
	in := map[string]string{"file": file}
	if passphrase != "" {
		in["passphrase"] = passphrase
	}
	err := c.procedure(ctx, "dev.kith.node.backup", in, &out)
	return out, err
}
