package xrpc

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// differs says, for each method on which the contracts do not agree, what a
// client of either gets. A method that is not named gives both the same, but
// for the statuses and the form of URIs that the text above the table tells.
var differs = map[string]struct{ happyview, atproto string }{
	"com.atproto.simplespace.createSpace": {
		"201; mintPolicy, appAccess.type, displayName, config, managingAppDid; skey may be left out",
		"200; policy and appAccess as unions, each may be left out for the standard",
	},
	"com.atproto.simplespace.getSpace": {
		"`space` and `config`; strangers get 404, as for no space (HappyView: 401 or 403, which tells that it exists)",
		"`uri`, `policy`, `appAccess`, to every member (reference: to the owner)",
	},
	"com.atproto.simplespace.listMembers":  {"all rows unless `limit` is given", "100 rows a page; the last page has no cursor; every member who reads may ask (reference: the owner)"},
	"com.atproto.simplespace.addMember":    {"201 with `member`; 409 for who is in; level read unless `access` says more", "200; who is in stays as is; level write, the one level of its list"},
	"com.atproto.simplespace.removeMember": {"404 for who is not in", "200 for who is not in"},
	"com.atproto.simplespace.updateSpace":  {"`uri` and `space`; null clears, as its docs say and its code does not", "a body where the reference has none: it is a superset"},
	"com.atproto.simplespace.deleteSpace":  {"`{success}`; again: 200", "`{success}`; reads and writes then: SpaceDeleted, until a new space is made there, which has another id and no members of the old one"},
	"com.atproto.simplespace.getConfig":    {"the management view", "not in atproto"},
	"com.atproto.simplespace.updateConfig": {"the management view", "not in atproto"},
	"com.atproto.space.listSpaces":         {"`did`: spaces shared with them, which the roster shows (HappyView: any DID's, a leak)", "`did`: spaces of this authority"},
	"com.atproto.space.createRecord":       {"201; a record keeps having no `$type`", "200; a record without `$type` gets its collection's; a blob object of the old form is refused"},
	"com.atproto.space.putRecord":          {"201, for an update too", "200"},
	"com.atproto.space.deleteRecord":       {"404 for an absent record", "200 for an absent record"},
	"com.atproto.space.applyWrites": {
		"a write with `action`: update is an upsert, delete of an absent record succeeds. All or nothing (HappyView: one by one)",
		"a write with `$type`: update and delete want the record to be there",
	},
	"com.atproto.space.getRecord": {
		"`repo`, `author` or `did` may be left out: one's own, else the only author's, else AmbiguousRepo (HappyView: whichever row comes first)",
		"the same; `repo` is not required",
	},
	"com.atproto.space.listRecords": {
		"ascending by author and path (HappyView: by time of indexing, on which pages are not stable); without `repo` all that one may read, as its docs say (its code: one's own); limit 50, at most 100, more is cut",
		"descending; values unless excludeValues; limit 50, at most 1,000, more is an error; the last page has no cursor",
	},
	"com.atproto.space.getRepoState":    {"bytes in base64url; also `state`, `count`; nulls for a repo never written", "bytes as `$bytes`"},
	"com.atproto.space.getLatestCommit": {"404 RepoNotFound for a repo never written; a commit made for this reader by the author's own node", "400 RepoNotFound; the same"},
	"com.atproto.space.listRepoOps": {
		"`cursor` may be a rev, and a page then ends with a whole rev; both spellings of every field; `pruned` where ops before the first are not kept any more",
		"`cursor` is `rev/idx`; commit only at the head; since and cursor are both kept (the lexicon: the cursor wins; the reference: both); `pruned`, without an error, where ops before the first are not kept any more (reference: keeps all); writes of one batch to one path are one op (reference: one for each)",
	},
	"com.atproto.space.getRepo":        {"404 RepoNotFound for a repo never written; a CAR of one snapshot", "400 RepoNotFound; the same bytes as the reference's for the same repo and commit"},
	"com.atproto.space.getBlob":        {"404 BlobNotFound; `repo` may be left out; bytes kept by the node (HappyView: fetched from a public server)", "400 BlobNotFound; only while a live record refers to it"},
	"com.atproto.space.listBlobs":      {"not in HappyView V10", "cids in ascending order"},
	"com.atproto.space.listRepos":      {"members who read (HappyView V10: anybody)", "members who read; hash of each"},
	"dev.happyview.space.createInvite": {"the token is the link of this network, longer than HappyView's 48 digits", "not in atproto"},
	"dev.happyview.space.acceptInvite": {"waits for the key, 30 s unless `waitSeconds` says otherwise", "not in atproto"},
	"dev.happyview.space.revokeInvite": {"of the space that is named (HappyView: of any)", "not in atproto"},
	"dev.happyview.space.listInvites":  {"all unless `limit` is given", "not in atproto"},
}

