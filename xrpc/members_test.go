package xrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
)

var memberEndpoints = func() []endpoint {
	const add, remove = "com.atproto.simplespace.addMember", "com.atproto.simplespace.removeMember"
	const list, level = "com.atproto.simplespace.listMembers", "dev.kith.space.setLevel"
	const set, unset, appoint = "dev.kith.space.setKeeper", "dev.kith.space.removeKeeper", "dev.kith.space.appointSequencer"
	const kid = "ats://did:key:zQ3shother/com.example.club/child"
	return []endpoint{
		{"person", post, add, `{"space":"$S","did":"did:key:zQ3shnewcomer","access":"read_self"}`, 201, 200, "", map[string]any{
			"member.did": "did:key:zQ3shnewcomer", "member.access": "read_self", "member.is_delegation": false, "member.isDelegation": false,
			"member.space_id": "$S", "member.granted_by": "did:key:zQ3showner", "member.created_at": "*", "member.id": "*",
		}},
		{"by level", post, add, `{"space":"$S","did":"did:key:zQ3shnewcomer","level":"write"}`, 201, 200, "", map[string]any{"member.access": "write"}},
		{"two levels", post, add, `{"space":"$S","did":"did:key:zQ3shnewcomer","access":"read","level":"write"}`, 400, 400, "InvalidRequest", nil},
		{"again", post, add, `{"space":"$S","did":"did:key:zQ3shother","access":"read"}`, 409, 200, "MemberAlreadyExists", nil},
		{"bad level", post, add, `{"space":"$S","did":"did:key:zQ3shnewcomer","access":"admin"}`, 400, 400, "InvalidRequest",
			map[string]any{"message": `access: level "admin": want read_self, read or write`}},
		{"no level", post, add, `{"space":"$S","did":"did:key:zQ3shnewcomer","access":"none"}`, 400, 400, "InvalidRequest", nil},
		{"level no text", post, add, `{"space":"$S","did":"did:key:zQ3shnewcomer","access":3}`, 422, 400, "InvalidRequest", nil},
		{"unknown person", post, add, `{"space":"$S","did":"did:plc:nobody"}`, 404, 400, "UnknownDid", nil},
		{"no did", post, add, `{"space":"$S"}`, 422, 400, "InvalidRequest", nil},
		{"bad did", post, add, `{"space":"$S","did":"alice"}`, 400, 400, "InvalidRequest", nil},
		{"unknown space", post, add, `{"space":"$Sx","did":"did:key:zQ3shnewcomer"}`, 404, 400, "SpaceNotFound", nil},
		{"space", post, add, `{"space":"$S","did":"` + kid + `","isDelegation":true,"access":"read"}`, 201, 200, "", map[string]any{
			"member.did": "*", "member.is_delegation": true, "member.access": "read",
		}},
		{"space unsaid", post, add, `{"space":"$S","did":"` + kid + `","access":"read"}`, 201, 200, "", map[string]any{"member.isDelegation": true}},
		{"space denied", post, add, `{"space":"$S","did":"` + kid + `","isDelegation":false}`, 400, 400, "InvalidRequest", nil},
		{"person as a space", post, add, `{"space":"$S","did":"did:key:zQ3shnewcomer","isDelegation":true}`, 400, 400, "InvalidRequest", nil},
		{"bad space", post, add, `{"space":"$S","did":"ats://did:key:zQ3shother/child","isDelegation":true}`, 400, 400, "InvalidRequest", nil},
		{"space in itself", post, add, `{"space":"$S","did":"$S","isDelegation":true}`, 409, 400, "DelegationCycle", nil},
		{"space around itself", post, add, `{"space":"$S","did":"ats://did:key:zQ3shother/com.example.club/loop","isDelegation":true}`, 409, 400, "DelegationCycle", nil},
		{"unseen space", post, add, `{"space":"$S","did":"ats://did:key:zQ3shother/com.example.club/x","isDelegation":true}`, 404, 400, "SpaceNotFound", nil},
		{"space at read_self", post, add, `{"space":"$S","did":"` + kid + `","access":"read_self"}`, 400, 400, "InvalidRequest", nil},

		{"person", post, remove, `{"space":"$S","did":"did:key:zQ3shother"}`, 200, 200, "", map[string]any{"success": true}},
		{"nobody", post, remove, `{"space":"$S","did":"did:key:zQ3shstranger"}`, 404, 200, "MemberNotFound", nil},
		{"oneself, the authority", post, remove, `{"space":"$S","did":"did:key:zQ3showner"}`, 409, 400, "LastAuthority", nil},
		{"unknown child", post, remove, `{"space":"$S","did":"` + kid + `"}`, 404, 200, "MemberNotFound", nil},
		{"unknown space", post, remove, `{"space":"$Sx","did":"did:key:zQ3shother"}`, 404, 400, "SpaceNotFound", nil},

		{"lowered", post, level, `{"space":"$S","did":"did:key:zQ3shother","level":"read"}`, 200, 200, "", map[string]any{"did": "did:key:zQ3shother", "level": "read", "access": "read"}},
		{"unsaid", post, level, `{"space":"$S","did":"did:key:zQ3shother"}`, 422, 400, "InvalidRequest", nil},
		{"the authority", post, level, `{"space":"$S","did":"did:key:zQ3showner","level":"read"}`, 409, 400, "LastAuthority", nil},
		{"nobody", post, level, `{"space":"$S","did":"did:key:zQ3shstranger","level":"read"}`, 404, 400, "MemberNotFound", nil},

		{"all there is to know", get, list, "space=$S", 200, 200, "", map[string]any{
			"members.1.authority": true, "members.1.sequencer": true, "members.1.caps.3": "serve", "members.0.via": "invite", "delegations": nil,
		}},

		{"all capabilities", post, set, `{"space":"$S","did":"did:key:zQ3shother"}`, 200, 200, "", map[string]any{"keeper": true, "caps.0": "admit", "caps.3": "serve"}},
		{"some", post, set, `{"space":"$S","did":"did:key:zQ3shother","caps":["serve","admit"]}`, 200, 200, "", map[string]any{"caps.0": "admit", "caps.1": "serve", "caps.2": nil}},
		{"none", post, set, `{"space":"$S","did":"did:key:zQ3shother","caps":[]}`, 400, 400, "InvalidRequest", nil},
		{"unknown capability", post, set, `{"space":"$S","did":"did:key:zQ3shother","caps":["rule"]}`, 400, 400, "InvalidRequest", nil},
		{"twice", post, set, `{"space":"$S","did":"did:key:zQ3shother","caps":["admit","admit"]}`, 400, 400, "InvalidRequest", nil},
		{"too many", post, set, `{"space":"$S","did":"did:key:zQ3shother","caps":["a","b","c","d","e"]}`, 400, 400, "InvalidRequest", nil},
		{"nobody", post, set, `{"space":"$S","did":"did:key:zQ3shstranger"}`, 404, 400, "MemberNotFound", nil},
		{"no keeper", post, unset, `{"space":"$S","did":"did:key:zQ3shother"}`, 404, 400, "MemberNotFound", nil},
		{"the authority", post, unset, `{"space":"$S","did":"did:key:zQ3showner"}`, 409, 400, "LastAuthority", nil},
		{"the authority", post, appoint, `{"space":"$S","did":"did:key:zQ3showner"}`, 200, 200, "", map[string]any{"sequencer": true}},
		{"no keeper", post, appoint, `{"space":"$S","did":"did:key:zQ3shother"}`, 403, 403, "Forbidden", nil},

		{"next epoch", post, "dev.kith.space.rotate", `{"space":"$S"}`, 200, 200, "", map[string]any{"uri": "$S", "epoch": 2.0}},
		{"unknown", post, "dev.kith.space.rotate", `{"space":"$Sx"}`, 404, 400, "SpaceNotFound", nil},
		{"one space", get, "dev.kith.space.status", "space=$S", 200, 200, "", map[string]any{"role": "write", "epoch": 1.0, "inSyncWith": "*"}},
		{"unknown", get, "dev.kith.space.status", "space=$Sx", 404, 400, "SpaceNotFound", nil},
	}
}()

