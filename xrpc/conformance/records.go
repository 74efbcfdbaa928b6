package conformance

import (
	"strings"

	"github.com/kithnet/kith/space"
)

const (
	createRecord = "com.atproto.space.createRecord"
	putRecord    = "com.atproto.space.putRecord"
	deleteRecord = "com.atproto.space.deleteRecord"
	getRecord    = "com.atproto.space.getRecord"
)

// write is the body of a write into a space.
func (s *suite) write(uri, rkey string, record any) body {
	b := body{"space": uri, "repo": s.owner, "collection": collection, "record": record}
	if rkey != "" {
		b["rkey"] = rkey
	}
	return b
}

func (s *suite) read(uri, rkey string) reply {
	return s.get(s.cfg.Owner, getRecord, "space", uri, "repo", string(s.owner), "collection", collection, "rkey", rkey)
}

func (s *suite) recordsOf(d dialect) {
	uri := s.newSpace(d)
	s.creating(d, uri)
	s.reading(d, uri)
	s.putting(d, uri)
	s.deleting(d, uri)
	s.swapping(d, uri)
	s.badRecords(d, uri)
}

func (s *suite) creating(d dialect, uri string) {
	made := s.post(s.cfg.Owner, createRecord, s.write(uri, "", body{"text": "drawn"}))
	s.answers("createRecord: status", made, d.created)
	cid, err := space.ParseCID(made.text("cid"))
	s.hold("createRecord: the cid is one of DAG-CBOR", err == nil && strings.HasPrefix(cid.String(), "bafyrei"), made)
	front := uri + "/" + string(s.owner) + "/" + collection + "/"
	rkey, ok := strings.CutPrefix(made.text("uri"), front)
	_, err = space.ParseTID(rkey)
	s.hold("createRecord: draws a TID and names the record in the dialect's form", ok && err == nil, made)
	if d.name == "atproto" {
		s.shaped("createRecord: shape", createRecord, made)
	}
	s.same("createRecord: says that no lexicon was known", made.at("validationStatus"), "unknown")
	next := s.post(s.cfg.Owner, createRecord, s.write(uri, "", body{"text": "drawn"}))
	s.hold("createRecord: two draws differ", next.text("uri") != made.text("uri"), next)
	s.same("createRecord: the same value has the same cid", next.at("cid"), made.at("cid"))
	named := s.post(s.cfg.Owner, createRecord, s.write(uri, "named", body{"text": "x"}))
	s.same("createRecord: takes a key", named.at("uri"), front+"named")
	before := s.read(uri, "named")
	s.refused("createRecord: a path that is taken", s.post(s.cfg.Owner, createRecord, s.write(uri, "named", body{"text": "y"})), d.conflict, "RecordAlreadyExists")
	s.same("createRecord: and leaves what was there", s.read(uri, "named").v, before.v)
	s.refused("createRecord: into another's repo", s.post(s.cfg.Owner, createRecord,
		s.write(uri, "", body{}).with("repo", "did:plc:ewvi7nxzyoun6zhxrhs64oiz")), 403, "Forbidden")
	s.refused("createRecord: into no space", s.post(s.cfg.Owner, createRecord, s.write(uri+"x", "", body{})), d.absent, "SpaceNotFound")
	plain := s.write(uri, "", body{"text": "no repo"})
	delete(plain, "repo")
	s.answers("createRecord: without a repo it is one's own", s.post(s.cfg.Owner, createRecord, plain), d.created)
	s.refused("createRecord: validate without a lexicon", s.post(s.cfg.Owner, createRecord, s.write(uri, "", body{}).with("validate", true)), 400, "InvalidRequest")
	quiet := s.post(s.cfg.Owner, createRecord, s.write(uri, "", body{}).with("validate", false))
	s.hold("createRecord: validate false says nothing", quiet.status == d.created && quiet.at("validationStatus") == nil, quiet)
	s.answers("createRecord: unknown fields are ignored", s.post(s.cfg.Owner, createRecord, s.write(uri, "", body{}).with("colour", "red")), d.created)
	long := s.post(s.cfg.Owner, createRecord, s.write(uri, strings.Repeat("k", 512), body{}))
	s.answers("createRecord: a key of 512 bytes", long, d.created)
}