const apiDocHead = `# The HTTP API

Methods are at ` + "`/xrpc/NSID`" + ` on the node's HTTP address, queries with GET and procedures with POST and JSON. This file is written by
a test from the router's table (` + "`go test ./xrpc -run TestAPIDoc -update`" + `): what stands here is what is served. The shapes are in
` + "`xrpc/lexicons`" + `, which a node also serves at ` + "`/lexicons/`" + `, one document for each NSID.

## Two dialects

Two contracts are served at once: atproto's ` + "`com.atproto.space.*`" + ` and HappyView's. A request is in **HappyView's dialect** if its NSID is
` + "`dev.happyview.*`" + `, or it names its space ` + "`ats://DID/TYPE/KEY`" + `, or a createSpace has HappyView's fields; in **atproto's** if the space is named
` + "`at://DID/space/TYPE/KEY`" + ` or a createSpace has atproto's fields; else in the one of the setting ` + "`uri_scheme`" + ` (` + "`ats`" + `, the standard, or ` + "`at`" + `).

Inputs take either spelling, bodies have the fields of both. By the dialect go the form of URIs and these statuses:

| | HappyView | atproto |
|---|---|---|
| created | 201 | 200 |
| not found (space, repo, record, member, invite) | 404 | 400 |
| exists already, swap failed | 409 | 400 |
| a field of the wrong type, or missing | 422 | 400 |
| wrong content type | 415 | 400 |

Errors are ` + "`{\"error\":\"Name\",\"message\":\"…\"}`" + ` in both (HappyView: the sentence in ` + "`error`" + `, which clients of XRPC cannot tell from a name; the sentence
is the message). Who does not belong to a space gets the answer of a space that does not exist, in both.

## Who calls

The owner's token lies in ` + "`HOME/api.token`" + `. ` + "`kith token create --did DID --scope WORDS`" + ` makes others: they show what that person may see, and at
most what the scope says: ` + "`read_self`, `read`, `write`" + ` in the spaces its person belongs to; ` + "`manage`" + ` (found, join and govern spaces) and ` + "`node`" + `
(status, peers, settings) for the owner alone. Writes, and uploads for them, go into the repo of the node's owner: it has nobody else's keys. A space that is
public in its policy is shown to everybody under the node's public names.

Who hears that a space does not exist hears it 2 ms after the request at the earliest, whether it exists or not. Who has only
` + "`read_self`" + ` and follows a space by a socket hears of their own records and of their own place in the roster; ` + "`seq`" + ` counts what
they were sent, and any cursor is ` + "`OutdatedCursor`" + `: ` + "`listRepoOps`" + ` tells what went by.

## Following a repo

` + "`listRepoOps`" + ` from the last commit's rev on, to the commit at the head, and compare: ` + "`xrpc.Follower`" + ` does that. A node drops old
ops after ` + "`--compact-after`" + ` (30 days), but of the last thousand none; where what you ask for is gone the answer says
` + "`pruned: true`" + `, without an error. Then, and wherever the ops do not lead to the commit, read ` + "`getRepo`" + `.

## Settings

` + "`PUT`, `GET` and `DELETE /admin/settings/KEY`" + `, ` + "`GET /admin/settings`, `GET /admin/feature-flags`" + ` (the owner, or the scope node), ` + "`GET /config`" + `
(everybody). ` + "`feature.spaces_enabled`" + `: anything but ` + "`true`" + ` has the methods of spaces answer 404 FeatureDisabled before anything else of the request
is looked at; it is on without the setting. ` + "`FEATURE_SPACES_ENABLED`" + ` and ` + "`KITH_URI_SCHEME`" + ` in the environment are used where a setting is not set.

## Limits

A body has at most 2 MiB, unpacked, too (gzip is taken); a record 1 MiB; a batch 200 writes; a record key 512 bytes. Pages have a
` + "`limit`" + ` and an opaque ` + "`cursor`" + `, which is absent at the end.

`

