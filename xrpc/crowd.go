package xrpc

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// maxWaiting is how many connections may be open without a request under way.
const maxWaiting = 1024

// crowd keeps connections that ask nothing from crowding out those that do:
// beyond maxWaiting, the one that has waited longest goes.
type crowd struct {
	mu      sync.Mutex // guards what follows
	waiting list.List  // of net.Conn, the one that has waited longest first
	at      map[net.Conn]*list.Element
}

// waits puts a connection behind all that wait.
func (c *crowd) waits(conn net.Conn) {
	c.mu.Lock()
	var longest net.Conn
	if c.at == nil {
		c.at = map[net.Conn]*list.Element{}
	}
	if e := c.at[conn]; e != nil {
		c.waiting.MoveToBack(e)
	} else {
		c.at[conn] = c.waiting.PushBack(conn)
	}
	if c.waiting.Len() > maxWaiting {
		longest = c.waiting.Remove(c.waiting.Front()).(net.Conn)
		delete(c.at, longest)
	}
	c.mu.Unlock()
	if longest != nil {
		longest.Close()
	}
}

// busy takes a connection out: it has asked something, or it is gone.
func (c *crowd) busy(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.at[conn]; e != nil {
		c.waiting.Remove(e)
		delete(c.at, conn)
	}
}

// connKey is under which a request's context knows its connection.
type connKey struct{}

// watch has an HTTP server tell the crowd of its connections. A connection
// whose request has begun to come waits on: only a whole head makes it busy.
func (c *crowd) watch(hs *http.Server) {
	hs.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conn)
	}
	hs.ConnState = func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew, http.StateIdle:
			c.waits(conn)
		case http.StateHijacked, http.StateClosed:
			c.busy(conn)
		}
	}
	next := hs.Handler
	hs.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			c.busy(conn)
		}
		next.ServeHTTP(w, r)
	})
}
