package conformance

import (
	"fmt"
	"strings"

	"github.com/kithnet/kith/space"
)

const (
	listMembers  = "com.atproto.simplespace.listMembers"
	addMember    = "com.atproto.simplespace.addMember"
	removeMember = "com.atproto.simplespace.removeMember"
)

// nobody is a DID that no node has met.
const nobody = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"

func (s *suite) membersOf(d dialect) {
	uri := s.newSpace(d)
	got := s.get(s.cfg.Owner, listMembers, "space", uri)
	s.answers("listMembers: status", got, 200)
	s.shaped("listMembers: shape", listMembers, got)
	s.hold("listMembers: the authority is a member, who may write", got.at("members.0.did") == string(s.owner) && got.at("members.0.access") == "write", got)
	s.refused("listMembers: of no space", s.get(s.cfg.Owner, listMembers, "space", uri+"x"), d.absent, "SpaceNotFound")
	s.refused("listMembers: refuses a cursor that is forged", s.get(s.cfg.Owner, listMembers, "space", uri, "cursor", "AAAA"), 400, "InvalidCursor")
	s.refused("listMembers: refuses the limit 0", s.get(s.cfg.Owner, listMembers, "space", uri, "limit", "0"), 400, "InvalidRequest")
	s.refused("addMember: somebody nobody knows", s.post(s.cfg.Owner, addMember, body{"space": uri, "did": nobody}), d.absent, "UnknownDid")
	s.refused("addMember: what is no DID", s.post(s.cfg.Owner, addMember, body{"space": uri, "did": "alice.example"}), 400, "InvalidRequest")
	s.refused("addMember: a level that is none", s.post(s.cfg.Owner, addMember, body{"space": uri, "did": nobody, "access": "admin"}), 400, "InvalidRequest")
	s.refused("addMember: needs a did", s.post(s.cfg.Owner, addMember, body{"space": uri}), d.shaped, "InvalidRequest")
	s.refused("addMember: to no space", s.post(s.cfg.Owner, addMember, body{"space": uri + "x", "did": nobody}), d.absent, "SpaceNotFound")
	gone := s.post(s.cfg.Owner, removeMember, body{"space": uri, "did": nobody})
	if d.name == "atproto" {
		s.answers("removeMember: who is not there is removed already", gone, 200)
	} else {
		s.refused("removeMember: who is not there is not found", gone, 404, "MemberNotFound")
	}
	s.refused("removeMember: the authority stays", s.post(s.cfg.Owner, removeMember, body{"space": uri, "did": s.owner}), d.conflict, "LastAuthority")
}