func TestMemberEndpoints(t *testing.T) { runTable(t, memberEndpoints) }

var inviteEndpoints = func() []endpoint {
	const list, revoke, accept = "dev.happyview.space.listInvites", "dev.happyview.space.revokeInvite", "dev.happyview.space.acceptInvite"
	const waiting, yes, no = "dev.kith.space.listRequests", "dev.kith.space.approveRequest", "dev.kith.space.denyRequest"
	return []endpoint{
		{"with approval", post, "dev.happyview.space.createInvite", `{"space":"$S","access":"read_self","approval":true}`, 201, 201, "",
			map[string]any{"access": "read_self", "approval": true}},
		{"older name", post, "dev.happyview.space.invite.create", `{"space":"$S"}`, 201, 201, "", map[string]any{"access": "read"}},

		{"newest first", get, list, "space=$S", 200, 200, "", map[string]any{
			"invites.0.id": "aa02", "invites.0.access": "write", "invites.0.maxUses": nil, "invites.0.expiresAt": nil, "invites.0.approval": true,
			"invites.1.id": "aa01", "invites.1.uses": 2.0, "invites.1.maxUses": 5.0, "invites.1.expiresAt": "2030-03-17T17:46:40.123Z",
			"invites.1.revoked": false, "invites.1.createdBy": "did:key:zQ3showner", "invites.1.createdAt": "*", "invites.1.token": nil, "cursor": nil,
		}},
		{"page", get, list, "space=$S&limit=1", 200, 200, "", map[string]any{"invites.0.id": "aa02", "invites.1": nil, "cursor": "*"}},
		{"bad cursor", get, list, "space=$S&cursor=eHg", 400, 400, "InvalidCursor", nil},
		{"unknown space", get, list, "space=$Sx", 404, 404, "SpaceNotFound", nil},

		{"closed", post, revoke, `{"space":"$S","inviteId":"aa01"}`, 200, 200, "", map[string]any{"success": true}},
		{"unknown", post, revoke, `{"space":"$S","inviteId":"ff"}`, 404, 404, "InviteNotFound", map[string]any{"message": "Invite not found: revoke ff"}},
		{"no id", post, revoke, `{"space":"$S"}`, 422, 422, "InvalidRequest", nil},
		{"no hex", post, revoke, `{"space":"$S","inviteId":"AA01"}`, 400, 400, "InvalidRequest", nil},
		{"long", post, revoke, `{"space":"$S","inviteId":"` + strings.Repeat("aa", 33) + `"}`, 400, 400, "InvalidRequest", nil},
		{"unknown space", post, revoke, `{"space":"$Sx","inviteId":"aa01"}`, 404, 404, "SpaceNotFound", nil},

		{"taken", post, accept, `{"token":"kith:j#secret"}`, 201, 201, "", map[string]any{"uri": home.String(), "access": "write"}},
		{"older name", post, "dev.happyview.space.redeemInvite", `{"token":"kith:j#secret"}`, 201, 201, "", map[string]any{"access": "write"}},
		{"member already", post, accept, `{"token":"kith:j#again"}`, 409, 409, "MemberAlreadyExists", map[string]any{"message": "You are already a member of this space"}},
		{"spent", post, accept, `{"token":"kith:j#spent"}`, 404, 404, "InvalidInvite", map[string]any{"message": "Invalid invite token"}},
		{"no token", post, accept, `{}`, 422, 422, "InvalidRequest", nil},

		{"who waits", get, waiting, "space=$S", 200, 200, "", map[string]any{
			"requests.0.id": "cc01", "requests.0.did": "did:key:zQ3shnewcomer", "requests.0.level": "write", "requests.0.inviteId": "aa02", "requests.0.askedAt": "*",
		}},
		{"let in", post, yes, `{"space":"$S","request":"cc01"}`, 200, 200, "", map[string]any{"did": "did:key:zQ3shnewcomer", "via": "invite:aa02"}},
		{"unknown", post, yes, `{"space":"$S","request":"cc02"}`, 404, 400, "RequestNotFound", nil},
		{"kept out", post, no, `{"space":"$S","request":"cc01"}`, 200, 200, "", map[string]any{"success": true}},
		{"unknown", post, no, `{"space":"$S","request":"cc02"}`, 404, 400, "RequestNotFound", nil},
		{"no request", post, no, `{"space":"$S"}`, 422, 400, "InvalidRequest", nil},
	}
}()

