package conformance

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/car"
	"github.com/kithnet/kith/sync/lthash"
)

const (
	listRecords = "com.atproto.space.listRecords"
	listRepoOps = "com.atproto.space.listRepoOps"
	repoState   = "com.atproto.space.getRepoState"
)

func (s *suite) listingsOf(d dialect) {
	uri := s.newSpace(d)
	none := s.get(s.cfg.Owner, listRecords, "space", uri, "repo", string(s.owner))
	s.hold("listRecords: of a repo never written", none.status == 200 && len(none.list("records")) == 0 && none.at("cursor") == nil, none)
	for i := range 7 {
		s.post(s.cfg.Owner, putRecord, s.write(uri, fmt.Sprint("k", i), body{"n": i}))
	}
	s.post(s.cfg.Owner, putRecord, s.write(uri, "k3", body{"n": 33}).with("collection", "com.example.conformance.a"))
	all := s.get(s.cfg.Owner, listRecords, "space", uri, "repo", string(s.owner))
	s.answers("listRecords: status", all, 200)
	s.shaped("listRecords: shape", listRecords, all)
	keys := keysOf(all)
	s.same("listRecords: all of them", len(keys), 8)
	up := slices.Sorted(slices.Values(keys))
	down := slices.Clone(up)
	slices.Reverse(down)
	first, second := up, down
	if d.name == "atproto" {
		first, second = down, up
	}
	s.same("listRecords: order", keys, first)
	s.same("listRecords: reverse", keysOf(s.get(s.cfg.Owner, listRecords, "space", uri, "reverse", "true")), second)
	s.same("listRecords: reverse=false is the order", keysOf(s.get(s.cfg.Owner, listRecords, "space", uri, "reverse", "false")), first)
	for _, limit := range []string{"1", "3", "8"} {
		s.same("listRecords: pages of "+limit, s.pages(uri, "limit", limit), first)
		s.same("listRecords: pages backwards of "+limit, s.pages(uri, "limit", limit, "reverse", "true"), second)
	}
	s.hold("listRecords: with values", all.at("records.0.value") != nil, all)
	bare := s.get(s.cfg.Owner, listRecords, "space", uri, "excludeValues", "true")
	s.hold("listRecords: without values", bare.at("records.0.value") == nil && bare.text("records.0.cid") != "", bare)
	s.same("listRecords: names author and uri", []any{all.at("records.0.did"), strings.HasPrefix(all.text("records.0.uri"), uri+"/"+string(s.owner)+"/")}, []any{s.owner, true})
	s.same("listRecords: one collection", len(keysOf(s.get(s.cfg.Owner, listRecords, "space", uri, "collection", "com.example.conformance.a"))), 1)
	s.same("listRecords: a collection that is the beginning of others", len(keysOf(s.get(s.cfg.Owner, listRecords, "space", uri, "collection", "com.example.conformance"))), 0)
	s.same("listRecords: of another space", len(keysOf(s.get(s.cfg.Owner, listRecords, "space", s.newSpace(d)))), 0)
	s.refused("listRecords: of no space", s.get(s.cfg.Owner, listRecords, "space", uri+"x"), d.absent, "SpaceNotFound")
	for what, bad := range map[string]string{"0": "0", "below 0": "-1", "no number": "x"} {
		s.refused("listRecords: refuses the limit "+what, s.get(s.cfg.Owner, listRecords, "space", uri, "limit", bad), 400, "InvalidRequest")
	}
	over := s.get(s.cfg.Owner, listRecords, "space", uri, "limit", "1001")
	if d.name == "atproto" {
		s.refused("listRecords: a limit over the most", over, 400, "InvalidRequest")
	} else {
		s.answers("listRecords: a limit over the most is the most", over, 200)
	}
	for what, bad := range map[string]string{"forged": "AAAA", "no base64": "???", "huge": strings.Repeat("A", 9000)} {
		s.refused("listRecords: refuses a cursor that is "+what, s.get(s.cfg.Owner, listRecords, "space", uri, "cursor", bad), 400, "InvalidCursor")
	}
	s.refused("listRecords: refuses reverse=1", s.get(s.cfg.Owner, listRecords, "space", uri, "reverse", "1"), 400, "InvalidRequest")
	s.refused("listRecords: refuses limit twice", s.get(s.cfg.Owner, listRecords, "space", uri, "limit", "1", "limit", "2"), 400, "InvalidRequest")
	s.refused("listRecords: refuses a collection that is none", s.get(s.cfg.Owner, listRecords, "space", uri, "collection", "note"), 400, "InvalidRequest")
}

func keysOf(r reply) []string {
	keys := []string{}
	for _, row := range r.list("records") {
		keys = append(keys, walkText(row, "collection")+"/"+walkText(row, "rkey"))
	}
	return keys
}

// pages follows cursors to the end.
func (s *suite) pages(uri string, args ...string) []string {
	keys, cursor := []string{}, ""
	for range 100 {
		in := append([]string{"space", uri}, args...)
		if cursor != "" {
			in = append(in, "cursor", cursor)
		}
		p := s.get(s.cfg.Owner, listRecords, in...)
		keys = append(keys, keysOf(p)...)
		if cursor = p.text("cursor"); cursor == "" {
			break
		}
	}
	return keys
}

