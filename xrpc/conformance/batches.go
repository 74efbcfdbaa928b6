package conformance

import "fmt"

const applyWrites = "com.atproto.space.applyWrites"

// op is a write of a batch in the dialect's own words.
func (d dialect) op(action, rkey string, value any) body {
	b := body{"collection": collection}
	if rkey != "" {
		b["rkey"] = rkey
	}
	if value != nil {
		b["value"] = value
	}
	if d.name == "atproto" {
		b["$type"] = applyWrites + "#" + action
	} else {
		b["action"] = action
	}
	return b
}

func (s *suite) batch(uri string, writes ...body) reply {
	if writes == nil {
		writes = []body{}
	}
	return s.post(s.cfg.Owner, applyWrites, body{"space": uri, "repo": s.owner, "writes": writes})
}

func (s *suite) head(uri string) any {
	return s.get(s.cfg.Owner, "com.atproto.space.getRepoState", "space", uri, "did", string(s.owner)).at("rev")
}

func (s *suite) batchesOf(d dialect) {
	uri := s.newSpace(d)
	empty := s.batch(uri)
	s.hold("applyWrites: nothing is fine", empty.status == 200 && len(empty.list("results")) == 0, empty)
	s.same("applyWrites: nothing makes no rev", s.head(uri), nil)
	if d.name == "atproto" {
		s.shaped("applyWrites: shape of nothing", applyWrites, empty)
	}

	three := s.batch(uri, d.op("create", "a", body{"n": 1}), d.op("create", "", body{"n": 2}), d.op("create", "c", body{"n": 3}))
	s.answers("applyWrites: status", three, 200)
	if d.name == "atproto" {
		s.shaped("applyWrites: shape", applyWrites, three)
	}
	s.same("applyWrites: results are in the order of the writes", three.at("results.2.uri"), uri+"/"+string(s.owner)+"/"+collection+"/c")
	ops := s.get(s.cfg.Owner, "com.atproto.space.listRepoOps", "space", uri, "repo", string(s.owner))
	s.same("applyWrites: one rev for a batch", []any{ops.at("ops.0.rev"), ops.at("ops.1.rev"), ops.at("ops.2.rev"), len(ops.list("ops"))},
		[]any{three.at("rev"), three.at("rev"), three.at("rev"), 3})
	s.same("applyWrites: ops are in the order of the writes", []any{ops.at("ops.0.rkey"), ops.at("ops.2.rkey")}, []any{"a", "c"})

	mixed := s.batch(uri, d.op("update", "a", body{"n": 10}), d.op("delete", "c", nil), d.op("create", "d", body{"n": 4}))
	s.hold("applyWrites: a delete's result stands in its place", mixed.status == 200 && mixed.at("results.1.uri") == nil && mixed.text("results.2.uri") != "", mixed)
	s.same("applyWrites: an update took", s.read(uri, "a").at("value.n"), 10)
	s.refused("applyWrites: a delete took", s.read(uri, "c"), d.absent, "RecordNotFound")
	chain := s.batch(uri, d.op("create", "x", body{"n": 1}), d.op("update", "x", body{"n": 2}), d.op("create", "y", body{"n": 3}), d.op("delete", "x", nil))
	s.answers("applyWrites: writes see those before them", chain, 200)
	s.refused("applyWrites: and only the survivor is left", s.read(uri, "x"), d.absent, "RecordNotFound")
	s.answers("applyWrites: the survivor", s.read(uri, "y"), 200)
	s.undone(d, uri)
	s.badBatches(d, uri)
	s.swapCommit(d, uri)
}