// aliases are HappyView's older names: same verb, same answers.
func (s *suite) aliases() {
	d := dialects[0]
	uri := s.newSpace(d)
	s.post(s.cfg.Owner, putRecord, s.write(uri, "a", body{"n": 1}))
	const old = "dev.happyview.space."
	for name, now := range map[string]string{
		"getSpace": "com.atproto.simplespace.getSpace", "get": "com.atproto.simplespace.getSpace", "listRecords": listRecords, "listMembers": listMembers,
	} {
		s.same("aliases: "+name, s.get(s.cfg.Owner, old+name, "space", uri).v, s.get(s.cfg.Owner, now, "space", uri).v)
	}
	s.same("aliases: getRecord", s.get(s.cfg.Owner, old+"getRecord", "space", uri, "collection", collection, "rkey", "a").at("value.n"), 1)
	for _, name := range []string{"listSpaces", "list"} {
		s.answers("aliases: "+name, s.get(s.cfg.Owner, old+name), 200)
	}
	for _, name := range []string{"createRecord", "putRecord"} {
		s.answers("aliases: "+name, s.post(s.cfg.Owner, old+name, body{"space": uri, "collection": collection, "rkey": name, "record": body{}}), 201)
	}
	s.answers("aliases: deleteRecord", s.post(s.cfg.Owner, old+"deleteRecord", body{"space": uri, "collection": collection, "rkey": "createRecord"}), 200)
	s.answers("aliases: applyWrites", s.post(s.cfg.Owner, old+"applyWrites", body{"space": uri, "writes": []body{}}), 200)
	for _, name := range []string{"updateSpace", "update"} {
		s.answers("aliases: "+name, s.post(s.cfg.Owner, old+name, body{"space": uri}), 200)
	}
	at := dialects[1].uri(s.owner, spaceType, uri[strings.LastIndex(uri, "/")+1:])
	s.same("aliases: answer in HappyView's form whatever was asked", s.get(s.cfg.Owner, old+"getSpace", "space", at).at("uri"), uri)
	for _, name := range []string{"createSpace", "create"} {
		made := s.post(s.cfg.Owner, old+name, body{"type": spaceType, "skey": draw()})
		s.answers("aliases: "+name, made, 201)
		if made.text("uri") != "" {
			s.spaces = append(s.spaces, made.text("uri"))
		}
	}
	for _, name := range []string{"deleteSpace", "delete"} {
		s.refused("aliases: "+name, s.post(s.cfg.Owner, old+name, body{"space": uri + "x"}), 404, "SpaceNotFound")
	}
	s.refused("aliases: addMember", s.post(s.cfg.Owner, old+"addMember", body{"space": uri, "did": nobody}), 404, "UnknownDid")
	s.refused("aliases: removeMember", s.post(s.cfg.Owner, old+"removeMember", body{"space": uri, "did": nobody}), 404, "MemberNotFound")
	s.answers("aliases: invite.list", s.get(s.cfg.Owner, old+"invite.list", "space", uri), 200)
	s.answers("aliases: invite.create", s.post(s.cfg.Owner, old+"invite.create", body{"space": uri}), 201)
	s.refused("aliases: invite.revoke", s.post(s.cfg.Owner, old+"invite.revoke", body{"space": uri, "inviteId": "00ff"}), 404, "InviteNotFound")
	for _, name := range []string{"invite.redeem", "redeemInvite"} {
		r := s.post(s.cfg.Owner, old+name, body{"token": strings.Repeat("0", 48), "waitSeconds": 0})
		s.hold("aliases: "+name, r.status == 404 || r.status == 400, r)
	}
	for _, name := range []string{"getMemberGrant", "getSpaceCredential"} {
		for _, r := range []reply{s.get(s.cfg.Owner, old+name, "space", uri)} {
			s.hold("aliases: "+name+" is known", r.status != 404, r)
		}
	}
}

func (s *suite) invites() {
	uri, other := s.newSpace(dialects[0]), s.newSpace(dialects[0])
	const create, list, revoke, accept = "dev.happyview.space.createInvite", "dev.happyview.space.listInvites", "dev.happyview.space.revokeInvite", "dev.happyview.space.acceptInvite"
	plain := s.post(s.cfg.Owner, create, body{"space": uri})
	s.answers("createInvite: status", plain, 201)
	s.hold("createInvite: reads, for ever, as often as you like", plain.at("access") == "read" && plain.at("maxUses") == nil && plain.at("expiresAt") == nil, plain)
	s.hold("createInvite: a token", len(plain.text("token")) >= 48 && plain.text("inviteId") != "", plain)
	bound := s.post(s.cfg.Owner, create, body{"space": uri, "access": "write", "maxUses": 5, "expiresAt": "2100-01-31T12:00:00+02:00"})
	s.same("createInvite: limits", []any{bound.at("access"), bound.at("maxUses"), bound.at("expiresAt")}, []any{"write", 5, "2100-01-31T10:00:00Z"})
	for what, bad := range map[string]body{
		"maxUses 0": {"maxUses": 0}, "maxUses below 0": {"maxUses": -1}, "a time that is none": {"expiresAt": "never"},
		"a time that has passed": {"expiresAt": "2001-01-01T00:00:00Z"}, "a level that is none": {"access": "admin"},
	} {
		r := s.post(s.cfg.Owner, create, bad.with("space", uri))
		s.refused("createInvite: refuses "+what, r, 400, "InvalidRequest")
	}
	s.refused("createInvite: to no space", s.post(s.cfg.Owner, create, body{"space": uri + "x"}), 404, "SpaceNotFound")
	all := s.get(s.cfg.Owner, list, "space", uri)
	newest, older := inviteOf(all, bound.text("inviteId")), inviteOf(all, plain.text("inviteId"))
	together := walkText(newest, "createdAt") == walkText(older, "createdAt") // made within a millisecond
	s.hold("listInvites: the newest first", len(all.list("invites")) == 2 && newest != nil && older != nil &&
		(together || all.at("invites.0.id") == bound.at("inviteId")), all)
	s.hold("listInvites: no token in it", !strings.Contains(string(all.raw), plain.text("token")), "a token")
	s.shaped("listInvites: shape", list, all)
	id := plain.text("inviteId")
	s.refused("revokeInvite: of another space", s.post(s.cfg.Owner, revoke, body{"space": other, "inviteId": id}), 404, "InviteNotFound")
	s.answers("revokeInvite: status", s.post(s.cfg.Owner, revoke, body{"space": uri, "inviteId": id}), 200)
	s.answers("revokeInvite: again", s.post(s.cfg.Owner, revoke, body{"space": uri, "inviteId": id}), 200)
	s.same("revokeInvite: it shows", walk(inviteOf(s.get(s.cfg.Owner, list, "space", uri), id), "revoked"), true)
	joined := s.post(s.cfg.Owner, accept, body{"token": bound.text("token"), "waitSeconds": 5})
	s.refused("acceptInvite: by who is in already", joined, 409, "MemberAlreadyExists")
	s.hold("acceptInvite: needs a token", s.post(s.cfg.Owner, accept, body{}).status == 422, "none")
}