// apiDoc is docs/api.md as the router has it.
func apiDoc() string {
	var b strings.Builder
	b.WriteString(apiDocHead)
	names := map[string][]string{}
	for alias, nsid := range aliases {
		names[nsid] = append(names[nsid], "`"+alias+"`")
	}
	b.WriteString("## Methods\n\n| method | | for | HappyView | atproto |\n|---|---|---|---|---|\n")
	for _, nsid := range sortedMethods() {
		m := methods[nsid]
		if m.handle == nil {
			continue
		}
		d := differs[nsid]
		who := accessNames[m.who]
		if m.open != nil {
			who += ", or everybody if public"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", nsid, verbName(m), who, d.happyview, d.atproto)
	}
	b.WriteString("\n## Further names\n\nThey answer in HappyView's dialect, whatever the URI, but for `com.atproto.space.getSpace`.\n\n| method | also |\n|---|---|\n")
	for _, nsid := range sortedMethods() {
		if also := names[nsid]; also != nil {
			slices.Sort(also)
			fmt.Fprintf(&b, "| `%s` | %s |\n", nsid, strings.Join(also, ", "))
		}
	}
	b.WriteString("\n## Methods of a relay\n\nServed by `kith-relay` and by a node with `--relay`, to whoever holds a ticket of the topic (`protocol.md`, \"Relays\"); elsewhere they are not implemented.\n\n")
	for _, nsid := range sortedMethods() {
		if m := methods[nsid]; m.byRelay {
			fmt.Fprintf(&b, "- `%s` %s\n", nsid, verbName(m))
		}
	}
	b.WriteString("\n## Known, and answered with MethodNotImplemented\n\n")
	for _, nsid := range sortedMethods() {
		if m := methods[nsid]; m.handle == nil && !m.byRelay {
			fmt.Fprintf(&b, "- `%s`\n", nsid)
		}
	}
	b.WriteString("\n## Errors\n\n| name | HappyView | atproto |\n|---|---|---|\n")
	var lines []string
	for _, r := range rows {
		lines = append(lines, fmt.Sprintf("| %s | %d | %d |\n", r.name, r.status[HappyView], r.status[ATProto]))
	}
	slices.Sort(lines)
	for _, l := range slices.Compact(lines) {
		b.WriteString(l)
	}
	return b.String()
}

func verbName(m method) string {
	if m.socket {
		return "WebSocket"
	}
	return m.verb
}

func sortedMethods() []string {
	var all []string
	for nsid := range methods {
		all = append(all, nsid)
	}
	slices.Sort(all)
	return all
}

func TestAPIDoc(t *testing.T) {
	const file = "../docs/api.md"
	for nsid := range differs {
		if _, ok := methods[nsid]; !ok {
			t.Errorf("%s is described and no method", nsid)
		}
	}
	for nsid, m := range methods {
		if m.handle != nil && strings.HasPrefix(nsid, "com.atproto.s") && differs[nsid].happyview == "" {
			t.Errorf("%s: say in differs what either dialect gets", nsid)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(apiDoc()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || string(have) != apiDoc() {
		t.Errorf("%s is not what the router says (go test ./xrpc -run TestAPIDoc -update): %v", file, err)
	}
}
