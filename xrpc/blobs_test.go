package xrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
)

func (f *fake) PutBlob(_ context.Context, mediaType string, r io.Reader) (BlobRef, error) {
	if err := f.gate(); err != nil {
		return BlobRef{}, err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return BlobRef{}, fmt.Errorf("upload: %w", err)
	}
	ref := BlobRef{space.SumRaw(b), mediaType, uint64(len(b))}
	if f.bytes == nil {
		f.bytes = map[space.CID]Blob{}
	}
	f.bytes[ref.CID] = Blob{ref, bytes.NewReader(b)}
	return ref, nil
}

func (f *fake) Blob(_ context.Context, id space.ID, author space.DID, cid space.CID) (*Blob, error) {
	s, err := f.space(id)
	if err != nil {
		return nil, err
	}
	for did, r := range s.repos {
		for _, rec := range r.records {
			b, ok := f.bytes[cid]
			if ok && (author == "" || did == author) && slices.Contains(rec.Value.Blobs(), cid) {
				return &b, nil
			}
		}
	}
	return nil, fmt.Errorf("blob: %w", ErrBlobNotFound)
}

func (f *fake) ListBlobs(_ context.Context, id space.ID, author space.DID, q BlobQuery) ([]space.CID, error) {
	s, err := f.space(id)
	if err != nil || s.repos[author] == nil {
		return nil, err
	}
	var all []space.CID
	for _, rec := range s.repos[author].records {
		for _, cid := range rec.Value.Blobs() {
			if cid.String() > q.After && rec.Rev > q.Since {
				all = append(all, cid)
			}
		}
	}
	slices.SortFunc(all, func(a, b space.CID) int { return strings.Compare(a.String(), b.String()) })
	return all[:min(len(all), q.Limit)], nil
}