func (s *suite) reading(d dialect, uri string) {
	value := body{"$type": collection, "text": "é😀\u0000<&>", "list": []any{1, nil, true, -5}, "deep": body{"a": body{}},
		"bytes": body{"$bytes": "AAEC"}, "big": 9007199254740991}
	made := s.post(s.cfg.Owner, createRecord, s.write(uri, "whole", value))
	got := s.read(uri, "whole")
	s.answers("getRecord: status", got, 200)
	s.shaped("getRecord: shape", getRecord, got)
	s.same("getRecord: the value comes back whole", got.at("value"), value)
	s.same("getRecord: cid", got.at("cid"), made.at("cid"))
	s.same("getRecord: uri", got.at("uri"), made.at("uri"))
	s.refused("getRecord: an absent one", s.read(uri, "absent"), d.absent, "RecordNotFound")
	s.refused("getRecord: of a repo never written", s.get(s.cfg.Owner, getRecord, "space", uri, "repo", "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
		"collection", collection, "rkey", "whole"), d.absent, "RecordNotFound")
	s.same("getRecord: without a repo it is one's own", s.get(s.cfg.Owner, getRecord, "space", uri, "collection", collection, "rkey", "whole").at("uri"), made.at("uri"))
	for _, name := range []string{"author", "did"} {
		s.same("getRecord: "+name+" stands for repo", s.get(s.cfg.Owner, getRecord, "space", uri, name, string(s.owner), "collection", collection, "rkey", "whole").at("uri"), made.at("uri"))
	}
	s.refused("getRecord: repo and author that differ", s.get(s.cfg.Owner, getRecord, "space", uri, "repo", string(s.owner),
		"author", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "collection", collection, "rkey", "whole"), 400, "InvalidRequest")
	s.refused("getRecord: a repo that is no DID", s.get(s.cfg.Owner, getRecord, "space", uri, "repo", "alice.example", "collection", collection, "rkey", "whole"), 400, "InvalidRequest")
	s.refused("getRecord: needs an rkey", s.get(s.cfg.Owner, getRecord, "space", uri, "collection", collection), d.shaped, "InvalidRequest")
	s.refused("getRecord: needs a collection", s.get(s.cfg.Owner, getRecord, "space", uri, "rkey", "whole"), d.shaped, "InvalidRequest")
	s.refused("getRecord: one rkey", s.get(s.cfg.Owner, getRecord, "space", uri, "collection", collection, "rkey", "a", "rkey", "b"), 400, "InvalidRequest")
	s.same("getRecord: unknown parameters are ignored", s.get(s.cfg.Owner, getRecord, "space", uri, "collection", collection, "rkey", "whole", "x", "y").status, 200)

	bare := s.post(s.cfg.Owner, createRecord, s.write(uri, "bare", body{"text": "no $type"}))
	want := any(nil)
	if d.name == "atproto" {
		want = collection
	}
	s.same("createRecord: $type of a record without one", s.read(uri, "bare").at("value.$type"), want)
	s.answers("createRecord: a record without $type", bare, d.created)
	s.refused("createRecord: $type of another collection", s.post(s.cfg.Owner, createRecord, s.write(uri, "", body{"$type": "com.example.other"})), 400, "InvalidRequest")
}

func (s *suite) putting(d dialect, uri string) {
	first := s.post(s.cfg.Owner, putRecord, s.write(uri, "put", body{"n": 1}))
	s.answers("putRecord: creates", first, d.created)
	second := s.post(s.cfg.Owner, putRecord, s.write(uri, "put", body{"n": 2}))
	s.answers("putRecord: writes over", second, d.created)
	s.same("putRecord: the new value is there", s.read(uri, "put").at("value.n"), 2)
	if d.name == "atproto" {
		s.shaped("putRecord: shape", putRecord, second)
	}
	again := s.post(s.cfg.Owner, putRecord, s.write(uri, "put", body{"n": 2}))
	s.hold("putRecord: the same value has the same cid and a new rev", again.text("cid") == second.text("cid") && again.text("rev") > second.text("rev"), again)
	ops := s.get(s.cfg.Owner, "com.atproto.space.listRepoOps", "space", uri, "repo", string(s.owner), "since", second.text("rev"))
	last := len(ops.list("ops")) - 1
	op := body{}
	if last >= 0 {
		op, _ = ops.list("ops")[last].(map[string]any)
	}
	s.hold("putRecord: the same value makes an op whose cid is its prev", op["cid"] == second.at("cid") && op["prev"] == second.at("cid"), ops)
	bad := s.write(uri, "", body{})
	s.refused("putRecord: needs an rkey", s.post(s.cfg.Owner, putRecord, bad), d.shaped, "InvalidRequest")
}

func (s *suite) deleting(d dialect, uri string) {
	del := func(rkey string) reply {
		return s.post(s.cfg.Owner, deleteRecord, body{"space": uri, "repo": s.owner, "collection": collection, "rkey": rkey})
	}
	s.post(s.cfg.Owner, putRecord, s.write(uri, "gone", body{}))
	got := del("gone")
	s.answers("deleteRecord: status", got, 200)
	s.hold("deleteRecord: success", got.at("success") == true, got)
	s.refused("deleteRecord: it is gone", s.read(uri, "gone"), d.absent, "RecordNotFound")
	state := func() any {
		return s.get(s.cfg.Owner, "com.atproto.space.getRepoState", "space", uri, "did", string(s.owner)).at("rev")
	}
	before := state()
	if d.name == "atproto" {
		s.answers("deleteRecord: what is absent is deleted already", del("gone"), 200)
	} else {
		s.refused("deleteRecord: what is absent is not found", del("gone"), 404, "RecordNotFound")
	}
	s.same("deleteRecord: what is absent makes no rev", state(), before)
	s.answers("deleteRecord: the path is free again", s.post(s.cfg.Owner, createRecord, s.write(uri, "gone", body{})), d.created)
}

