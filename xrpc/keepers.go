package xrpc

import "slices"

type epochAnswer struct {
	URI   string `json:"uri"`
	Epoch uint64 `json:"epoch"`
}

// mostRelays is how many relays a space may name.
const mostRelays = 8

// rotate opens a new epoch, with relays as they were or with others.
func rotate(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	if c.body.has("relays") {
		relays, err := c.body.texts("relays", mostRelays)
		if err != nil {
			return nil, err
		}
		epoch, err := c.s.Keys.SetRelays(c.ctx(), id, relays)
		return epochAnswer{c.d.spaceURI(id), epoch}, err
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
