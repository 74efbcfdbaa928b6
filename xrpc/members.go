package xrpc

import (
	"errors"
	"strings"

	"github.com/kithnet/kith/space"
)

func hasRoster(s *Server) bool      { return s.Roster != nil }
func hasDelegations(s *Server) bool { return s.Delegations != nil }
func hasInvites(s *Server) bool     { return s.Invites != nil }
func hasApprovals(s *Server) bool   { return s.Approvals != nil }
func hasKeys(s *Server) bool        { return s.Keys != nil }
func hasKeepers(s *Server) bool     { return s.Keepers != nil }
func hasAdmin(s *Server) bool       { return s.Admin != nil }
func hasTransfers(s *Server) bool   { return s.Transfers != nil }
func hasExits(s *Server) bool       { return s.Exits != nil }
func hasPetnames(s *Server) bool    { return s.Petnames != nil }
func hasBackups(s *Server) bool     { return s.Backups != nil }
func hasTokens(s *Server) bool      { return s.Tokens != nil }
func hasDevices(s *Server) bool     { return s.Devices != nil }

// done is the answer of what has nothing to tell.
type done struct {
	Success bool `json:"success"`
}

type membersAnswer struct {
	Members     []memberObject     `json:"members"`
	Delegations []delegationObject `json:"delegations,omitempty"`
	Cursor      string             `json:"cursor,omitempty"`
}

type memberObject struct {
	DID       space.DID `json:"did"`
	Access    string    `json:"access"`
	Level     string    `json:"level"`
	Via       string    `json:"via,omitempty"`
	Keeper    bool      `json:"keeper"`
	Caps      []Cap     `json:"caps,omitempty"`
	Sequencer bool      `json:"sequencer,omitempty"`
	Authority bool      `json:"authority,omitempty"`
	Public    bool      `json:"public,omitempty"`
	AddedAt   string    `json:"addedAt"`
}

// delegationObject is a space that is a member. It stands beside the members,
// whose did is always a DID; who is in it is for its own members to know.
type delegationObject struct {
	Space     string `json:"space"`
	Access    string `json:"access"`
	Level     string `json:"level"`
	Depth     int    `json:"depth,omitempty"`
	AddedAt   string `json:"addedAt"`
	RenewedAt string `json:"renewedAt,omitempty"`
}

func objectOf(m Member) memberObject {
	return memberObject{
		m.DID, m.Level.String(), m.Level.String(), m.Via, m.Keeper, m.Caps, m.Sequencer, m.Authority, m.Public, timeText(m.AddedMs * 1000),
	}
}

func (c *call) delegationObject(d Delegation) delegationObject {
	o := delegationObject{
		Space: c.d.spaceURI(d.Child), Access: d.Level.String(), Level: d.Level.String(), Depth: d.Depth,
		AddedAt: timeText(d.AddedMs * 1000),
	}
	if d.RenewedMs != 0 {
		o.RenewedAt = timeText(d.RenewedMs * 1000)
	}
	return o
}

// listMembers lists the roster, and on the first page the spaces in it.
func listMembers(c *call) (any, error) {
	all, next, err := pageByDID(c, c.s.Roster.Members, func(m Member) space.DID { return m.DID })
	if err != nil {
		return nil, err
	}
	out := membersAnswer{Members: make([]memberObject, len(all)), Cursor: next}
	for i, m := range all {
		if c.anonymous {
			m.Via = ""
		}
		out.Members[i] = objectOf(m)
	}
	if cursor, _ := c.cursor(); cursor == "" && c.s.Delegations != nil {
		out.Delegations, err = c.delegations()
	}
	return out, err
}

