package xrpc

import (
	"net/http"
	"strings"
)

type healthAnswer struct {
	Version string   `json:"version"`
	Error   string   `json:"error,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
}

// health is for whoever watches the process: no token, no details but why.
func (c *call) health() error {
	if err := c.verbs(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	out := healthAnswer{Version: c.s.Version}
	status := http.StatusOK
	if c.s.Healthy != nil {
		if err := c.s.Healthy(c.ctx()); err != nil {
			out.Error, out.Reasons = err.Error(), strings.Split(err.Error(), "\n")
			status = http.StatusServiceUnavailable
		}
	}
	c.answer(status, out)
	return nil
}

func showStatus(c *call) (any, error) {
	st, err := c.s.Node.Status(c.ctx())
	return filled(st), err
}

// filled turns nil lists into empty ones, so that scripts can walk them.
func filled(st Status) Status {
	st.Listen = orEmpty(st.Listen)
	st.Peers = orEmpty(st.Peers)
	st.Spaces = append([]SpaceStatus{}, st.Spaces...)
	for i := range st.Peers {
		st.Peers[i].Addrs = orEmpty(st.Peers[i].Addrs)
	}
	for i := range st.Spaces {
		st.Spaces[i].InSyncWith = orEmpty(st.Spaces[i].InSyncWith)
	}
	return st
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

type peersAnswer struct {
	Peers []Peer `json:"peers"`
}

func listPeers(c *call) (any, error) {
	peers, err := c.s.Links.Peers(c.ctx())
	return peersAnswer{orEmpty(peers)}, err
}

func connectPeer(c *call) (any, error) {
	addr, err := c.required("addr")
	if err != nil {
		return nil, err
	}
	return c.s.Links.Connect(c.ctx(), addr)
}

func disconnectPeer(c *call) (any, error) {
	id, err := c.required("peerId")
	if err != nil {
		return nil, err
	}
	return done{true}, c.s.Links.Disconnect(c.ctx(), id)
}