func (s *suite) swapping(d dialect, uri string) {
	made := s.post(s.cfg.Owner, putRecord, s.write(uri, "swap", body{"n": 1}))
	cid := made.text("cid")
	s.answers("swapRecord: the right cid", s.post(s.cfg.Owner, putRecord, s.write(uri, "swap", body{"n": 2}).with("swapRecord", cid)), d.created)
	s.refused("swapRecord: an old cid", s.post(s.cfg.Owner, putRecord, s.write(uri, "swap", body{"n": 3}).with("swapRecord", cid)), d.conflict, "InvalidSwap")
	s.same("swapRecord: and nothing was written", s.read(uri, "swap").at("value.n"), 2)
	s.refused("swapRecord: of an absent record", s.post(s.cfg.Owner, putRecord, s.write(uri, "none", body{}).with("swapRecord", cid)), d.absent, "RecordNotFound")
	s.refused("swapRecord: a delete with an old cid", s.post(s.cfg.Owner, deleteRecord,
		body{"space": uri, "collection": collection, "rkey": "swap", "swapRecord": cid}), d.conflict, "InvalidSwap")
	s.refused("swapRecord: what is no cid", s.post(s.cfg.Owner, putRecord, s.write(uri, "swap", body{}).with("swapRecord", "bafy")), 400, "InvalidRequest")
	s.answers("swapRecord: null is not given", s.post(s.cfg.Owner, putRecord, s.write(uri, "swap", body{}).with("swapRecord", nil)), d.created)
}

// badRecords never get in, and say which field it was.
func (s *suite) badRecords(d dialect, uri string) {
	before := s.get(s.cfg.Owner, "com.atproto.space.getRepoState", "space", uri, "did", string(s.owner)).at("rev")
	text := func(record string) string {
		return `{"space":"` + uri + `","collection":"` + collection + `","rkey":"bad","record":` + record + `}`
	}
	for what, record := range map[string]string{
		"a fraction": `{"x":1.5}`, "an exponent": `{"x":1e3}`, "an integer beyond 2^53": `{"x":9007199254740993}`,
		"a key twice": `{"x":1,"x":2}`, "a key twice, escaped": `{"x":1,"\u0078":2}`, "a lone surrogate": `{"x":"\ud800"}`,
		"a depth of 1000":     strings.Repeat(`{"x":`, 1000) + "1" + strings.Repeat("}", 1000),
		"a link that is none": `{"x":{"$link":"x"}}`, "bytes that are none": `{"x":{"$bytes":"?"}}`, "no JSON": `{`,
		"a nul in JSON": "{\"x\":\"\x00\"}", "bytes that are no UTF-8": "{\"x\":\"\xff\"}",
	} {
		s.refused("records: refuses "+what, s.post(s.cfg.Owner, createRecord, text(record)), 400, "InvalidRequest")
	}
	for what, record := range map[string]string{"a list": `[]`, "a text": `"x"`, "a number": `1`, "null": `null`} {
		s.refused("records: refuses as record "+what, s.post(s.cfg.Owner, createRecord, text(record)), d.shaped, "InvalidRequest")
	}
	for what, key := range badKeys {
		s.hold("records: refuses as rkey "+what, s.post(s.cfg.Owner, putRecord, s.write(uri, "", body{}).with("rkey", key)).status == 400, key)
	}
	for what, nsid := range map[string]string{"one segment": "note", "two segments": "example.note", "a slash": "com.example/note", "nothing": "", "a dot behind": "com.example.note."} {
		r := s.post(s.cfg.Owner, createRecord, s.write(uri, "", body{}).with("collection", nsid))
		s.refused("records: refuses as collection "+what, r, 400, "InvalidRequest")
	}
	big := s.post(s.cfg.Owner, createRecord, s.write(uri, "", body{"x": strings.Repeat("x", 1<<20)}))
	s.refused("records: at most 1 MiB", big, 413, "PayloadTooLarge")
	s.answers("records: of almost 1 MiB", s.post(s.cfg.Owner, createRecord, s.write(uri, "large", body{"x": strings.Repeat("x", 1<<20-200)})), d.created)
	s.refused("records: a body of at most 2 MiB", s.post(s.cfg.Owner, createRecord, s.write(uri, "", body{"x": strings.Repeat("x", 2<<20)})), 413, "PayloadTooLarge")
	s.post(s.cfg.Owner, deleteRecord, body{"space": uri, "collection": collection, "rkey": "large"})
	named := s.post(s.cfg.Owner, createRecord, text(`{"x":1.5}`))
	s.hold("records: the message names the field", strings.Contains(named.text("message"), "record"), named)
	s.refused("records: nothing of them is there", s.read(uri, "bad"), d.absent, "RecordNotFound")
	_ = before
}