// inviteOf is the row of one invite; nil: there is none.
func inviteOf(r reply, id string) any {
	for _, row := range r.list("invites") {
		if walkText(row, "id") == id {
			return row
		}
	}
	return nil
}

func (s *suite) config() {
	uri := s.newSpace(dialects[0])
	const show, update = "com.atproto.simplespace.getConfig", "com.atproto.simplespace.updateConfig"
	got := s.get(s.cfg.Owner, show, "space", uri)
	s.answers("getConfig: status", got, 200)
	s.shaped("getConfig: shape", show, got)
	s.same("getConfig: policy", got.at("mintPolicy"), "member-list")
	s.same("getConfig: type", got.at("$type"), "com.atproto.simplespace.defs#spaceConfig")
	changed := s.post(s.cfg.Owner, update, body{"space": uri, "mintPolicy": "public"})
	s.same("updateConfig: answers what it is now", changed.at("mintPolicy"), "public")
	s.same("updateConfig: and keeps it", s.get(s.cfg.Owner, show, "space", uri).at("mintPolicy"), "public")
	allow := s.post(s.cfg.Owner, update, body{"space": uri, "appAccess": body{"type": "allowList", "allowed": []string{"https://app.example/client.json"}}})
	s.same("updateConfig: app access", allow.at("appAccess.allowed"), []string{"https://app.example/client.json"})
	s.same("updateConfig: leaves the rest", allow.at("mintPolicy"), "public")
	s.refused("updateConfig: refuses an unknown policy", s.post(s.cfg.Owner, update, body{"space": uri, "mintPolicy": "pubic"}), 400, "UnsupportedPolicy")
	s.refused("getConfig: of no space", s.get(s.cfg.Owner, show, "space", uri+"x"), 404, "SpaceNotFound")
}

// reads and changes are what the access section asks, each with arguments
// that are good for every space.
func reads(uri string) map[string][]string {
	args := []string{"space", uri, "collection", collection, "rkey", "a", "cid", space.SumRaw(nil).String()}
	return map[string][]string{
		"com.atproto.simplespace.getSpace": args, listMembers: args, getRecord: args, listRecords: args, listRepoOps: args, repoState: args,
		"com.atproto.space.getLatestCommit": args, "com.atproto.space.getRepo": args, "com.atproto.space.listRepos": args,
		"com.atproto.simplespace.getConfig": args, "dev.happyview.space.listInvites": args,
		getBlob: args, listBlobs: args, subscribe: args,
	}
}

func changes(uri string) map[string]body {
	record := body{"space": uri, "collection": collection, "rkey": "a", "record": body{}}
	member := body{"space": uri, "did": nobody}
	return map[string]body{
		createRecord: record, putRecord: record, deleteRecord: record, applyWrites: {"space": uri, "writes": []body{}},
		addMember: member, removeMember: member, "com.atproto.simplespace.updateSpace": {"space": uri, "displayName": "Theirs"},
		"com.atproto.simplespace.deleteSpace": {"space": uri}, "com.atproto.simplespace.updateConfig": {"space": uri},
		"dev.happyview.space.createInvite": {"space": uri}, "dev.happyview.space.revokeInvite": {"space": uri, "inviteId": "00ff"},
	}
}

// governing are the changes that only an authority makes.
func governing(nsid string) bool {
	return strings.Contains(nsid, "simplespace") || strings.Contains(nsid, "happyview")
}

func (s *suite) access() {
	uri := s.newSpace(dialects[0])
	s.post(s.cfg.Owner, putRecord, s.write(uri, "a", body{"text": "for members"}))
	s.strangers(uri)
	s.readers(uri)
}

