package xrpc

import "github.com/kithnet/kith/space"

// public lets somebody without a token in: under a name that the node was
// configured to have in public, to a space whose policy says so. On loopback
// nobody comes in that way, so that a page in the owner's browser does not
// learn which spaces are here. All else is refused alike, known or not.
func (c *call) public(open func(space.Policy) bool) error {
	if isLoopback(c.r.Host) || c.readQuery() != nil {
		return errAuth
	}
	id, err := c.spaceID()
	if err != nil {
		return errAuth
	}
	info, err := c.s.Spaces.Space(c.ctx(), id)
	if err != nil || !open(info.Policy) {
		return errAuth
	}
	c.anonymous = true
	return nil
}
