package xrpc

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/kithnet/kith/space"
)

// updateSpace changes what the request names; config is replaced, the two
// flags beside it are not.
func updateSpace(c *call) (any, error) {
	info, err := c.update()
	if err != nil {
		return nil, err
	}
	return spaceAnswer{URI: c.d.spaceURI(info.ID), SpaceID: hex.EncodeToString(info.SpaceID[:]), Space: c.spaceObject(info)}, nil
}

// updateConfig is updateSpace with the answer of getConfig.
func updateConfig(c *call) (any, error) {
	info, err := c.update()
	return configOf(info.Policy), err
}

// update judges the policy that would come out before the node is asked, so
// that its faults have the names that createSpace gives them.
func (c *call) update() (SpaceInfo, error) {
	id, err := c.spaceID()
	if err != nil {
		return SpaceInfo{}, err
	}
	patch, err := readPatch(c.body)
	if err != nil {
		return SpaceInfo{}, err
	}
	info, err := c.s.Spaces.Space(c.ctx(), id)
	if err != nil {
		return info, err
	}
	if err := c.authority(info); err != nil || patch.empty() {
		return info, err
	}
	if _, err := patch.patched(info.Policy); err != nil {
		return info, err
	}
	return c.s.Admin.UpdateSpace(c.ctx(), id, patch)
}

// authority refuses what only the authority may.
func (c *call) authority(info SpaceInfo) error {
	if info.Authority != c.s.Owner {
		return faultf(errOwner, "Only the space authority can perform this action")
	}
	return nil
}

// ownSpace reads the space of a request that only its authority may make.
func (c *call) ownSpace() (space.ID, error) {
	id, err := c.spaceID()
	if err != nil {
		return id, err
	}
	info, err := c.s.Spaces.Space(c.ctx(), id)
	if err != nil {
		return id, err
	}
	return id, c.authority(info)
}

// getConfig is HappyView's management view, for the authority.
func getConfig(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	info, err := c.s.Spaces.Space(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	return configOf(info.Policy), c.authority(info)
}

// deleteSpace writes the tombstone; a second one is none.
func deleteSpace(c *call) (any, error) {
	id, err := c.ownSpace()
	if errors.Is(err, space.ErrSpaceDeleted) {
		return done{true}, nil
	}
	if err != nil {
		return nil, err
	}
	reason, _, err := c.body.text("reason")
	if err != nil {
		return nil, err
	}
	if len(reason) > maxReason {
		return nil, faultf(errRequest, "reason: at most %d bytes", maxReason)
	}
	return done{true}, c.s.Admin.DeleteSpace(c.ctx(), id, reason)
}

// maxReason bounds what a tombstone says.
const maxReason = 1000

func leaveSpace(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	return done{true}, c.s.Exits.Leave(c.ctx(), id)
}

func setPetname(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	name, _, err := c.body.text("name")
	if err != nil {
		return nil, err
	}
	return done{true}, c.s.Petnames.SetPetname(c.ctx(), id, name)
}

func forgetSpace(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	return done{true}, c.s.Exits.Forget(c.ctx(), id)
}

// transferSpace waits for the new authority's signature as long as the caller
// asks.
func transferSpace(c *call) (any, error) {
	id, to, err := c.spaceAndDID()
	if err != nil {
		return nil, err
	}
	wait, given, err := c.body.number("waitSeconds", 0, mostWait)
	if err != nil {
		return nil, err
	}
	if !given {
		wait = defaultWait
	}
	patience := time.Duration(wait) * time.Second
	c.extend(patience)
	ctx, cancel := context.WithTimeout(c.ctx(), patience)
	defer cancel()
	info, err := c.s.Transfers.Transfer(ctx, id, to)
	if errors.Is(err, context.DeadlineExceeded) {
		err = faultf(space.ErrUnavailable, "%s did not answer within %d s; nothing was changed", to, wait)
	}
	if err != nil {
		return nil, err
	}
	return spaceAnswer{URI: c.d.spaceURI(info.ID), SpaceID: hex.EncodeToString(info.SpaceID[:]), Space: c.spaceObject(info)}, nil
}

func acceptTransfer(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	return done{true}, c.s.Transfers.AcceptTransfer(c.ctx(), id)
}