func (s *suite) historyOf(d dialect) {
	uri := s.newSpace(d)
	none := s.get(s.cfg.Owner, listRepoOps, "space", uri, "repo", string(s.owner))
	s.hold("listRepoOps: of a repo never written", none.status == 200 && len(none.list("ops")) == 0 && none.at("commit") == nil && none.at("cursor") == nil, none)
	state := s.get(s.cfg.Owner, repoState, "space", uri, "did", string(s.owner))
	s.hold("getRepoState: of a repo never written", state.status == 200 && state.at("rev") == nil && state.at("commit") == nil, state)
	s.refused("getLatestCommit: of a repo never written", s.get(s.cfg.Owner, "com.atproto.space.getLatestCommit", "space", uri, "repo", string(s.owner)), d.absent, "RepoNotFound")

	s.batch(uri, d.op("create", "a", body{"n": 1}), d.op("create", "b", body{"n": 1}), d.op("create", "c", body{"n": 1}))
	mid := s.post(s.cfg.Owner, putRecord, s.write(uri, "a", body{"n": 2})).text("rev")
	s.post(s.cfg.Owner, deleteRecord, body{"space": uri, "collection": collection, "rkey": "b"})
	s.post(s.cfg.Owner, putRecord, s.write(uri, "a", body{"n": 1}))

	all := s.get(s.cfg.Owner, listRepoOps, "space", uri, "repo", string(s.owner))
	s.answers("listRepoOps: status", all, 200)
	if d.name == "atproto" {
		s.shaped("listRepoOps: shape", listRepoOps, all)
	}
	s.same("listRepoOps: every op", opsOf(all), []string{"+a", "+b", "+c", "*a", "-b", "*a"})
	revs := []string{}
	for _, op := range all.list("ops") {
		revs = append(revs, walkText(op, "rev"))
	}
	s.hold("listRepoOps: revs rise", slices.IsSorted(revs), revs)
	s.hold("listRepoOps: a value that is not there any more is left out", all.at("ops.3.value") == nil && all.at("ops.1.value") == nil, all)
	s.hold("listRepoOps: one that is again stands at both", all.at("ops.0.value") != nil && all.at("ops.5.value") != nil, all)
	s.hold("listRepoOps: a delete has no cid and a prev", all.at("ops.4.cid") == nil && all.text("ops.4.prev") != "", all)
	s.hold("listRepoOps: commit at the head", all.at("commit") != nil && all.at("cursor") == nil, all)
	bare := s.get(s.cfg.Owner, listRepoOps, "space", uri, "excludeValues", "true")
	s.hold("listRepoOps: without values", bare.at("ops.5.value") == nil && bare.text("ops.5.cid") != "", bare)
	s.same("listRepoOps: since", opsOf(s.get(s.cfg.Owner, listRepoOps, "space", uri, "since", mid)), []string{"-b", "*a"})
	future := s.get(s.cfg.Owner, listRepoOps, "space", uri, "since", "jzzzzzzzzzzzz")
	s.hold("listRepoOps: since the future", future.status == 200 && len(future.list("ops")) == 0 && future.at("commit") != nil, future)
	s.oldest(uri, all)
	s.cursors(d, uri, opsOf(all))
	s.states(d, uri, all)
}

// oldest asks for ops from before there were any: whatever a node has dropped,
// that is no error, and ops that do not lead to the commit say so.
func (s *suite) oldest(uri string, all reply) {
	first := s.get(s.cfg.Owner, listRepoOps, "space", uri, "since", "2222222222223")
	s.hold("listRepoOps: since before the first is no error", first.status == 200 && first.at("commit") != nil, first)
	var sum lthash.State
	for _, op := range all.list("ops") {
		element := walkText(op, "collection") + "/" + walkText(op, "rkey") + "/"
		if prev := walkText(op, "prev"); prev != "" {
			sum.Remove([]byte(element + prev))
		}
		if cid := walkText(op, "cid"); cid != "" {
			sum.Add([]byte(element + cid))
		}
	}
	digest := sum.Sum()
	whole := slices.Equal(bytesAt(all, "commit.hash"), digest[:])
	s.hold("listRepoOps: the ops lead to the commit, or say that some are gone", whole != (all.at("pruned") == true), all)
	s.same("listRepoOps: nothing is gone of a repo this young", all.at("pruned"), nil)
	body := s.get(s.cfg.Owner, "com.atproto.space.getRepo", "space", uri, "repo", string(s.owner))
	id, err := space.ParseID(uri)
	if err != nil {
		s.stop("%v", err)
	}
	d, err := car.NewReader(bytes.NewReader(body.raw), car.Repo{Space: id, Author: s.owner})
	for err == nil {
		_, _, err = d.Next()
	}
	s.hold("getRepo: hangs together", err == io.EOF, err)
	s.hold("getRepo: is the repo that the ops make", err == io.EOF && d.State.Sum() == digest, "another one")
}