func TestInviteEndpoints(t *testing.T) { runTable(t, inviteEndpoints) }

var adminEndpoints = func() []endpoint {
	const update, config, set = "com.atproto.simplespace.updateSpace", "com.atproto.simplespace.getConfig", "com.atproto.simplespace.updateConfig"
	const managing = `"policy":{"$type":"com.atproto.simplespace.defs#managingAppPolicy","managingApp":"did:web:app.example#space"}`
	return []endpoint{
		{"texts", post, update, `{"space":"$S","displayName":"New","description":"d","config":{"colour":"red"}}`, 200, 200, "", map[string]any{
			"uri": "$S", "space.display_name": "New", "space.description": "d", "space.config.colour": "red", "space.mint_policy": "member-list",
			"space.updated_at": "*",
		}},
		{"nothing", post, update, `{"space":"$S"}`, 200, 200, "", map[string]any{"space.display_name": nil}},
		{"public", post, update, `{"space":"$S","mintPolicy":"public","recordsPublic":true,"membership_public":true}`, 200, 200, "", map[string]any{
			"space.mint_policy": "public", "space.config.records_public": true, "space.config.recordsPublic": true, "space.config.membershipPublic": true,
		}},
		{"public records of a list", post, update, `{"space":"$S","recordsPublic":true}`, 400, 400, "UnsupportedPolicy", nil},
		{"managing app", post, update, `{"space":"$S",` + managing + `}`, 200, 200, "", map[string]any{"space.mint_policy": "managing-app", "space.managing_app_did": "did:web:app.example#space"}},
		{"managing app without its mint", post, update, `{"space":"$S","managingAppDid":"did:web:app.example#space"}`, 400, 400, "UnsupportedPolicy", nil},
		{"no managing app", post, update, `{"space":"$S","mintPolicy":"managing-app"}`, 400, 400, "UnsupportedPolicy", nil},
		{"allow list", post, update, `{"space":"$S","appAccess":{"$type":"com.atproto.simplespace.defs#allowList","allowed":["https://app.example/client.json"]}}`,
			200, 200, "", map[string]any{"space.app_access.type": "allowList", "space.app_access.allowed.0": "https://app.example/client.json"}},
		{"unknown access", post, update, `{"space":"$S","appAccess":{"type":"closed"}}`, 400, 400, "UnsupportedAppAccess", nil},
		{"unknown mint", post, update, `{"space":"$S","mintPolicy":"pubic"}`, 400, 400, "UnsupportedPolicy", nil},
		{"null policy", post, update, `{"space":"$S","policy":null}`, 400, 400, "UnsupportedPolicy", nil},
		{"static unacknowledged", post, update, `{"space":"$S","keyPolicy":"static"}`, 400, 400, "UnsupportedPolicy", nil},
		{"static", post, update, `{"space":"$S","keyPolicy":"static","acknowledgeNoRevocation":true}`, 200, 200, "", map[string]any{
			"space.policy.keyPolicy": "static", "space.config.acknowledgeNoRevocation": true,
		}},
		{"from join", post, update, `{"space":"$S","history":"from-join","selfWrite":true,"maxEpochLagSeconds":3600}`, 200, 200, "", map[string]any{
			"space.policy.history": "from-join", "space.policy.selfWrite": true, "space.policy.maxEpochLagSeconds": 3600.0,
		}},
		{"signed", post, update, `{"space":"$S","attribution":"sig"}`, 400, 400, "UnsupportedPolicy", nil},
		{"post-quantum", post, update, `{"space":"$S","pq":true}`, 400, 400, "UnsupportedPolicy", nil},
		{"collections", post, update, `{"space":"$S","config":{"allowedCollections":["a.b.c"]}}`, 400, 400, "UnsupportedPolicy", nil},
		{"flag of text", post, update, `{"space":"$S","config":{"membershipPublic":"yes"}}`, 422, 400, "InvalidRequest", nil},
		{"float in config", post, update, `{"space":"$S","config":{"x":1.5}}`, 400, 400, "InvalidRequest", nil},
		{"long name", post, update, `{"space":"$S","displayName":"` + strings.Repeat("n", 641) + `"}`, 400, 400, "InvalidRequest", nil},
		{"lag below zero", post, update, `{"space":"$S","maxEpochLagSeconds":-1}`, 400, 400, "InvalidRequest", nil},
		{"unknown space", post, update, `{"space":"$Sx","displayName":"New"}`, 404, 400, "SpaceNotFound", nil},

		{"shown", get, config, "space=$S", 200, 200, "", map[string]any{"mintPolicy": "member-list", "appAccess.type": "open", "managingApp": nil, "$type": "*"}},
		{"unknown space", get, config, "space=$Sx", 404, 400, "SpaceNotFound", nil},
		{"managing app", post, set, `{"space":"$S","mintPolicy":"managing-app","managingApp":"did:web:app.example#space"}`, 200, 200, "",
			map[string]any{"mintPolicy": "managing-app", "managingApp": "did:web:app.example#space"}},

		{"gone", post, "com.atproto.simplespace.deleteSpace", `{"space":"$S","reason":"moved"}`, 200, 200, "", map[string]any{"success": true}},
		{"long reason", post, "com.atproto.simplespace.deleteSpace", `{"space":"$S","reason":"` + strings.Repeat("r", 1001) + `"}`, 400, 400, "InvalidRequest", nil},
		{"unknown space", post, "com.atproto.simplespace.deleteSpace", `{"space":"$Sx"}`, 404, 400, "SpaceNotFound", nil},
		{"the authority", post, "dev.kith.space.leave", `{"space":"$S"}`, 409, 400, "LastAuthority", nil},
		{"a name", post, "dev.kith.space.setPetname", `{"space":"$S","name":"home"}`, 200, 200, "", map[string]any{"success": true}},
		{"a name that is taken", post, "dev.kith.space.setPetname", `{"space":"$S","name":"taken"}`, 409, 400, "NameTaken", nil},
		{"a name for an unknown space", post, "dev.kith.space.setPetname", `{"space":"$Sx","name":"home"}`, 404, 400, "SpaceNotFound", nil},
		{"gone from here", post, "dev.kith.space.forget", `{"space":"$S"}`, 200, 200, "", map[string]any{"success": true}},
		{"unknown space", post, "dev.kith.space.forget", `{"space":"$Sx"}`, 404, 400, "SpaceNotFound", nil},
		{"not a DID of its own", post, "dev.kith.space.transfer", `{"space":"$S","did":"did:key:zQ3shother"}`, 400, 400, "Unsupported", nil},
		{"to a stranger", post, "dev.kith.space.transfer", `{"space":"$S","did":"did:key:zQ3shstranger"}`, 404, 400, "MemberNotFound", nil},
		{"offered", post, "dev.kith.space.acceptTransfer", `{"space":"$S"}`, 200, 200, "", map[string]any{"success": true}},

		{"all", get, "dev.kith.device.list", "", 200, 200, "", map[string]any{"devices.0.id": "bb01", "devices.0.this": true, "devices.0.caps.0": "enrol"}},
		{"added", post, "dev.kith.device.approve", `{"code":"kith:d#code"}`, 200, 200, "", map[string]any{"id": "bb02", "revoked": false}},
		{"at an address", post, "dev.kith.device.approve", `{"code":"kith:d#code","addr":" there"}`, 200, 200, "", map[string]any{"name": "phone there"}},
		{"no address", post, "dev.kith.device.approve", `{"code":"kith:d#code","addr":1}`, 422, 400, "InvalidRequest", nil},
		{"no code", post, "dev.kith.device.approve", `{"code":"hello"}`, 400, 400, "InvalidRequest", nil},
		{"old code", post, "dev.kith.device.approve", `{"code":"kith:d#old"}`, 404, 400, "InvalidInvite", nil},
		{"written", post, "dev.kith.node.backup", `{"file":"/b","passphrase":"pass"}`, 200, 200, "", map[string]any{"file": "/b", "bytes": 4.0, "spaces": 1.0, "rows": 7.0}},
		{"role", get, "dev.kith.node.relay", "", 200, 200, "", map[string]any{"relay": true, "topics": 1.0, "leases.0.topic": "aa01"}},
		{"good code", post, "dev.kith.space.leaseRelay", `{"space":"$S","relay":"12D3relay","code":"sesame"}`, 200, 200, "", map[string]any{"peerId": "12D3relay", "bytes": 10.0}},
		{"bad code", post, "dev.kith.space.leaseRelay", `{"space":"$S","relay":"12D3relay","code":"x"}`, 403, 403, "Forbidden", nil},
		{"other relay", post, "dev.kith.space.leaseRelay", `{"space":"$S","relay":"12D3other","code":"sesame"}`, 404, 400, "PeerNotFound", nil},
		{"no code", post, "dev.kith.space.leaseRelay", `{"space":"$S","relay":"12D3relay"}`, 422, 400, "InvalidRequest", nil},
		{"no path", post, "dev.kith.node.backup", `{"file":"b"}`, 400, 400, "InvalidRequest", nil},
		{"no file", post, "dev.kith.node.backup", `{}`, 422, 400, "InvalidRequest", nil},
		{"this one", post, "dev.kith.device.revoke", `{"id":"bb01"}`, 409, 400, "LastDevice", nil},
		{"unknown", post, "dev.kith.device.revoke", `{"id":"bb09"}`, 404, 400, "DeviceNotFound", nil},
	}
}()

