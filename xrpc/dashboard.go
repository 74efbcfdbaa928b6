package xrpc

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
)

// dashboard is the page at /: the node's status in words, from the same
// structure as everything else shows it. It is one file and loads nothing; the
// token it asks with comes from the person who looks, or behind the # of the
// address, and stays in the tab.
//
//go:embed dashboard.html
var dashboard string

// dashboardPolicy lets the page run its own script and style, ask this node,
// and do nothing else.
var dashboardPolicy = "default-src 'none'; connect-src 'self'; script-src " + hashOf(dashboard, "script") + "; style-src " + hashOf(dashboard, "style") +
	"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// hashOf is the source expression of the one element of that name in a page.
func hashOf(page, element string) string {
	_, rest, _ := strings.Cut(page, "<"+element+">")
	text, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (c *call) page() error {
	if err := c.verbs(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	h := c.w.Header()
	h.Del("Access-Control-Allow-Origin") // nobody else's page needs this one
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(dashboard)))
	h.Set("Content-Security-Policy", dashboardPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
	c.w.WriteHeader(http.StatusOK)
	_, err := c.w.Write([]byte(dashboard))
	if err != nil {
		c.s.log().Debug("page broke off", "err", err)
	}
	return nil
}
