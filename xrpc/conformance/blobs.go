package conformance

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kithnet/kith/space"
)

const (
	uploadBlob = "com.atproto.repo.uploadBlob"
	getBlob    = "com.atproto.space.getBlob"
	listBlobs  = "com.atproto.space.listBlobs"
)

// upload sends bytes as they are.
func (s *suite) upload(token, kind string, content []byte) reply {
	h := http.Header{}
	if kind != "" {
		h.Set("Content-Type", kind)
	}
	return s.send(token, http.MethodPost, "/xrpc/"+uploadBlob, content, h)
}

// blob asks for one with headers of its own.
func (s *suite) blob(verb, uri, cid string, h http.Header) reply {
	q := url.Values{"space": {uri}, "repo": {string(s.owner)}, "cid": {cid}}
	return s.send(s.cfg.Owner, verb, "/xrpc/"+getBlob+"?"+q.Encode(), nil, h)
}

func (s *suite) blobsOf(d dialect) {
	uri := s.newSpace(d)
	content := []byte("<script>alert('" + draw() + "')</script>" + strings.Repeat(".", 1000))
	made := s.upload(s.cfg.Owner, "text/html", content)
	s.answers("uploadBlob: status", made, 200)
	s.shaped("uploadBlob: shape", uploadBlob, made)
	cid := made.text("blob.ref.$link")
	s.same("uploadBlob: names the bytes by their CID", cid, space.SumRaw(content).String())
	s.same("uploadBlob: type and size", []any{made.at("blob.mimeType"), made.at("blob.size")}, []any{"text/html", len(content)})
	s.same("uploadBlob: the same again is the same", s.upload(s.cfg.Owner, "text/html", content).at("blob.ref"), made.at("blob.ref"))
	for _, kind := range []string{"", "image", "image/*"} {
		r := s.upload(s.cfg.Owner, kind, content)
		s.hold("uploadBlob: refuses the type "+strconv.Quote(kind), r.status == 415 || r.status == 400, r)
	}
	s.refused("uploadBlob: no token", s.upload("", "text/html", content), 401, "AuthenticationRequired")
	s.refused("getBlob: nothing refers to it yet", s.blob(http.MethodGet, uri, cid, nil), d.absent, "BlobNotFound")

	first := s.post(s.cfg.Owner, createRecord, s.write(uri, "pic", body{"picture": made.at("blob")}))
	s.answers("getBlob: a record refers to it", first, d.created)
	s.getsBlob(uri, cid, content)
	s.refused("getBlob: of another space", s.blob(http.MethodGet, s.newSpace(d), cid, nil), d.absent, "BlobNotFound")
	s.refused("getBlob: a CID that is none", s.blob(http.MethodGet, uri, "bafkrei", nil), 400, "InvalidRequest")
	s.refused("getBlob: a CID that was guessed", s.blob(http.MethodGet, uri, space.SumRaw([]byte(draw())).String(), nil), d.absent, "BlobNotFound")
	absent := body{"$type": "blob", "ref": body{"$link": space.SumRaw([]byte(draw())).String()}, "mimeType": "image/png", "size": 3}
	lost := s.post(s.cfg.Owner, createRecord, s.write(uri, "lost", body{"picture": absent}))
	s.refused("getBlob: a record of a blob that was never uploaded", lost, d.absent, "BlobNotFound")
	s.refused("getBlob: and it is not written", s.read(uri, "lost"), d.absent, "RecordNotFound")
	s.listsBlobs(d, uri, cid, first.text("rev"))

	s.post(s.cfg.Owner, deleteRecord, body{"space": uri, "collection": collection, "rkey": "pic"})
	s.refused("getBlob: its record was deleted", s.blob(http.MethodGet, uri, cid, nil), d.absent, "BlobNotFound")
	s.hold("listBlobs: its record was deleted", !slices.Contains(s.cids(uri), cid), s.cids(uri))
}