func TestAdminEndpoints(t *testing.T) { runTable(t, adminEndpoints) }

// A Server without an interface says that its methods are not built, whatever
// is asked of them.
func TestMethodsThatANodeHasNot(t *testing.T) {
	s := newServer(newFake(t))
	s.Roster, s.Delegations, s.Invites, s.Approvals, s.Keys = nil, nil, nil, nil, nil
	s.Keepers, s.Admin, s.Transfers, s.Exits, s.Petnames, s.Devices, s.Backups, s.Relays = nil, nil, nil, nil, nil, nil, nil, nil
	for _, e := range append(append(append([]endpoint{}, memberEndpoints...), inviteEndpoints...), adminEndpoints...) {
		w := ask(s, e.verb, e.nsid, spelled(HappyView, e.verb, e.in))
		switch e.nsid {
		case "com.atproto.simplespace.getConfig", "dev.kith.space.status":
			if w.Code != e.happyview {
				t.Errorf("%s/%s: status %d, want %d", e.nsid, e.name, w.Code, e.happyview)
			}
		default:
			if w.Code != 501 || at(decoded(t, w), "error") != "MethodNotImplemented" {
				t.Errorf("%s/%s: status %d: %s", e.nsid, e.name, w.Code, w.Body)
			}
		}
	}
	body := `{"type":"com.example.notes","ownDid":true}`
	if w := ask(s, post, "com.atproto.simplespace.createSpace", body); w.Code != 400 || at(decoded(t, w), "error") != "Unsupported" {
		t.Errorf("own DID: %d %s", w.Code, w.Body)
	}
}

