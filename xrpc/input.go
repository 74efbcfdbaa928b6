package xrpc

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/kithnet/kith/space"
)

func (c *call) readQuery() error {
	v, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return faultf(errRequest, "query: %v", err)
	}
	c.query = params{v}
	c.in = c.query
	if name := v["space"]; len(name) > 0 {
		c.d = dialectOf(c.nsid, name[0], c.standard)
	}
	return nil
}

// takeBody reads and splits the JSON body. The members point into the buffer,
// which the caller releases.
func (c *call) takeBody() (*bytes.Buffer, error) {
	buf := buffers.Get().(*bytes.Buffer)
	err := c.readBody(buf)
	if err != nil {
		release(buf)
		return nil, err
	}
	return buf, nil
}

func (c *call) readBody(buf *bytes.Buffer) error {
	packed, err := checkMedia(c.r.Header)
	if err != nil {
		return err
	}
	if c.r.ContentLength > MaxBody {
		return tooLarge()
	}
	if n := c.r.ContentLength; n > 0 {
		buf.Grow(int(n) + bytes.MinRead)
	}
	if err := readAll(buf, c.r.Body, packed); err != nil {
		return err
	}
	if c.body, err = parseObject(buf.Bytes()); err != nil {
		return err
	}
	c.in = c.body
	name, _, err := c.body.text("space")
	c.d = dialectOf(c.nsid, name, c.standard)
	return err
}

func tooLarge() error { return faultf(space.ErrTooLarge, "body: at most %d bytes", MaxBody) }

// readAll reads at most MaxBody bytes, as they were before they were packed:
// a body that blows up is read no further than that.
func readAll(buf *bytes.Buffer, r io.Reader, packed bool) error {
	r = io.LimitReader(r, MaxBody+1)
	if packed {
		z, err := gzip.NewReader(r)
		if err != nil {
			return bodyError(err)
		}
		defer z.Close()
		r = io.LimitReader(z, MaxBody+1)
	}
	n, err := buf.ReadFrom(r)
	if err != nil {
		return bodyError(err)
	}
	if n > MaxBody {
		return tooLarge()
	}
	return nil
}

// bodyError tells a body that came too slowly from one that is broken.
func bodyError(err error) error {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return faultf(errSlow, "body: did not come within %s", bodyTimeout)
	}
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return faultf(errRequest, "body: is not gzip")
	}
	return faultf(errRequest, "body: ended early")
}

// checkMedia wants application/json, in UTF-8 if it says so, and says whether
// it is packed with gzip.
func checkMedia(h http.Header) (packed bool, err error) {
	switch strings.ToLower(h.Get("Content-Encoding")) {
	case "", "identity":
	case "gzip", "x-gzip":
		packed = true
	default:
		return false, faultf(errMedia, "content-encoding: send the body as it is, or with gzip")
	}
	ct := h.Get("Content-Type")
	if ct == "application/json" {
		return packed, nil
	}
	media, opts, err := mime.ParseMediaType(ct)
	if err != nil || media != "application/json" {
		return false, faultf(errMedia, "content-type: must be application/json")
	}
	if cs := opts["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
		return false, faultf(errMedia, "content-type: the charset must be utf-8")
	}
	return packed, nil
}