// strangers get the same answer for a space that is here as for none.
func (s *suite) strangers(uri string) {
	none := uri + "x"
	for nsid, args := range reads(uri) {
		if s.cfg.Stranger == "" {
			s.skip("stranger: "+nsid, "no token of a stranger")
			continue
		}
		got, want := s.get(s.cfg.Stranger, nsid, args...), s.get(s.cfg.Stranger, nsid, reads(none)[nsid]...)
		s.hold("stranger: "+nsid, got.status == 404 && got.String() == want.String(), got)
	}
	for nsid, in := range changes(uri) {
		if s.cfg.Stranger == "" {
			s.skip("stranger: "+nsid, "no token of a stranger")
			continue
		}
		got, want := s.post(s.cfg.Stranger, nsid, in), s.post(s.cfg.Stranger, nsid, changes(none)[nsid])
		s.hold("stranger: "+nsid, got.status == 404 && got.String() == want.String(), got)
	}
	if s.cfg.Stranger == "" {
		s.skip("stranger: listSpaces", "no token of a stranger")
		return
	}
	list := s.get(s.cfg.Stranger, "com.atproto.space.listSpaces")
	s.hold("stranger: listSpaces", list.status == 200 && !strings.Contains(string(list.raw), uri), list)
}

// readers see what their level shows, first all of it, then their own.
func (s *suite) readers(uri string) {
	who := reply{}
	why := "no token of a reader"
	if s.cfg.Reader != "" {
		who = s.get(s.cfg.Reader, "dev.kith.server.getSession")
		why = ""
		if r := s.post(s.cfg.Owner, addMember, body{"space": uri, "did": who.text("did"), "access": "read"}); r.status != 201 {
			why = fmt.Sprintf("the reader is not known to this node: %s", r)
		}
	}
	names := []string{"reads", "getRecord", "listMembers", "own repo", "listSpaces", "petname", "read_self: own", "read_self: others", "read_self: listRepos",
		"read_self: listMembers", "read_self: revision", "read_self: alike", "removed"}
	if why != "" {
		for _, name := range names {
			s.skip("reader: "+name, why)
		}
		for nsid := range changes(uri) {
			s.skip("reader: "+nsid, why)
		}
		return
	}
	did := who.text("did")
	as := func(nsid string, more ...string) reply {
		return s.get(s.cfg.Reader, nsid, append([]string{"space", uri}, more...)...)
	}
	s.hold("reader: reads", len(keysOf(as(listRecords))) == 1, as(listRecords))
	s.same("reader: getRecord", as(getRecord, "collection", collection, "rkey", "a").at("value.text"), "for members")
	s.answers("reader: listMembers", as(listMembers), 200)
	own := as(repoState)
	s.hold("reader: own repo", own.status == 200 && own.at("did") == did && own.at("rev") == nil, own)
	s.hold("reader: listSpaces", strings.Contains(string(s.get(s.cfg.Reader, "com.atproto.space.listSpaces").raw), uri), "not in it")
	s.same("reader: petname", as("com.atproto.simplespace.getSpace").at("space.name"), nil)
	for nsid, in := range changes(uri) {
		want := "Forbidden"
		if governing(nsid) {
			want = "NotSpaceOwner"
		}
		s.refused("reader: "+nsid, s.post(s.cfg.Reader, nsid, in), 403, want)
	}
	s.post(s.cfg.Owner, "dev.kith.space.setLevel", body{"space": uri, "did": did, "level": "read_self"})
	mine := as(listRecords)
	s.hold("reader: read_self: own", mine.status == 200 && len(keysOf(mine)) == 0, mine)
	s.refused("reader: read_self: others", as(listRecords, "repo", string(s.owner)), 403, "Forbidden")
	s.refused("reader: read_self: listRepos", as("com.atproto.space.listRepos"), 403, "Forbidden")
	s.refused("reader: read_self: listMembers", as(listMembers), 403, "Forbidden")
	s.same("reader: read_self: revision", as("com.atproto.simplespace.getSpace").at("space.revision"), nil)
	there, absent := as(getRecord, "repo", string(s.owner), "collection", collection, "rkey", "a"), as(getRecord, "repo", string(s.owner), "collection", collection, "rkey", "zz")
	s.same("reader: read_self: alike", there.String(), absent.String())
	s.post(s.cfg.Owner, removeMember, body{"space": uri, "did": did})
	s.refused("reader: removed", as(listRecords), 404, "SpaceNotFound")
}
