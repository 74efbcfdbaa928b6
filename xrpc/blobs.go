package xrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kithnet/kith/space"
)

// ErrBlobNotFound: no live record of the space refers to the blob.
var ErrBlobNotFound = errors.New("blob not found")

// errRange: a range that the blob does not have, or more than one.
var errRange = errors.New("range not satisfiable")

// Blobs keeps the bytes that records refer to by their CIDs.
type Blobs interface {
	// PutBlob reads a blob to its end and keeps it a while, for records to
	// refer to: space.ErrTooLarge over a cap or quota, space.ErrNoSpaceLeft. An
	// error of r leaves nothing behind.
	PutBlob(ctx context.Context, mediaType string, r io.Reader) (BlobRef, error)
	// Blob opens a blob that a live record of the author in the space refers
	// to, whoever's if author is "": else ErrBlobNotFound. Where other nodes
	// have it and none answers, space.ErrUnavailable.
	Blob(ctx context.Context, id space.ID, author space.DID, cid space.CID) (*Blob, error)
	// ListBlobs lists those of one author, ascending by the CIDs' text.
	ListBlobs(ctx context.Context, id space.ID, author space.DID, q BlobQuery) ([]space.CID, error)
}

func hasBlobs(s *Server) bool { return s.Blobs != nil }

// BlobRef is what records say of a blob.
type BlobRef struct {
	CID  space.CID // of raw bytes
	Type string    // media type
	Size uint64
}

// Blob is an open blob. Content gives nothing that was not checked.
type Blob struct {
	BlobRef
	Content io.ReadSeeker
}

// BlobQuery selects blobs. Limit is 1 to 1,000.
type BlobQuery struct {
	Since space.TID // only those of records written after it
	After string    // a CID's text
	Limit int
}

// blobObject is a blob in a record.
type blobObject struct {
	Type     string   `json:"$type"` // "blob"
	Ref      linkText `json:"ref"`
	MimeType string   `json:"mimeType"`
	Size     uint64   `json:"size"`
}

type linkText struct {
	Link space.CID `json:"$link"`
}

type uploadAnswer struct {
	Blob blobObject `json:"blob"`
}

// uploadBlob takes any bytes. What they are is what the Content-Type says.
func uploadBlob(c *call) (any, error) {
	h := c.r.Header
	if e := h.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, faultf(errMedia, "content-encoding: send the bytes as they are")
	}
	kind := h.Get("Content-Type")
	if _, _, err := mime.ParseMediaType(kind); err != nil || strings.ContainsAny(kind, "*") || space.CheckMediaType(kind) != nil {
		return nil, faultf(errMedia, "content-type: say what the bytes are, such as image/png")
	}
	if n := c.r.ContentLength; n > space.MaxBlob {
		return nil, faultf(space.ErrTooLarge, "body: a blob has at most %d bytes", space.MaxBlob)
	}
	ref, err := c.s.Blobs.PutBlob(c.ctx(), kind, &patientReader{r: c.r.Body, rc: http.NewResponseController(c.w)})
	if broken, ok := errors.AsType[*brokenBody](err); ok {
		return nil, bodyError(broken.err)
	}
	if err != nil {
		return nil, err
	}
	return uploadAnswer{blobObject{"blob", linkText{ref.CID}, ref.Type, ref.Size}}, nil
}

// brokenBody is an error of a request's body.
type brokenBody struct{ err error }

func (e *brokenBody) Error() string { return "body: " + e.err.Error() }

// patientReader gives a body more time for each piece that comes.
type patientReader struct {
	r    io.Reader
	rc   *http.ResponseController
	last time.Time
}

func (p *patientReader) Read(b []byte) (int, error) {
	if now := time.Now(); now.Sub(p.last) > time.Second {
		p.last = now
		_ = p.rc.SetReadDeadline(now.Add(bodyTimeout)) // a reader without deadlines needs none
		_ = p.rc.SetWriteDeadline(now.Add(bodyTimeout + answerTimeout))
	}
	n, err := p.r.Read(b)
	if err != nil && err != io.EOF {
		err = &brokenBody{err}
	}
	return n, err
}

// sendBlob serves a blob so that no browser takes it for a page of this node's.
func sendBlob(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	author, err := c.author()
	if err != nil {
		return nil, err
	}
	if author, err = c.readable(author); err != nil {
		return nil, err
	}
	text, err := c.required("cid")
	if err != nil {
		return nil, err
	}
	cid, err := parseIn("cid", text, space.ParseCID)
	if err != nil {
		return nil, err
	}
	b, err := c.s.Blobs.Blob(c.ctx(), id, author, cid)
	if err != nil {
		return nil, err
	}
	etag := `"` + text + `"`
	from, size, err := byteRange(c.r.Header, int64(b.Size), etag)
	if err != nil {
		c.w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", b.Size))
		return nil, err
	}
	return raw(func(w http.ResponseWriter, r *http.Request) error {
		h := w.Header()
		h.Set("ETag", etag)
		h.Set("Accept-Ranges", "bytes")
		h.Set("Cache-Control", "private, no-cache")
		h.Set("Vary", "Authorization")
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		h.Set("Content-Type", b.Type)
		h.Set("Content-Length", strconv.FormatInt(size, 10))
		h.Set("Content-Disposition", `attachment; filename="`+text+`"`)
		h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-site")
		if size != int64(b.Size) {
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+size-1, b.Size))
			w.WriteHeader(http.StatusPartialContent)
		}
		if r.Method == http.MethodHead {
			return nil
		}
		if _, err := b.Content.Seek(from, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyN(patient(w), b.Content, size)
		return err
	}), nil
}