// upload sends bytes to uploadBlob.
func upload(s *Server, kind string, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequest(post, "http://localhost/xrpc/com.atproto.repo.uploadBlob", body)
	r.Header.Set("Authorization", "Bearer "+apiToken)
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// withBlob is a server with one blob in a record of the owner's.
func withBlob(t *testing.T, kind, content string) (*fake, *Server, BlobRef) {
	f := seeded(t)
	s := newServer(f)
	w := upload(s, kind, strings.NewReader(content))
	var out uploadAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	ref := BlobRef{out.Blob.Ref.Link, out.Blob.MimeType, out.Blob.Size}
	f.put(owner, "com.example.note/pic", `{"$type":"com.example.note","pic":`+string(ref.JSON())+`}`)
	return f, s, ref
}

func TestUploadBlob(t *testing.T) {
	_, s, ref := withBlob(t, "text/plain; charset=utf-8", "hello")
	if ref.CID != space.SumRaw([]byte("hello")) || ref.Size != 5 || ref.Type != "text/plain; charset=utf-8" {
		t.Errorf("%+v", ref)
	}
	for kind, code := range map[string]int{"": 415, "*/*": 415, "image": 415, "image/*": 415, "text/plain; a=\x01": 415, "text/" + strings.Repeat("x", 200): 415, "image/png": 200} {
		if w := upload(s, kind, strings.NewReader("x")); w.Code != code {
			t.Errorf("%q: %d %s", kind, w.Code, w.Body)
		}
	}
	r := httptest.NewRequest(post, "http://localhost/xrpc/com.atproto.repo.uploadBlob", strings.NewReader("x"))
	r.Header = http.Header{"Authorization": {"Bearer " + apiToken}, "Content-Type": {"image/png"}, "Content-Encoding": {"gzip"}}
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != 415 {
		t.Errorf("packed: %d", w.Code)
	}
	r.Header.Del("Content-Encoding")
	r.ContentLength = space.MaxBlob + 1
	w = httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != 413 {
		t.Errorf("too large: %d", w.Code)
	}
	if w := upload(s, "image/png", io.MultiReader(strings.NewReader("x"), brokenReader{})); w.Code != 400 {
		t.Errorf("broken: %d %s", w.Code, w.Body)
	}
}

// To upload takes the owner and the scope to write, no more: what else a
// token is for says nothing of it.
func TestUploadScope(t *testing.T) {
	f := crowded(t)
	s := newServer(f)
	for _, c := range []struct {
		who   space.DID
		scope string
		code  int
	}{
		{owner, "write", 200}, {owner, "manage", 200}, {owner, "read node", 403}, {owner, "read_self", 403},
		{other, "write", 403}, {readerDID, "read", 403}, {stranger, "write", 403},
	} {
		r := httptest.NewRequest(post, "http://localhost/xrpc/com.atproto.repo.uploadBlob", strings.NewReader("x"))
		r.Header = http.Header{"Authorization": {"Bearer " + f.issue(c.who, c.scope)}, "Content-Type": {"image/png"}}
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != c.code || c.code == 403 && !strings.Contains(w.Body.String(), "Forbidden") {
			t.Errorf("%s with %s: %d %s", c.who, c.scope, w.Code, w.Body)
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestGetBlob(t *testing.T) {
	f, s, ref := withBlob(t, "text/html", "<script>alert(1)</script>")
	in := "space=" + home.AT() + "&repo=" + string(owner) + "&cid=" + ref.CID.String()
	w := ask(s, get, "com.atproto.space.getBlob", in)
	if w.Code != 200 || w.Body.String() != "<script>alert(1)</script>" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/html", "Content-Length": "25", "X-Content-Type-Options": "nosniff",
		"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, no-cache",
		"Content-Disposition": `attachment; filename="` + ref.CID.String() + `"`, "ETag": `"` + ref.CID.String() + `"`,
	} {
		if have := w.Header().Get(name); have != want {
			t.Errorf("%s: %q, want %q", name, have, want)
		}
	}
	// HappyView's clients do not say whose it is.
	if w := ask(s, get, "dev.happyview.space.getBlob", "space="+home.String()+"&cid="+ref.CID.String()); w.Code != 200 {
		t.Errorf("without repo: %d %s", w.Code, w.Body)
	}
	delete(f.spaces[home].repos[owner].records, space.Path{Collection: notes, Key: "pic"})
	if w := ask(s, get, "com.atproto.space.getBlob", in); w.Code != 400 || errorName(t, w) != "BlobNotFound" {
		t.Errorf("without a record: %d %s", w.Code, w.Body)
	}
	for in, name := range map[string]string{
		"space=" + home.AT() + "&repo=" + string(owner):                                               "InvalidRequest",
		"space=" + home.AT() + "&cid=nonsense":                                                        "InvalidRequest",
		"space=at://did:plc:nobody/space/com.example.notes/none&cid=" + ref.CID.String():              "SpaceNotFound",
		"space=" + home.AT() + "&cid=" + ref.CID.String() + "&cid=" + ref.CID.String():                "InvalidRequest",
		"space=" + home.AT() + "&cid=" + space.SumRaw([]byte("guessed")).String():                     "BlobNotFound",
		"space=" + home.AT() + "&repo=" + string(other) + "&cid=" + ref.CID.String():                  "BlobNotFound",
		"space=" + home.AT() + "&repo=did:plc:silent&cid=" + ref.CID.String():                         "BlobNotFound",
		"space=" + home.AT() + "&repo=" + string(owner) + "&cid=" + strings.ToUpper(ref.CID.String()): "InvalidRequest",
	} {
		if w := ask(s, get, "com.atproto.space.getBlob", in); w.Code != 400 || errorName(t, w) != name {
			t.Errorf("%s: %d %s, want %s", in, w.Code, w.Body, name)
		}
	}
}

// B7: one range is served as it is, and nothing else is a range.
func TestB7(t *testing.T) {
	content := strings.Repeat("0123456789", 100)
	_, s, ref := withBlob(t, "text/plain", content)
	in := "space=" + home.AT() + "&cid=" + ref.CID.String()
	ranged := func(verb string, h http.Header) *httptest.ResponseRecorder {
		r := httptest.NewRequest(verb, "http://localhost/xrpc/com.atproto.space.getBlob?"+in, nil)
		r.Header = h
		r.Header.Set("Authorization", "Bearer "+apiToken)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w
	}
	for spec, want := range map[string]string{
		"bytes=0-0": "0", "bytes=990-": "0123456789", "bytes=-3": "789", "bytes=5-14": "5678901234",
		"bytes=995-5000": "56789", "bytes=-5000": content, "bytes=0-": content,
	} {
		w := ranged(get, http.Header{"Range": {spec}})
		code := 206
		if want == content {
			code = 200
		}
		if w.Code != code || w.Body.String() != want || (w.Header().Get("Content-Range") == "") != (code == 200) {
			t.Errorf("%s: %d %q %q", spec, w.Code, w.Body, w.Header().Get("Content-Range"))
		}
	}
	if w := ranged(get, http.Header{"Range": {"bytes=5-14"}}); w.Header().Get("Content-Range") != "bytes 5-14/1000" || w.Header().Get("Content-Length") != "10" {
		t.Errorf("%v", w.Header())
	}
	many := "bytes=" + strings.Repeat("0-999,", 9999) + "0-999"
	for _, spec := range []string{"bytes=1000-", "bytes=1000-2000", "bytes=5-4", "bytes=-0", "bytes=-", "bytes=", "bytes=a-b", "bytes=0-0,5-6", "bytes=0-10,5-15", "bytes=-1-5", "bytes=99999999999999999999-", many} {
		w := ranged(get, http.Header{"Range": {spec}})
		if w.Code != 416 || errorName(t, w) != "RangeNotSatisfiable" || w.Header().Get("Content-Range") != "bytes */1000" {
			t.Errorf("%s: %d %s", clip(spec), w.Code, w.Body)
		}
	}
	if w := ranged(get, http.Header{"Range": {"bytes=0-1", "bytes=2-3"}}); w.Code != 416 {
		t.Errorf("two headers: %d", w.Code)
	}
	etag := `"` + ref.CID.String() + `"`
	for name, c := range map[string]struct {
		h    http.Header
		code int
		body string
	}{
		"another unit":     {http.Header{"Range": {"lines=1-2"}}, 200, content},
		"if the same":      {http.Header{"Range": {"bytes=0-1"}, "If-Range": {etag}}, 206, "01"},
		"if another":       {http.Header{"Range": {"bytes=0-1"}, "If-Range": {`"other"`}}, 200, content},
		"known already":    {http.Header{"If-None-Match": {etag}}, 304, ""},
		"known in part":    {http.Header{"If-None-Match": {etag}, "Range": {"bytes=0-1"}}, 304, ""},
		"another is known": {http.Header{"If-None-Match": {`"other"`}}, 200, content},
	} {
		if w := ranged(get, c.h); w.Code != c.code || w.Body.String() != c.body {
			t.Errorf("%s: %d, %d bytes", name, w.Code, w.Body.Len())
		}
	}
	if w := ranged(http.MethodHead, http.Header{}); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "1000" {
		t.Errorf("HEAD: %d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
}

func TestListBlobs(t *testing.T) {
	f, s, first := withBlob(t, "text/plain", "one")
	mid := f.spaces[home].repos[owner].repo.Rev()
	w := upload(s, "text/plain", strings.NewReader("two"))
	var out uploadAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	second := BlobRef{out.Blob.Ref.Link, out.Blob.MimeType, out.Blob.Size}
	f.put(owner, "com.example.note/pic2", `{"$type":"com.example.note","pic":`+string(second.JSON())+`}`)
	srv := httptest.NewServer(s)
	defer srv.Close()
	api := &Client{Base: srv.URL, Token: apiToken}
	var all []space.CID
	for after := ""; ; after = all[len(all)-1].String() {
		page, err := api.ListBlobs(t.Context(), home, owner, BlobQuery{Limit: 1, After: after})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
	}
	want := []space.CID{first.CID, second.CID}
	slices.SortFunc(want, func(a, b space.CID) int { return strings.Compare(a.String(), b.String()) })
	if !slices.Equal(all, want) {
		t.Errorf("%v, want %v", all, want)
	}
	if since, err := api.ListBlobs(t.Context(), home, owner, BlobQuery{Limit: 10, Since: mid}); err != nil || !slices.Equal(since, []space.CID{second.CID}) {
		t.Errorf("since: %v, %v", since, err)
	}
	if none, err := api.ListBlobs(t.Context(), home, "did:plc:silent", BlobQuery{Limit: 10}); err != nil || len(none) > 0 {
		t.Errorf("of nobody: %v, %v", none, err)
	}
	if _, err := api.ListBlobs(t.Context(), home, owner, BlobQuery{Limit: 10, After: "x"}); !errors.Is(err, ErrCursor) {
		t.Errorf("forged cursor: %v", err)
	}
}
