package xrpc

import "github.com/kithnet/kith/space"

// publicMethods are those that a space may open to everybody, and the flag
// that opens them.
var publicMethods = map[string]func(space.Policy) bool{
	"com.atproto.simplespace.getSpace":    space.Policy.MembershipPublic,
	"com.atproto.simplespace.listMembers": space.Policy.MembershipPublic,
	"com.atproto.space.getSpace":          space.Policy.MembershipPublic,
	"dev.happyview.space.getSpace":        space.Policy.MembershipPublic,
	"dev.happyview.space.listMembers":     space.Policy.MembershipPublic,

	"com.atproto.space.getRecord":     space.Policy.RecordsPublic,
	"com.atproto.space.listRecords":   space.Policy.RecordsPublic,
	"com.atproto.space.listRepos":     space.Policy.RecordsPublic,
	"com.atproto.space.listRepoOps":   space.Policy.RecordsPublic,
	"com.atproto.space.getRepoState":  space.Policy.RecordsPublic,
	"dev.happyview.space.getRecord":   space.Policy.RecordsPublic,
	"dev.happyview.space.listRecords": space.Policy.RecordsPublic,
}

// public reports whether anybody may make this request: under a name that the
// node was configured to have in public, of a space whose policy says so. On
// loopback nobody may, so that a page in the owner's browser does not learn
// which spaces are here. All else is refused alike, known or not.
func (c *call) public() bool {
	open, ok := publicMethods[c.nsid]
	if !ok || isLoopback(c.r.Host) || c.readQuery() != nil {
		return false
	}
	id, err := c.spaceID()
	if err != nil {
		return false
	}
	info, err := c.s.Spaces.Space(c.ctx(), id)
	if err != nil || !open(info.Policy) {
		return false
	}
	c.anonymous = true
	return true
}