// opsOf are ops in short: +created, *updated, -deleted.
func opsOf(r reply) []string {
	out := []string{}
	for _, op := range r.list("ops") {
		sign := "*"
		switch {
		case walk(op, "cid") == nil:
			sign = "-"
		case walk(op, "prev") == nil:
			sign = "+"
		}
		out = append(out, sign+walkText(op, "rkey"))
	}
	return out
}

func (s *suite) cursors(d dialect, uri string, want []string) {
	for _, limit := range []string{"1", "2", "6"} {
		got, cursor, early := []string{}, "", false
		for range 20 {
			in := []string{"space", uri, "limit", limit}
			if cursor != "" {
				in = append(in, "cursor", cursor)
			}
			p := s.get(s.cfg.Owner, listRepoOps, in...)
			got = append(got, opsOf(p)...)
			cursor = p.text("cursor")
			early = early || cursor != "" && p.at("commit") != nil
			if cursor == "" {
				break
			}
		}
		s.same("listRepoOps: pages of "+limit+" lose nothing", got, want)
		s.hold("listRepoOps: pages of "+limit+" have a cursor or the commit", !early, "both")
	}
	for what, bad := range map[string]string{"no rev": "x", "a path": "a/b", "a negative index": "3jzfcijpj2z2a/-1", "text behind": "3jzfcijpj2z2a/0x", "no rev before": "/5"} {
		r := s.get(s.cfg.Owner, listRepoOps, "space", uri, "cursor", bad)
		s.hold("listRepoOps: refuses a cursor of "+what, r.status == 400 && strings.HasSuffix(r.text("error"), "Cursor"), r)
	}
	s.refused("listRepoOps: refuses a since that is no TID", s.get(s.cfg.Owner, listRepoOps, "space", uri, "since", "yesterday"), 400, "InvalidRequest")
}

// states hold the head of the repo against its records.
func (s *suite) states(d dialect, uri string, ops reply) {
	st := s.get(s.cfg.Owner, repoState, "space", uri, "did", string(s.owner))
	s.same("getRepoState: rev is the last op's", st.at("rev"), ops.at("ops.5.rev"))
	s.same("getRepoState: count", st.at("count"), 2)
	var sum lthash.State
	records := s.get(s.cfg.Owner, listRecords, "space", uri)
	for _, row := range records.list("records") {
		sum.Add([]byte(walkText(row, "collection") + "/" + walkText(row, "rkey") + "/" + walkText(row, "cid")))
	}
	raw, err := base64.StdEncoding.DecodeString(st.text("state"))
	want, _ := sum.AppendBinary(nil)
	s.hold("getRepoState: state is the set hash of the records", err == nil && slices.Equal(raw, want), st.text("state")[:min(40, len(st.text("state")))])
	digest := sha256.Sum256(want)
	s.same("getRepoState: hash is the digest of the state", bytesAt(st, "hash"), digest[:])
	s.same("getRepoState: the commit's hash is it too", bytesAt(st, "commit.hash"), digest[:])
	s.same("getRepoState: the commit's rev is the head", st.at("commit.rev"), st.at("rev"))
	for field, size := range map[string]int{"ikm": 32, "mac": 32, "sig": 64} {
		s.same("getRepoState: length of "+field, len(bytesAt(st, "commit."+field)), size)
	}
	s.same("getRepoState: ver", st.at("commit.ver"), 1)
	const latest = "com.atproto.space.getLatestCommit"
	one, two := s.get(s.cfg.Owner, latest, "space", uri, "repo", string(s.owner)), s.get(s.cfg.Owner, latest, "space", uri, "repo", string(s.owner))
	if d.name == "atproto" {
		s.shaped("getLatestCommit: shape", latest, one)
	}
	s.same("getLatestCommit: hash", bytesAt(one, "commit.hash"), digest[:])
	s.hold("getLatestCommit: fresh for every read", one.status == 200 && !slices.Equal(bytesAt(one, "commit.ikm"), bytesAt(two, "commit.ikm")), one)
	car := s.get(s.cfg.Owner, "com.atproto.space.getRepo", "space", uri, "repo", string(s.owner))
	s.hold("getRepo: a CAR", car.status == 200 && car.header.Get("Content-Type") == "application/vnd.ipld.car" && len(car.raw) > 200, car.header)
	repos := s.get(s.cfg.Owner, "com.atproto.space.listRepos", "space", uri)
	s.hold("listRepos: who has written", repos.status == 200 && len(repos.list("repos")) == 1 && repos.at("repos.0.did") == string(s.owner) && repos.at("repos.0.rev") == st.at("rev"), repos)
	if d.name == "atproto" {
		s.shaped("listRepos: shape", "com.atproto.space.listRepos", repos)
	}
}

// bytesAt reads bytes in either dialect's form.
func bytesAt(r reply, path string) []byte {
	if text, ok := r.at(path + ".$bytes").(string); ok {
		b, _ := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
		return b
	}
	b, _ := base64.RawURLEncoding.DecodeString(r.text(path))
	return b
}
