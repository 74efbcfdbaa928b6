// Package netid keeps the nodes of one network apart from those of another: a
// host with an id speaks each protocol of Kith under that id, so that a node of
// another network finds none of them.
//
// It promises that what runs over the host does not notice: handlers are set,
// streams opened and their protocols named without the id. It refuses nothing,
// and keeps nothing secret: an id is public, and only keeps networks from
// running into each other. libp2p's own protocols stay as they are.
//
// A wrapped host may be used from any goroutine.
package netid

import (
	"context"
	"strings"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// prefix stands before the id and the protocol.
const prefix = "/net/"

// ours are the beginnings of the protocols that belong to a network.
var ours = [...]string{"/kith/", "/meshsub/", "/floodsub/"}

// Of is h on the network with an id; "" is the open network, h itself.
func Of(h host.Host, id string) host.Host {
	if id == "" {
		return h
	}
	return apart{Host: h, front: prefix + id}
}

type apart struct {
	host.Host
	front string
}

// of is a protocol as it is spoken on the network.
func (a apart) of(p protocol.ID) protocol.ID {
	for _, o := range ours {
		if strings.HasPrefix(string(p), o) {
			return protocol.ID(a.front) + p
		}
	}
	return p
}

func (a apart) SetStreamHandler(p protocol.ID, f network.StreamHandler) {
	a.Host.SetStreamHandler(a.of(p), func(s network.Stream) { f(stream{s, a.front}) })
}

func (a apart) SetStreamHandlerMatch(p protocol.ID, match func(protocol.ID) bool, f network.StreamHandler) {
	a.Host.SetStreamHandlerMatch(a.of(p), func(p protocol.ID) bool {
		return match(protocol.ID(strings.TrimPrefix(string(p), a.front)))
	}, func(s network.Stream) { f(stream{s, a.front}) })
}

func (a apart) RemoveStreamHandler(p protocol.ID) { a.Host.RemoveStreamHandler(a.of(p)) }

func (a apart) NewStream(ctx context.Context, to peer.ID, ps ...protocol.ID) (network.Stream, error) {
	there := make([]protocol.ID, len(ps))
	for i, p := range ps {
		there[i] = a.of(p)
	}
	s, err := a.Host.NewStream(ctx, to, there...)
	if err != nil {
		return nil, err
	}
	return stream{s, a.front}, nil
}

// stream names its protocol as it would be named without the id.
type stream struct {
	network.Stream
	front string
}

func (s stream) Protocol() protocol.ID {
	return protocol.ID(strings.TrimPrefix(string(s.Stream.Protocol()), s.front))
}