// A deleted space is deleted again without an error, and takes nothing else.
func TestDeletedSpace(t *testing.T) {
	for name, d := range both {
		s := newServer(newFake(t))
		for range 2 {
			if w := ask(s, post, "com.atproto.simplespace.deleteSpace", spelled(d, post, `{"space":"$S"}`)); w.Code != 200 {
				t.Errorf("%s: delete: %d %s", name, w.Code, w.Body)
			}
		}
		w := ask(s, post, "com.atproto.simplespace.addMember", spelled(d, post, `{"space":"$S","did":"did:key:zQ3shnewcomer"}`))
		if want := [dialects]int{404, 400}[d]; w.Code != want || at(decoded(t, w), "error") != "SpaceDeleted" {
			t.Errorf("%s: add: %d %s", name, w.Code, w.Body)
		}
	}
}

// Who is not the authority neither sees nor changes the configuration, and
// leaves by removing itself.
func TestNotTheAuthority(t *testing.T) {
	f := newFake(t)
	f.spaces[home].info.Authority = other
	s := newServer(f)
	for nsid, in := range map[string]string{
		"com.atproto.simplespace.getConfig":    "space=$S",
		"com.atproto.simplespace.updateConfig": `{"space":"$S","mintPolicy":"public"}`,
		"com.atproto.simplespace.updateSpace":  `{"space":"$S","displayName":"Mine"}`,
		"com.atproto.simplespace.addMember":    `{"space":"$S","did":"did:key:zQ3shnewcomer"}`,
		"com.atproto.simplespace.removeMember": `{"space":"$S","did":"did:key:zQ3shother"}`,
		"com.atproto.simplespace.deleteSpace":  `{"space":"$S"}`,
	} {
		w := ask(s, allMethods()[nsid].verb, nsid, spelled(HappyView, allMethods()[nsid].verb, in))
		if w.Code != 403 || at(decoded(t, w), "error") != "NotSpaceOwner" || at(decoded(t, w), "message") != "Only the space authority can perform this action" {
			t.Errorf("%s: %d %s", nsid, w.Code, w.Body)
		}
	}
	if f.updates != 0 {
		t.Error("the policy was written")
	}
	if _, err := dial(t, f).UpdateSpace(t.Context(), home, PolicyPatch{DisplayName: new("x")}); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("the client takes it for %v", err)
	}
	w := ask(s, post, "com.atproto.simplespace.removeMember", spelled(HappyView, post, `{"space":"$S","did":"did:key:zQ3showner"}`))
	if w.Code != 200 || f.spaces[home].info.Level != space.LevelNone {
		t.Errorf("leave: %d %s, level %s", w.Code, w.Body, f.spaces[home].info.Level)
	}
}

