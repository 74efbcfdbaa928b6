package conformance

import (
	"strings"

	"github.com/kithnet/kith/space"
)

// badKeys are no record keys, and so neither keys of spaces.
var badKeys = map[string]string{
	"a slash": "a/b", "dots": "..", "a dot": ".", "nothing": "", "an escape": "a%2fb", "a space": "a b", "a nul": "a\x00b",
	"a letter beyond ASCII": "é", "513 bytes": strings.Repeat("k", 513), "a fragment": "a#b",
}

// newSpaceBody is a createSpace in the dialect's own words.
func (d dialect) newSpaceBody(key string) body {
	b := body{"type": spaceType, "skey": key}
	if d.name == "atproto" {
		b["policy"] = body{"$type": "com.atproto.simplespace.defs#memberListPolicy"}
		b["appAccess"] = body{"$type": "com.atproto.simplespace.defs#open"}
	} else {
		b["mintPolicy"] = "member-list"
		b["displayName"] = "Conformance"
		b["appAccess"] = body{"type": "open"}
	}
	return b
}

func (s *suite) spacesOf(d dialect) {
	const create = "com.atproto.simplespace.createSpace"
	key := draw()
	uri := d.uri(s.owner, spaceType, key)
	made := s.post(s.cfg.Owner, create, d.newSpaceBody(key))
	s.answers("createSpace: status", made, d.created)
	s.same("createSpace: names the space in the dialect's form", made.at("uri"), uri)
	s.spaces = append(s.spaces, uri)
	s.refused("createSpace: the same address again", s.post(s.cfg.Owner, create, d.newSpaceBody(key)), d.conflict, "SpaceAlreadyExists")
	free := d.newSpaceBody("")
	delete(free, "skey")
	drawn := s.post(s.cfg.Owner, create, free)
	_, err := space.ParseID(drawn.text("uri"))
	s.hold("createSpace: draws a key", drawn.status == d.created && err == nil, drawn)
	s.spaces = append(s.spaces, drawn.text("uri"))
	for what, bad := range badKeys {
		s.hold("createSpace: refuses as key "+what, s.post(s.cfg.Owner, create, d.newSpaceBody(bad)).status == 400, bad)
	}
	s.hold("createSpace: refuses a type that is no NSID", s.post(s.cfg.Owner, create, d.newSpaceBody(draw()).with("type", "notes")).status == 400, "notes")
	s.hold("createSpace: needs a type", s.post(s.cfg.Owner, create, d.newSpaceBody(draw()).with("type", nil)).status == 400, "no type")
	s.policiesOf(d)
	s.showing(d, uri)
	s.listing(d, uri)
	s.updating(d, uri)
}

func (s *suite) policiesOf(d dialect) {
	const create = "com.atproto.simplespace.createSpace"
	ask := func(field string, v any) reply {
		return s.post(s.cfg.Owner, create, d.newSpaceBody(draw()).with(field, v))
	}
	union := func(name string) body { return body{"$type": "com.atproto.simplespace.defs#" + name} }
	if d.name == "atproto" {
		s.refused("createSpace: an unknown policy is refused", ask("policy", union("openPolicy")), 400, "UnsupportedPolicy")
		s.refused("createSpace: a policy without a $type is refused", ask("policy", body{}), 400, "UnsupportedPolicy")
		s.refused("createSpace: a managing app that names no service is refused",
			ask("policy", union("managingAppPolicy").with("managingApp", "did:web:app.example")), 400, "UnsupportedPolicy")
		s.refused("createSpace: an unknown app access is refused", ask("appAccess", union("closed")), 400, "UnsupportedAppAccess")
	} else {
		s.refused("createSpace: an unknown policy is refused", ask("mintPolicy", "everybody"), 400, "UnsupportedPolicy")
		s.refused("createSpace: a managing app without its policy is refused", ask("managingAppDid", "did:web:app.example#svc"), 400, "UnsupportedPolicy")
		s.refused("createSpace: public records of a closed space are refused", ask("config", body{"recordsPublic": true}), 400, "UnsupportedPolicy")
		s.refused("createSpace: an unknown app access is refused", ask("appAccess", body{"type": "closed"}), 400, "UnsupportedAppAccess")
	}
	s.refused("createSpace: no app access at all is refused", ask("appAccess", nil), 400, "UnsupportedAppAccess")
}