func (s *suite) getsBlob(uri, cid string, content []byte) {
	whole := s.blob(http.MethodGet, uri, cid, nil)
	s.hold("getBlob: the bytes", whole.status == 200 && bytes.Equal(whole.raw, content), whole)
	for name, want := range map[string]string{
		"Content-Type": "text/html", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox",
		"Content-Disposition": `attachment; filename="` + cid + `"`, "Content-Length": strconv.Itoa(len(content)),
	} {
		s.same("getBlob: "+name, whole.header.Get(name), want)
	}
	s.hold("getBlob: private", strings.HasPrefix(whole.header.Get("Cache-Control"), "private"), whole.header)
	head := s.blob(http.MethodHead, uri, cid, nil)
	s.hold("getBlob: HEAD", head.status == 200 && len(head.raw) == 0 && head.header.Get("Content-Length") == strconv.Itoa(len(content)), head.header)
	again := s.blob(http.MethodGet, uri, cid, http.Header{"If-None-Match": {whole.header.Get("ETag")}})
	s.hold("getBlob: not twice to who has it", again.status == 304 && len(again.raw) == 0, again)
	n := len(content)
	for given, want := range map[string][]byte{
		"bytes=0-9": content[:10], "bytes=10-": content[10:], "bytes=-5": content[n-5:], "bytes=1000-99999999": content[1000:],
	} {
		r := s.blob(http.MethodGet, uri, cid, http.Header{"Range": {given}})
		s.hold("getBlob: "+given, r.status == 206 && bytes.Equal(r.raw, want) && strings.HasSuffix(r.header.Get("Content-Range"), "/"+strconv.Itoa(n)), r)
	}
	for what, bad := range map[string]string{"beyond the end": "bytes=99999999-", "of two": "bytes=0-1,5-9", "of ten thousand": "bytes=" + strings.Repeat("0-0,", 9999) + "0-0"} {
		r := s.blob(http.MethodGet, uri, cid, http.Header{"Range": {bad}})
		s.hold("getBlob: a range "+what, r.status == 416, r)
	}
}

func (s *suite) listsBlobs(d dialect, uri, cid, rev string) {
	other := s.upload(s.cfg.Owner, "image/png", []byte(draw()))
	s.post(s.cfg.Owner, createRecord, s.write(uri, "two", body{"picture": other.at("blob"), "again": other.at("blob")}))
	all := s.get(s.cfg.Owner, listBlobs, "space", uri, "repo", string(s.owner))
	s.shaped("listBlobs: shape", listBlobs, all)
	want := []string{cid, other.text("blob.ref.$link")}
	slices.Sort(want)
	s.same("listBlobs: all, ascending, each once", all.at("cids"), want)
	s.same("listBlobs: pages of one", s.cids(uri, "limit", "1"), want)
	s.same("listBlobs: since the first record", s.cids(uri, "since", rev), want[slices.Index(want, other.text("blob.ref.$link")):][:1])
	s.same("listBlobs: of a repo never written", len(s.get(s.cfg.Owner, listBlobs, "space", s.newSpace(d), "repo", string(s.owner)).list("cids")), 0)
	s.refused("listBlobs: of no space", s.get(s.cfg.Owner, listBlobs, "space", uri+"x", "repo", string(s.owner)), d.absent, "SpaceNotFound")
	s.refused("listBlobs: refuses the limit 0", s.get(s.cfg.Owner, listBlobs, "space", uri, "limit", "0"), 400, "InvalidRequest")
}

// cids are the blobs of the owner in a space, page by page.
func (s *suite) cids(uri string, args ...string) []string {
	all, cursor := []string{}, ""
	for range 100 {
		in := append([]string{"space", uri, "repo", string(s.owner)}, args...)
		if cursor != "" {
			in = append(in, "cursor", cursor)
		}
		p := s.get(s.cfg.Owner, listBlobs, in...)
		for _, cid := range p.list("cids") {
			text, _ := cid.(string)
			all = append(all, text)
		}
		if cursor = p.text("cursor"); cursor == "" {
			break
		}
	}
	return all
}
