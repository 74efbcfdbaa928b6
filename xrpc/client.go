package xrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// maxAnswer bounds what a Client reads of one answer.
const maxAnswer = 64 << 20

// Client calls a node's HTTP API. It has the methods of the interfaces a
// Server asks, with the same types and errors, so that either end can stand
// for a node; only an oplog it reads in whole pages.
type Client struct {
	Base  string       // "http://127.0.0.1:2580"
	Token string       // the text of the node's api.token file
	HTTP  *http.Client // nil: one that keeps connections and follows no redirect
}

var (
	_ Spaces  = (*Client)(nil)
	_ Records = (*Client)(nil)
	_ Source  = (*Client)(nil)
	_ Node    = (*Client)(nil)
)

// standardHTTP serves the Clients that bring none. The token must not travel
// to where a redirect points.
var standardHTTP = &http.Client{
	Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     idleTimeout,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Health asks for the node's version; an unhealthy node fails with
// space.ErrUnavailable. It needs no token.
func (c *Client) Health(ctx context.Context) (version string, err error) {
	var out healthAnswer
	err = c.query(ctx, "_health", nil, &out)
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusServiceUnavailable {
		e.Name, e.Message = "NotEnoughResources", "the node is not healthy"
	}
	return out.Version, err
}

// query is a GET.
func (c *Client) query(ctx context.Context, nsid string, v url.Values, out any) error {
	target := c.target(nsid)
	if len(v) > 0 {
		target += "?" + v.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", nsid, err)
	}
	return c.send(r, nsid, out)
}

// procedure is a POST.
func (c *Client) procedure(ctx context.Context, nsid string, in, out any) error {
	buf := new(bytes.Buffer)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(in); err != nil {
		return fmt.Errorf("%s: encode: %w", nsid, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.target(nsid), buf)
	if err != nil {
		return fmt.Errorf("%s: %w", nsid, err)
	}
	r.Header.Set("Content-Type", "application/json")
	return c.send(r, nsid, out)
}

func (c *Client) target(nsid string) string {
	return strings.TrimSuffix(c.Base, "/") + "/xrpc/" + nsid
}

// do sends a request with the token.
func (c *Client) do(r *http.Request, nsid string) (*http.Response, error) {
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(c.Token))
	}
	client := c.HTTP
	if client == nil {
		client = standardHTTP
	}
	resp, err := client.Do(r)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" && r.Context().Err() == nil {
			return nil, fmt.Errorf("%w at %s: is it running? (%v)", ErrUnreachable, c.Base, op.Err)
		}
		return nil, fmt.Errorf("%s: %w", nsid, err)
	}
	return resp, nil
}

func (c *Client) send(r *http.Request, nsid string, out any) error {
	resp, err := c.do(r, nsid)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%s: read the answer: %w", nsid, err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("%s: the answer is larger than %d bytes", nsid, maxAnswer)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return errorOf(resp.StatusCode, body)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s: the answer is not what was expected: %w", nsid, err)
	}
	return nil
}