// Null clears, a policy that changes drops what belonged to the old one, and a
// patch that says nothing writes nothing.
func TestPolicyChanges(t *testing.T) {
	f := newFake(t)
	s := newServer(f)
	tell := func(body string) map[string]any {
		t.Helper()
		w := ask(s, post, "com.atproto.simplespace.updateSpace", spelled(HappyView, post, `{"space":"$S",`+body+`}`))
		if w.Code != 200 {
			t.Fatalf("%s: %d %s", body, w.Code, w.Body)
		}
		return decoded(t, w)
	}
	want := func(v map[string]any, path string, value any) {
		t.Helper()
		if got := at(v, path); !reflect.DeepEqual(got, value) {
			t.Errorf("%s is %v, want %v", path, got, value)
		}
	}
	v := tell(`"displayName":"A","config":{"a":1,"membership_public":true},"mintPolicy":"managing-app","managingAppDid":"did:web:a.example#space"`)
	want(v, "space.config", map[string]any{"a": 1.0, "membershipPublic": true, "membership_public": true, "recordsPublic": false, "records_public": false})
	v = tell(`"description":"d"`)
	want(v, "space.config.membershipPublic", true)
	want(v, "space.displayName", "A")
	v = tell(`"membershipPublic":false,"displayName":null`)
	want(v, "space.config", map[string]any{"a": 1.0, "membershipPublic": false, "membership_public": false, "recordsPublic": false, "records_public": false})
	want(v, "space.displayName", nil)
	v = tell(`"policy":{"$type":"com.atproto.simplespace.defs#memberListPolicy"}`)
	want(v, "space.managingAppDid", nil)
	v = tell(`"membershipPublic":true,"config":{"b":2,"membershipPublic":false}`)
	want(v, "space.config.membershipPublic", true)
	want(v, "space.config.a", nil)
	v = tell(`"appAccess":{"type":"allowList","allowed":["x"]}`)
	want(v, "space.appAccess.allowed.0", "x")
	v = tell(`"appAccess":{"type":"open"}`)
	want(v, "space.policy.allow", nil)
	v = tell(`"config":null`)
	want(v, "space.policy.config", nil)
	tell(`"mintPolicy":"public"`)
	if p := f.spaces[home].info.Policy; !p.SelfWrites() {
		t.Error("public, and nobody at read_self writes")
	}
	v = tell(`"selfWrite":false`)
	want(v, "space.config.selfWrite", false)
	if p := f.spaces[home].info.Policy; p.SelfWrites() {
		t.Error("selfWrite false is not heard under mint public")
	}
	v = tell(`"selfWrite":true`)
	want(v, "space.config.selfWrite", nil)
	before := f.updates
	tell(`"mintPolicy":null`)
	if f.updates != before {
		t.Error("a patch that says nothing was written")
	}
}

// What was taken from one policy and given to another is the same policy, by
// way of the client.
func TestClientPatches(t *testing.T) {
	f := newFake(t)
	c, ctx := dial(t, f), t.Context()
	config := must(space.RecordFromJSON([]byte(`{"colour":"red"}`)))(t)
	for i, u := range []PolicyPatch{
		{DisplayName: new("n"), Description: new("d"), Config: &config},
		{Mint: new(space.MintManaging), ManagingApp: new("did:web:a.example#space")},
		{ManagingApp: new("did:web:b.example#space")},
		{Mint: new(space.MintPublic), Flags: []Flag{{FlagRecordsPublic, true}, {FlagMembershipPublic, true}}},
		{Flags: []Flag{{FlagRecordsPublic, false}}, SelfWrite: new(false)},
		{AppAccess: new(space.AccessAllowList), Allow: &[]string{"x", "y"}},
		{Allow: &[]string{"z"}},
		{AppAccess: new(space.AccessOpen)},
		{KeyPolicy: new(space.KeysStatic), History: new(space.HistoryFromJoin), MaxEpochLagSeconds: new(uint32(7))},
		{DisplayName: new(""), Config: new(space.Record)},
	} {
		want, err := u.Apply(f.spaces[home].info.Policy)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.UpdateSpace(ctx, home, u)
		same(t, fmt.Sprint("patch ", i), got.Policy, want, err)
		same(t, fmt.Sprint("kept ", i), f.spaces[home].info.Policy, want)
	}
}