func (c *call) delegations() ([]delegationObject, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	all, err := c.s.Delegations.Delegations(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	out := make([]delegationObject, len(all))
	for i, d := range sorted(all, func(d Delegation) string { return d.Child.String() }) {
		out[i] = c.delegationObject(d)
	}
	return out, nil
}

// spaceMember is HappyView's SpaceMember in both spellings. It has no id of
// its own here: the DID is one.
type spaceMember struct {
	ID            string `json:"id"`
	SpaceID       string `json:"space_id"`
	SpaceID2      string `json:"spaceId"`
	DID           string `json:"did"`
	Access        string `json:"access"`
	IsDelegation  bool   `json:"is_delegation"`
	IsDelegation2 bool   `json:"isDelegation"`
	GrantedBy     string `json:"granted_by"`
	GrantedBy2    string `json:"grantedBy"`
	CreatedAt     string `json:"created_at"`
	CreatedAt2    string `json:"createdAt"`
}

type memberAnswer struct {
	Member spaceMember `json:"member"`
	Link   string      `json:"link,omitempty"` // where the added person's node asks
}

func (c *call) memberAnswer(id space.ID, who, access string, delegation bool, addedMs int64) memberAnswer {
	uri, at, by := c.d.spaceURI(id), timeText(addedMs*1000), string(c.s.Owner)
	return memberAnswer{Member: spaceMember{who, uri, uri, who, access, delegation, delegation, by, by, at, at}}
}

// who is a member as a request names it: a DID, or a space if child.
type who struct {
	did   space.DID
	child space.ID
	space bool
}

// whom reads did, and isDelegation where the request has it: a space is named
// by its URI, and only a space.
func (c *call) whom() (who, error) {
	text, err := c.required("did")
	if err != nil {
		return who{}, err
	}
	w := who{space: strings.Contains(text, "://")}
	said, ok, err := c.body.boolean("isDelegation")
	switch {
	case err != nil:
		return who{}, err
	case ok && said && !w.space:
		return who{}, faultf(errRequest, "did: isDelegation says a space, so name one: ats://DID/TYPE/KEY")
	case ok && !said && w.space:
		return who{}, faultf(errRequest, "did: names a space, but isDelegation is false")
	case w.space:
		w.child, err = parseIn("did", text, space.ParseID)
	default:
		w.did, err = parseIn("did", text, space.ParseDID)
	}
	return w, err
}

// askedLevel reads access, or level, which dev.kith calls it. HappyView's members
// read unless the request says more; atproto's list of members has one level,
// and who is on it may write.
func (c *call) askedLevel() (space.Level, error) {
	level := space.LevelRead
	if c.d == ATProto {
		level = space.LevelWrite
	}
	given := false
	for _, name := range []string{"access", "level"} {
		l, ok, err := optional(c.in, name, space.ParseLevel)
		switch {
		case err != nil:
			return level, err
		case ok && given && l != level:
			return level, faultf(errRequest, "level: says %s, access says %s", l, level)
		case ok:
			level, given = l, true
		}
	}
	return level, nil
}

// addMember adds a person or a space. In atproto who is there already stays as
// he is and nothing is wrong.
func addMember(c *call) (any, error) {
	w, err := c.whom()
	if err != nil {
		return nil, err
	}
	level, err := c.askedLevel()
	if err != nil {
		return nil, err
	}
	id, err := c.ownSpace()
	if err != nil {
		return nil, err
	}
	if w.space {
		if !hasDelegations(c.s) {
			return nil, faultf(space.ErrUnsupported, "did: this node does not take spaces as members yet")
		}
		d, err := c.s.Delegations.Delegate(c.ctx(), id, w.child, level)
		if err != nil {
			return nil, err
		}
		return made{c.memberAnswer(id, c.d.spaceURI(d.Child), d.Level.String(), true, d.AddedMs)}, nil
	}
	m, err := c.s.Roster.AddMember(c.ctx(), id, w.did, level)
	if c.d == ATProto && errors.Is(err, space.ErrMemberExists) {
		return done{true}, nil
	}
	if err != nil {
		return nil, err
	}
	answer := c.memberAnswer(id, string(m.DID), m.Level.String(), false, m.AddedMs)
	answer.Link = m.Link
	return made{answer}, nil
}

// removeMember removes a person or a space; oneself is to leave. In atproto
// who is not there is removed already.
func removeMember(c *call) (any, error) {
	w, err := c.whom()
	if err != nil {
		return nil, err
	}
	if w.did == c.s.Owner && hasExits(c.s) {
		return leaveSpace(c)
	}
	id, err := c.ownSpace()
	if err != nil {
		return nil, err
	}
	switch {
	case w.space && !hasDelegations(c.s):
		err = space.ErrMemberNotFound
	case w.space:
		err = c.s.Delegations.Undelegate(c.ctx(), id, w.child)
	default:
		err = c.s.Roster.RemoveMember(c.ctx(), id, w.did)
	}
	if c.d == ATProto && errors.Is(err, space.ErrMemberNotFound) {
		err = nil
	}
	return done{true}, err
}

// setLevel changes what a member may do.
func setLevel(c *call) (any, error) {
	id, did, err := c.spaceAndDID()
	if err != nil {
		return nil, err
	}
	if _, err := c.required("level"); err != nil {
		return nil, err
	}
	level, err := c.askedLevel()
	if err != nil {
		return nil, err
	}
	m, err := c.s.Roster.SetLevel(c.ctx(), id, did, level)
	return objectOf(m), err
}

// spaceAndDID reads space and did, both required.
func (c *call) spaceAndDID() (space.ID, space.DID, error) {
	id, err := c.spaceID()
	if err != nil {
		return id, "", err
	}
	text, err := c.required("did")
	if err != nil {
		return id, "", err
	}
	did, err := parseIn("did", text, space.ParseDID)
	return id, did, err
}
