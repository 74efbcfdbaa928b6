package xrpc

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/kithnet/kith/space"
)

// call is one request on its way through a handler.
type call struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	nsid  string
	d     Dialect
	in    fields // query parameters or body
	query params // of a GET
	body  object // of a POST

	caller    caller
	level     space.Level // what the caller may do in the space that is named
	standard  Dialect     // where the request does not say
	anonymous bool        // only what is public is shown
}

// fields is where identifiers come from: query parameters or a body.
type fields interface {
	text(name string) (s string, ok bool, err error)
}

func (c *call) ctx() context.Context { return c.r.Context() }

// params are query parameters: unknown ones are ignored, one that is used must
// not stand there twice.
type params struct{ v url.Values }

func (p params) text(name string) (string, bool, error) {
	switch vs := p.v[name]; len(vs) {
	case 0:
		return "", false, nil
	case 1:
		return vs[0], true, nil
	default:
		return "", false, faultf(errRequest, "%s: give it once", name)
	}
}

func (p params) boolean(name string) (bool, error) {
	s, ok, err := p.text(name)
	switch {
	case err != nil || !ok:
		return false, err
	case s == "true":
		return true, nil
	case s == "false":
		return false, nil
	}
	return false, faultf(errRequest, "%s: must be true or false", name)
}

// limit reads a page size. Over the most, HappyView's clients get the most and
// atproto's an error; nobody gets a page for less than 1.
func (c *call) limit(standard, most int) (int, error) {
	s, ok, err := c.query.text("limit")
	if err != nil || !ok {
		return standard, err
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most && c.d == ATProto {
		return 0, faultf(errRequest, "limit: must be an integer from 1 to %d", most)
	}
	return min(n, most), nil
}

// spaceID reads the required field space.
func (c *call) spaceID() (space.ID, error) {
	s, err := c.required("space")
	if err != nil {
		return space.ID{}, err
	}
	id, err := space.ParseID(s)
	if err != nil {
		return space.ID{}, inField("space", err)
	}
	return id, nil
}

// required reads a text field that must be there.
func (c *call) required(name string) (string, error) {
	s, ok, err := c.in.text(name)
	if err == nil && !ok {
		err = missing(name)
	}
	return s, err
}

func missing(name string) error { return faultf(errShape, "%s: is required", name) }

// did reads an optional DID under any of its names; two that differ are
// refused.
func (c *call) did(names ...string) (space.DID, error) {
	var did space.DID
	for _, name := range names {
		s, ok, err := c.in.text(name)
		if err != nil {
			return "", err
		}
		if !ok {
			continue
		}
		d, err := space.ParseDID(s)
		if err != nil {
			return "", inField(name, err)
		}
		if did != "" && d != did {
			return "", faultf(errRequest, "%s: names another repo than %s", name, names[0])
		}
		did = d
	}
	return did, nil
}

// author is whose repo a read asks for; "" when the request does not say.
func (c *call) author() (space.DID, error) { return c.did("repo", "did", "author") }

// ownRepo refuses a write into a repo that is not the caller's.
func (c *call) ownRepo() error {
	repo, err := c.did("repo")
	if err != nil {
		return err
	}
	if repo != "" && repo != c.caller.DID {
		return faultf(space.ErrForbidden, "repo: you can only write to your own repo, %s", c.caller.DID)
	}
	return nil
}

// collection reads a required collection.
func (c *call) collection() (space.NSID, error) {
	s, err := c.required("collection")
	if err != nil {
		return "", err
	}
	return parseIn("collection", s, space.ParseNSID)
}

// path reads collection and rkey, both required.
func (c *call) path() (space.Path, error) {
	collection, err := c.collection()
	if err != nil {
		return space.Path{}, err
	}
	s, err := c.required("rkey")
	if err != nil {
		return space.Path{}, err
	}
	key, err := parseIn("rkey", s, space.ParseRecordKey)
	return space.Path{Collection: collection, Key: key}, err
}

// parseIn parses the text of a field.
func parseIn[T any](name, s string, parse func(string) (T, error)) (T, error) {
	v, err := parse(s)
	if err != nil {
		return v, inField(name, err)
	}
	return v, nil
}

// optional parses a field that may be missing.
func optional[T any](in fields, name string, parse func(string) (T, error)) (v T, ok bool, err error) {
	s, ok, err := in.text(name)
	if err != nil || !ok {
		return v, false, err
	}
	v, err = parseIn(name, s, parse)
	return v, true, err
}