// byteRange reads a Range header (RFC 9110, section 14): one range of bytes. A
// unit that is not known is no range; several ranges are refused, for each may
// be as large as the blob.
func byteRange(h http.Header, size int64, etag string) (from, n int64, err error) {
	spec, ok := strings.CutPrefix(h.Get("Range"), "bytes=")
	if cond := h.Get("If-Range"); !ok || cond != "" && cond != etag {
		return 0, size, nil
	}
	if len(h.Values("Range")) > 1 || strings.Contains(spec, ",") {
		return 0, 0, faultf(errRange, "range: one at a time")
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	bad := faultf(errRange, "range: %q is not within the blob's %d bytes", clip(spec), size)
	number := func(s string) (int64, bool) {
		v, err := strconv.ParseUint(s, 10, 63)
		return int64(v), err == nil
	}
	switch {
	case !ok:
		return 0, 0, bad
	case first == "": // the last so many
		n, ok := number(last)
		if !ok || n == 0 {
			return 0, 0, bad
		}
		n = min(n, size)
		return size - n, n, nil
	}
	if from, ok = number(first); !ok || from >= size {
		return 0, 0, bad
	}
	end := size - 1
	if last != "" {
		if end, ok = number(last); !ok || end < from {
			return 0, 0, bad
		}
	}
	return from, min(end, size-1) - from + 1, nil
}

type blobsAnswer struct {
	CIDs   []string `json:"cids"`
	Cursor string   `json:"cursor,omitempty"`
}

// listBlobs pages through one author's blobs.
func listBlobs(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	did, err := c.repo()
	if err != nil {
		return nil, err
	}
	var q BlobQuery
	if q.Limit, err = c.limit(500, 1000); err != nil {
		return nil, err
	}
	if q.Since, _, err = optional(c.in, "since", space.ParseTID); err != nil {
		return nil, err
	}
	if q.After, _, err = c.query.text("cursor"); err != nil {
		return nil, err
	}
	if q.After != "" {
		if _, err := space.ParseCID(q.After); err != nil {
			return nil, ErrCursor
		}
	}
	cids, err := c.s.Blobs.ListBlobs(c.ctx(), id, did, q)
	if err != nil {
		return nil, err
	}
	out := blobsAnswer{CIDs: make([]string, len(cids))}
	for i, cid := range cids {
		out.CIDs[i] = cid.String()
	}
	if len(cids) == q.Limit {
		out.Cursor = out.CIDs[len(cids)-1]
	}
	return out, nil
}

// PutBlob uploads a blob.
func (c *Client) PutBlob(ctx context.Context, mediaType string, r io.Reader) (BlobRef, error) {
	const nsid = "com.atproto.repo.uploadBlob"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.target(nsid), r)
	if err != nil {
		return BlobRef{}, fmt.Errorf("%s: %w", nsid, err)
	}
	req.Header.Set("Content-Type", mediaType)
	var out uploadAnswer
	if err := c.send(req, nsid, &out); err != nil {
		return BlobRef{}, err
	}
	return BlobRef{out.Blob.Ref.Link, out.Blob.MimeType, out.Blob.Size}, nil
}

// JSON is the blob object to put into a record.
func (b BlobRef) JSON() json.RawMessage {
	out, _ := json.Marshal(blobObject{"blob", linkText{b.CID}, b.Type, b.Size}) // never fails
	return out
}

// ReadBlob streams a blob. The caller checks it against its CID and closes it.
func (c *Client) ReadBlob(ctx context.Context, id space.ID, author space.DID, cid space.CID) (io.ReadCloser, error) {
	v := url.Values{"space": {id.AT()}, "cid": {cid.String()}}
	if author != "" {
		v.Set("repo", string(author))
	}
	return c.stream(ctx, "com.atproto.space.getBlob", v, "")
}

// ListBlobs reads one page.
func (c *Client) ListBlobs(ctx context.Context, id space.ID, author space.DID, q BlobQuery) ([]space.CID, error) {
	v := url.Values{"space": {id.AT()}, "repo": {string(author)}}
	limitValue(v, q.Limit)
	if q.Since != 0 {
		v.Set("since", q.Since.String())
	}
	if q.After != "" {
		v.Set("cursor", q.After)
	}
	var out blobsAnswer
	if err := c.query(ctx, "com.atproto.space.listBlobs", v, &out); err != nil {
		return nil, err
	}
	cids := make([]space.CID, len(out.CIDs))
	for i, s := range out.CIDs {
		var err error
		if cids[i], err = space.ParseCID(s); err != nil {
			return nil, fmt.Errorf("answer: %w", err)
		}
	}
	return cids, nil
}
