package xrpc

import (
	"bytes"
	"io"
	"mime"
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
		c.d = dialectOf(c.nsid, name[0], c.s.Dialect)
	}
	return nil
}

// readBody reads and splits the JSON body. The members point into buf.
func (c *call) readBody(buf *bytes.Buffer) error {
	if err := checkMedia(c.r.Header); err != nil {
		return err
	}
	if c.r.ContentLength > MaxBody {
		return faultf(space.ErrTooLarge, "body: at most %d bytes", MaxBody)
	}
	if n := c.r.ContentLength; n > 0 {
		buf.Grow(int(n) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(c.r.Body, MaxBody+1))
	if err != nil {
		return faultf(errRequest, "body: ended early")
	}
	if n > MaxBody {
		return faultf(space.ErrTooLarge, "body: at most %d bytes", MaxBody)
	}
	if c.body, err = parseObject(buf.Bytes()); err != nil {
		return err
	}
	c.in = c.body
	name, _, err := c.body.text("space")
	c.d = dialectOf(c.nsid, name, c.s.Dialect)
	return err
}

// checkMedia wants application/json, in UTF-8 if it says so, not compressed.
func checkMedia(h http.Header) error {
	if e := h.Get("Content-Encoding"); e != "" && e != "identity" {
		return faultf(errMedia, "content-encoding: send the body as it is")
	}
	ct := h.Get("Content-Type")
	if ct == "application/json" {
		return nil
	}
	media, opts, err := mime.ParseMediaType(ct)
	if err != nil || media != "application/json" {
		return faultf(errMedia, "content-type: must be application/json")
	}
	if cs := opts["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
		return faultf(errMedia, "content-type: the charset must be utf-8")
	}
	return nil
}