// undone batches leave nothing behind.
func (s *suite) undone(d dialect, uri string) {
	before := s.head(uri)
	for _, c := range []struct {
		name   string
		last   body
		status int
		err    string
	}{
		{"a create of what is there", d.op("create", "a", body{}), d.conflict, "RecordAlreadyExists"},
		{"the same create twice", d.op("create", "fresh", body{}), d.conflict, "RecordAlreadyExists"},
		{"a fraction", d.op("create", "z", body{"x": 1.5}), 400, "InvalidRequest"},
		{"a bad key", d.op("create", "a/b", body{}), 400, "InvalidRequest"},
		{"an old cid", d.op("update", "a", body{}).with("swapRecord", "bafyreidykglsfhoixmivffc5uwhcgshx4j465xwqntbmu43nb2dzqwfvae"), d.conflict, "InvalidSwap"},
		{"an unknown action", d.op("upsert", "a", body{}), d.shaped, "InvalidRequest"},
		{"no value", d.op("create", "z", nil), d.shaped, "InvalidRequest"},
		{"a list as value", d.op("create", "z", []any{}), d.shaped, "InvalidRequest"},
	} {
		r := s.batch(uri, d.op("create", "fresh", body{}), c.last)
		s.refused("applyWrites: refuses "+c.name, r, c.status, c.err)
	}
	s.refused("applyWrites: and writes nothing of it", s.read(uri, "fresh"), d.absent, "RecordNotFound")
	s.same("applyWrites: nor makes a rev", s.head(uri), before)
	absent := s.batch(uri, d.op("update", "none", body{"n": 1}))
	if d.name == "atproto" {
		s.refused("applyWrites: an update of what is absent", absent, 400, "RecordNotFound")
		s.refused("applyWrites: a delete of what is absent", s.batch(uri, d.op("delete", "never", nil)), 400, "RecordNotFound")
	} else {
		s.answers("applyWrites: an update of what is absent creates it", absent, 200)
		s.answers("applyWrites: a delete of what is absent succeeds", s.batch(uri, d.op("delete", "never", nil)), 200)
	}
}

func (s *suite) badBatches(d dialect, uri string) {
	many := make([]body, 201)
	for i := range many {
		many[i] = d.op("create", fmt.Sprint("m", i), body{})
	}
	over := s.batch(uri, many...)
	s.refused("applyWrites: at most 200", over, 400, "InvalidRequest")
	full := s.batch(uri, many[:200]...)
	s.hold("applyWrites: 200 at once", full.status == 200 && len(full.list("results")) == 200, full.status)
	s.refused("applyWrites: needs writes", s.post(s.cfg.Owner, applyWrites, body{"space": uri}), d.shaped, "InvalidRequest")
	s.refused("applyWrites: writes are a list", s.post(s.cfg.Owner, applyWrites, body{"space": uri, "writes": body{}}), d.shaped, "InvalidRequest")
	s.refused("applyWrites: of objects", s.post(s.cfg.Owner, applyWrites, body{"space": uri, "writes": []any{1}}), d.shaped, "InvalidRequest")
	s.refused("applyWrites: that say what they do", s.batch(uri, body{"collection": collection, "rkey": "a"}), d.shaped, "InvalidRequest")
	s.refused("applyWrites: into another's repo", s.post(s.cfg.Owner, applyWrites, body{"space": uri, "repo": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "writes": []body{}}), 403, "Forbidden")
}

func (s *suite) swapCommit(d dialect, uri string) {
	head := s.head(uri)
	swap := func(rev any, rkey string) reply {
		return s.post(s.cfg.Owner, applyWrites, body{"space": uri, "swapCommit": rev, "writes": []body{d.op("create", rkey, body{})}})
	}
	s.answers("swapCommit: the head", swap(head, "s1"), 200)
	s.refused("swapCommit: what was the head", swap(head, "s2"), d.conflict, "InvalidSwap")
	s.refused("swapCommit: nothing yet, but there is", swap("", "s2"), d.conflict, "InvalidSwap")
	s.refused("swapCommit: and writes nothing", s.read(uri, "s2"), d.absent, "RecordNotFound")
	s.answers("swapCommit: null is not given", swap(nil, "s3"), 200)
	fresh := s.newSpace(d)
	s.answers("swapCommit: nothing yet", s.post(s.cfg.Owner, applyWrites,
		body{"space": fresh, "swapCommit": "", "writes": []body{d.op("create", "a", body{})}}), 200)
}