// The client's membership is the node's, field by field, with its errors.
func TestClientOfMembers(t *testing.T) {
	f := newFake(t)
	c, ctx := dial(t, f), t.Context()
	m, err := c.AddMember(ctx, home, newcomer, space.LevelRead)
	same(t, "added", m, f.spaces[home].members[2], err)
	m, err = c.SetLevel(ctx, home, newcomer, space.LevelWrite)
	same(t, "level", m, f.spaces[home].members[2], err)
	m, err = c.SetKeeper(ctx, home, newcomer, []Cap{CapAdmit, CapSequence})
	same(t, "keeper", m, f.spaces[home].members[2], err)
	m, err = c.AppointSequencer(ctx, home, newcomer)
	same(t, "sequencer", m, f.spaces[home].members[2], err)
	d, err := c.Delegate(ctx, home, child, space.LevelWrite)
	same(t, "delegation", d, Delegation{Child: child, Level: space.LevelWrite, AddedMs: f.spaces[home].children[0].AddedMs}, err)
	ds, err := c.Delegations(ctx, home)
	same(t, "delegations", ds, f.spaces[home].children, err)
	is, err := c.Invites(ctx, home)
	same(t, "invites", is, []InviteInfo{f.spaces[home].doors[1], f.spaces[home].doors[0]}, err)
	rs, err := c.Requests(ctx, home)
	same(t, "requests", rs, f.spaces[home].waiting, err)
	epoch, err := c.Rotate(ctx, home)
	same(t, "epoch", epoch, f.spaces[home].info.Epoch, err)
	ds2, err := c.Devices(ctx)
	same(t, "devices", ds2, f.devices, err)
	dev, err := c.ApproveDevice(ctx, "kith:d#code", "/ip4/127.0.0.1/tcp/1")
	same(t, "device", dev, f.devices[1], err)
	b, err := c.Backup(ctx, "/b", "pass")
	same(t, "backup", b, Backup{"/b", 4, 1, 7, 2}, err)
	role, err := c.RelayRole(ctx)
	same(t, "role", role.Leases[0].Topic, "aa01", err)
	leased, err := c.LeaseRelay(ctx, home, "12D3relay", "sesame")
	same(t, "leased", leased.Bytes, uint64(10), err)
	dev, err = c.RevokeDevice(ctx, "bb02")
	same(t, "revoked", dev, f.devices[1], err)
	if err := errors.Join(c.RevokeInvite(ctx, home, "aa01"), c.RemoveKeeper(ctx, home, newcomer), c.Undelegate(ctx, home, child),
		c.RemoveMember(ctx, home, newcomer), c.AcceptTransfer(ctx, home), c.Deny(ctx, home, "cc01")); err != nil {
		t.Error(err)
	}
	for what, got := range map[string]struct{ err, want error }{
		"add again":     {second(c.AddMember(ctx, home, other, space.LevelRead)), space.ErrMemberExists},
		"add nobody":    {second(c.AddMember(ctx, home, stranger, space.LevelRead)), space.ErrUnknownDID},
		"level":         {second(c.SetLevel(ctx, home, stranger, space.LevelRead)), space.ErrMemberNotFound},
		"authority":     {c.RemoveMember(ctx, home, owner), space.ErrLastAuthority},
		"leave":         {c.Leave(ctx, home), space.ErrLastAuthority},
		"cycle":         {second(c.Delegate(ctx, home, loop, space.LevelRead)), space.ErrDelegationCycle},
		"invite":        {c.RevokeInvite(ctx, home, "ff"), space.ErrInviteNotFound},
		"request":       {second(c.Approve(ctx, home, "cc01")), space.ErrRequestNotFound},
		"sequencer":     {second(c.AppointSequencer(ctx, home, other)), space.ErrForbidden},
		"transfer":      {second(c.Transfer(ctx, home, other)), space.ErrUnsupported},
		"peer":          {c.Disconnect(ctx, "12D3nobody"), ErrPeerNotFound},
		"device":        {second(c.RevokeDevice(ctx, "ff")), ErrDeviceNotFound},
		"this device":   {second(c.RevokeDevice(ctx, "bb01")), ErrLastDevice},
		"unknown space": {c.Forget(ctx, child), space.ErrSpaceNotFound},
	} {
		if !errors.Is(got.err, got.want) {
			t.Errorf("%s: %v, want %v", what, got.err, got.want)
		}
	}
	err = errors.Join(c.DeleteSpace(ctx, home, "over"), c.DeleteSpace(ctx, home, ""))
	same(t, "reason", f.reason, "over", err)
	if _, err := c.Rotate(ctx, home); !errors.Is(err, space.ErrSpaceDeleted) {
		t.Errorf("rotate a deleted space: %v", err)
	}
	if _, err := c.Space(ctx, home); !errors.Is(err, space.ErrSpaceDeleted) {
		t.Errorf("show a deleted space: %v", err)
	}
	if err := c.Forget(ctx, home); err != nil || f.spaces[home] != nil {
		t.Errorf("forget: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// A transfer nobody signs ends in time and says that nothing happened.
func TestTransferWaits(t *testing.T) {
	f := newFake(t)
	f.spaces[home].info.Authority = stranger // so the space lives under another DID than its authority's
	c := dial(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := c.Transfer(ctx, home, other); !errors.Is(err, space.ErrUnavailable) {
		t.Errorf("unsigned: %v", err)
	}
	f.spaces[home].accepted = true
	info, err := c.Transfer(ctx, home, other)
	same(t, "authority", info.Authority, other, err)
}

// Pages of invites join up to the list.
func TestInvitePages(t *testing.T) {
	f := newFake(t)
	for i := range 7 {
		f.spaces[home].doors = append(f.spaces[home].doors, InviteInfo{ID: fmt.Sprintf("b%d", i), Level: space.LevelRead, CreatedBy: owner, CreatedMs: 1_800_000_001_000})
	}
	s := newServer(f)
	var ids []string
	cursor := ""
	for range 9 {
		w := ask(s, get, "dev.happyview.space.listInvites", "space="+home.String()+"&limit=2&cursor="+cursor)
		var out invitesAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		for _, i := range out.Invites {
			ids = append(ids, i.ID)
		}
		if cursor = out.Cursor; cursor == "" {
			break
		}
	}
	if got := strings.Join(ids, " "); got != "aa02 b0 b1 b2 b3 b4 b5 b6 aa01" {
		t.Errorf("pages: %s", got)
	}
}

// What a space opens to everybody is open under the node's public name only,
// and shows nothing that is the owner's own. All else answers alike.
func TestAnonymous(t *testing.T) {
	f, s, blob := withBlob(t, "text/plain", "for everybody")
	s.Origins = []string{"https://node.example", "http://localhost:3000"}
	s.NobodyRate = Rate{1_000_000, time.Minute}
	anybody := func(host, nsid, in string) (int, map[string]any) {
		r := httptest.NewRequest(get, "http://"+host+"/xrpc/"+nsid+"?"+in, nil)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code, decoded(t, w)
	}
	in := "collection=com.example.note&rkey=both&cid=" + blob.CID.String() + "&space="
	roster, records := map[string]bool{}, map[string]bool{}
	for nsid, m := range allMethods() {
		if m.open == nil {
			continue
		}
		if strings.Contains(nsid, "getSpace") || strings.HasSuffix(nsid, ".get") || strings.Contains(nsid, "listMembers") {
			roster[nsid] = true
		} else {
			records[nsid] = true
		}
	}
	for _, step := range []struct {
		mint          string
		flags         []Flag
		roster, value bool
	}{
		{space.MintMemberList, nil, false, false},
		{space.MintMemberList, []Flag{{FlagMembershipPublic, true}}, true, false},
		{space.MintPublic, []Flag{{FlagMembershipPublic, false}}, false, false},
		{space.MintPublic, []Flag{{FlagRecordsPublic, true}}, false, true},
	} {
		info := &f.spaces[home].info
		p, err := PolicyPatch{Mint: &step.mint, Flags: step.flags}.Apply(info.Policy)
		if info.Policy = p; err != nil {
			t.Fatal(err)
		}
		for nsid, m := range allMethods() {
			if m.verb != get || m.handle == nil {
				continue
			}
			want := 401
			if step.roster && roster[nsid] || step.value && records[nsid] {
				want = 200
			}
			_, refused := anybody("node.example", nsid, in+"ats://did:plc:nobody/com.example.notes/none")
			code, v := anybody("node.example", nsid, in+home.String()+"&repo="+string(owner))
			if code != want || want == 401 && !reflect.DeepEqual(v, refused) {
				t.Errorf("%+v: %s: %d %v, want %d", step, nsid, code, v, want)
			}
			for _, private := range []string{`"home"`, "invite", apiToken} {
				if text := fmt.Sprint(v); want == 200 && strings.Contains(text, private) {
					t.Errorf("%s shows %s: %s", nsid, private, text)
				}
			}
			if want == 200 && at(v, "space.name") != nil {
				t.Errorf("%s shows the petname", nsid)
			}
			for _, local := range []string{"localhost", "127.0.0.1:2580", "localhost:3000"} {
				if code, _ := anybody(local, nsid, in+home.String()+"&repo="+string(owner)); code != 401 {
					t.Errorf("%+v: %s on %s: %d", step, nsid, local, code)
				}
			}
		}
	}
	f.spaces[home].deleted = true
	if code, _ := anybody("node.example", "com.atproto.space.listRecords", "space="+home.String()); code != 401 {
		t.Errorf("a deleted space: %d", code)
	}
}