func (s *suite) showing(d dialect, uri string) {
	const show = "com.atproto.simplespace.getSpace"
	got := s.get(s.cfg.Owner, show, "space", uri)
	s.answers("getSpace: status", got, 200)
	s.shaped("getSpace: shape", show, got)
	s.same("getSpace: uri", got.at("uri"), uri)
	s.same("getSpace: policy of atproto", got.at("policy.$type"), "com.atproto.simplespace.defs#memberListPolicy")
	s.same("getSpace: policy of HappyView", got.at("space.mint_policy"), "member-list")
	s.same("getSpace: both spellings", got.at("space.mintPolicy"), got.at("space.mint_policy"))
	s.same("getSpace: authority", got.at("space.authority_did"), s.owner)
	s.same("getSpace: app access", got.at("appAccess.$type"), "com.atproto.simplespace.defs#open")
	for what, other := range map[string]string{
		"another key": uri + "x", "another type": strings.Replace(uri, spaceType, spaceType+".other", 1),
		"another authority": strings.Replace(uri, string(s.owner), "did:plc:ewvi7nxzyoun6zhxrhs64oiz", 1),
	} {
		s.refused("getSpace: "+what+" is not found", s.get(s.cfg.Owner, show, "space", other), d.absent, "SpaceNotFound")
	}
	bare := s.get(s.cfg.Owner, show) // in the node's own dialect: the request does not say
	s.hold("getSpace: needs a space", bare.status/100 == 4 && bare.at("error") == "InvalidRequest", bare)
	s.refused("getSpace: one space", s.get(s.cfg.Owner, show, "space", uri, "space", uri), 400, "InvalidRequest")
	for what, bad := range map[string]string{
		"a fragment": uri + "#/x", "a query": uri + "?x=1", "a slash behind": uri + "/", "a record": uri + "/" + string(s.owner) + "/" + collection + "/a",
		"four segments": uri + "/x", "another scheme": "https://example.com", "nothing": "",
	} {
		s.hold("getSpace: refuses "+what, s.get(s.cfg.Owner, show, "space", bad).status/100 == 4, bad)
	}
	s.same("getSpace: the older name answers alike", s.get(s.cfg.Owner, "com.atproto.space.getSpace", "space", uri).v, got.v)
	other := dialects[0]
	if d.name == other.name {
		other = dialects[1]
	}
	key := uri[strings.LastIndex(uri, "/")+1:]
	s.same("getSpace: the other form names the same space", s.get(s.cfg.Owner, show, "space", other.uri(s.owner, spaceType, key)).at("space.id"), got.at("space.id"))
}

