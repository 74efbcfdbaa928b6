package xrpc

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// cors lets any page ask, but not with credentials of the browser's: without
// the token a page learns nothing but that a node is here.
func cors(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE")
	h.Set("Access-Control-Allow-Headers", "authorization, content-type, dpop, x-client-key")
	h.Set("Access-Control-Expose-Headers",
		"DPoP-Nonce, WWW-Authenticate, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, RateLimit-Policy, Retry-After")
	h.Set("Access-Control-Max-Age", "86400")
}

// knowsHost is the guard against DNS rebinding: loopback names and the
// configured origins, on any port unless the origin names one.
func (s *Server) knowsHost(hostport string) bool {
	return isLoopback(hostport) || s.isOrigin(hostport)
}

func isLoopback(hostport string) bool {
	name := hostname(hostport)
	if strings.EqualFold(name, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.Unmap().IsLoopback() && a.Zone() == ""
}

// isOrigin reports whether a Host header names a configured origin.
func (s *Server) isOrigin(hostport string) bool {
	name := hostname(hostport)
	return slices.ContainsFunc(s.Origins, func(origin string) bool {
		_, rest, ok := strings.Cut(origin, "://")
		if !ok {
			rest = origin
		}
		rest = strings.TrimSuffix(rest, "/")
		return rest != "" && (strings.EqualFold(rest, hostport) || strings.EqualFold(rest, name))
	})
}

// hostname takes the port and the brackets off.
func hostname(hostport string) string {
	if h, port, err := net.SplitHostPort(hostport); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return ""
		}
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}