func (s *suite) listing(d dialect, uri string) {
	const list = "com.atproto.space.listSpaces"
	got := s.get(s.cfg.Owner, list)
	s.answers("listSpaces: status", got, 200)
	s.shaped("listSpaces: shape", list, got)
	seen, pages, cursor := map[string]int{}, 0, ""
	for ; pages < 1000 && (pages == 0 || cursor != ""); pages++ {
		args := []string{"limit", "1"}
		if cursor != "" {
			args = append(args, "cursor", cursor)
		}
		p := s.get(s.cfg.Owner, list, args...)
		for _, row := range p.list("spaces") {
			id, _ := space.ParseID(walkText(row, "uri"))
			seen[id.String()]++
		}
		cursor = p.text("cursor")
	}
	id, _ := space.ParseID(uri)
	s.same("listSpaces: pages show a space once", seen[id.String()], 1)
	once := true
	for _, n := range seen {
		once = once && n == 1
	}
	s.hold("listSpaces: pages show every space once", once, seen)
	for what, bad := range map[string]string{"0": "0", "below 0": "-1", "no number": "x", "a fraction": "1.5", "beyond 64 bits": "99999999999999999999"} {
		s.refused("listSpaces: refuses the limit "+what, s.get(s.cfg.Owner, list, "limit", bad), 400, "InvalidRequest")
	}
	for what, bad := range map[string]string{"forged": "AAAA", "no base64": "???", "a number": "-1"} {
		s.refused("listSpaces: refuses a cursor that is "+what, s.get(s.cfg.Owner, list, "cursor", bad), 400, "InvalidCursor")
	}
	none := s.get(s.cfg.Owner, list, "type", "com.example.nothing.such")
	s.hold("listSpaces: by type", none.status == 200 && len(none.list("spaces")) == 0, none)
}

func walkText(v any, path string) string {
	text, _ := walk(v, path).(string)
	return text
}

func (s *suite) updating(d dialect, uri string) {
	const update, remove = "com.atproto.simplespace.updateSpace", "com.atproto.simplespace.deleteSpace"
	change := body{"space": uri, "displayName": "Renamed", "description": "of the suite"}
	got := s.post(s.cfg.Owner, update, change)
	s.answers("updateSpace: status", got, 200)
	s.same("updateSpace: answers what it is now", got.at("space.display_name"), "Renamed")
	s.same("updateSpace: and keeps it", s.get(s.cfg.Owner, "com.atproto.simplespace.getSpace", "space", uri).at("space.display_name"), "Renamed")
	got = s.post(s.cfg.Owner, update, body{"space": uri, "displayName": nil})
	s.hold("updateSpace: null clears", got.status == 200 && got.at("space.display_name") == nil, got)
	s.same("updateSpace: and leaves the rest", got.at("space.description"), "of the suite")
	s.answers("updateSpace: nothing is no change", s.post(s.cfg.Owner, update, body{"space": uri}), 200)
	s.refused("updateSpace: refuses an unknown policy",
		s.post(s.cfg.Owner, update, body{"space": uri, "policy": body{"$type": "com.atproto.simplespace.defs#none"}}), 400, "UnsupportedPolicy")
	s.same("updateSpace: and changes nothing then",
		s.get(s.cfg.Owner, "com.atproto.simplespace.getSpace", "space", uri).at("space.mint_policy"), "member-list")
	s.refused("updateSpace: of no space", s.post(s.cfg.Owner, update, body{"space": uri + "x"}), d.absent, "SpaceNotFound")

	s.answers("deleteSpace: status", s.post(s.cfg.Owner, remove, body{"space": uri}), 200)
	s.answers("deleteSpace: again", s.post(s.cfg.Owner, remove, body{"space": uri}), 200)
	s.refused("deleteSpace: of no space", s.post(s.cfg.Owner, remove, body{"space": uri + "x"}), d.absent, "SpaceNotFound")
	s.refused("deleteSpace: reads are refused then", s.get(s.cfg.Owner, "com.atproto.simplespace.getSpace", "space", uri), d.absent, "SpaceDeleted")
	s.refused("deleteSpace: and writes", s.post(s.cfg.Owner, "com.atproto.space.createRecord",
		body{"space": uri, "collection": collection, "record": body{}}), d.absent, "SpaceDeleted")
	key := uri[strings.LastIndex(uri, "/")+1:]
	again := s.post(s.cfg.Owner, "com.atproto.simplespace.createSpace", d.newSpaceBody(key))
	s.answers("deleteSpace: the address is free again", again, d.created)
	empty := s.get(s.cfg.Owner, "com.atproto.space.listRecords", "space", uri)
	s.hold("deleteSpace: the new space is another one", empty.status == 200 && len(empty.list("records")) == 0 && again.at("spaceId") != got.at("spaceId"), again)
}
