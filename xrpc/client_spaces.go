package xrpc

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/kithnet/kith/space"
)

// newSpaceBody is the input of createSpace as the client spells it.
type newSpaceBody struct {
	Type        space.NSID      `json:"type"`
	Key         space.RecordKey `json:"skey,omitempty"`
	Name        string          `json:"name,omitempty"`
	Relays      []string        `json:"relays,omitempty"`
	Mint        string          `json:"mintPolicy,omitempty"`
	ManagingApp string          `json:"managingAppDid,omitempty"`
	AppAccess   *accessBody     `json:"appAccess,omitempty"`
	KeyPolicy   string          `json:"keyPolicy,omitempty"`
	History     string          `json:"history,omitempty"`
	Attribution string          `json:"attribution,omitempty"`
	PQ          bool            `json:"pq,omitempty"`
	SelfWrite   bool            `json:"selfWrite,omitempty"`
	MaxEpochLag uint32          `json:"maxEpochLagSeconds,omitempty"`
	DisplayName string          `json:"displayName,omitempty"`
	Description string          `json:"description,omitempty"`
	Config      space.Record    `json:"config,omitempty"`
	OwnDID      bool            `json:"ownDid,omitempty"`
}

type accessBody struct {
	Type    string   `json:"type"`
	Allowed []string `json:"allowed,omitempty"`
}

// CreateSpace sends what is set; an empty field of the policy is the default.
func (c *Client) CreateSpace(ctx context.Context, n NewSpace) (SpaceInfo, error) {
	p := n.Policy
	in := newSpaceBody{
		n.Type, n.Key, n.Name, n.Relays, p.Mint, p.ManagingApp, nil, p.KeyPolicy, p.History, p.Attribution,
		p.PQ, p.SelfWrite, p.MaxEpochLagSeconds, p.DisplayName, p.Description, p.Config, n.OwnDID,
	}
	if p.AppAccess != "" {
		in.AppAccess = &accessBody{p.AppAccess, p.Allow}
	}
	var out spaceAnswer
	if err := c.procedure(ctx, "com.atproto.simplespace.createSpace", in, &out); err != nil {
		return SpaceInfo{}, err
	}
	return out.Space.info()
}

// Space shows one space.
func (c *Client) Space(ctx context.Context, id space.ID) (SpaceInfo, error) {
	var out spaceAnswer
	if err := c.query(ctx, "com.atproto.space.getSpace", url.Values{"space": {id.String()}}, &out); err != nil {
		return SpaceInfo{}, err
	}
	return out.Space.info()
}

// Spaces lists all spaces of the owner, page by page.
func (c *Client) Spaces(ctx context.Context) ([]SpaceInfo, error) {
	var all []SpaceInfo
	v := url.Values{"limit": {"100"}}
	for {
		var out spacesAnswer
		if err := c.query(ctx, "com.atproto.space.listSpaces", v, &out); err != nil {
			return nil, err
		}
		for _, s := range out.Spaces {
			info, err := s.Space.info()
			if err != nil {
				return nil, err
			}
			all = append(all, info)
		}
		if out.Cursor == "" {
			return all, nil
		}
		v.Set("cursor", out.Cursor)
	}
}

func (o spaceObject) info() (SpaceInfo, error) {
	id, err := space.ParseID(o.URI)
	if err != nil {
		return SpaceInfo{}, fmt.Errorf("answer: %w", err)
	}
	i := SpaceInfo{
		ID: id, Authority: o.AuthorityDID, Creator: o.CreatorDID, Policy: o.Policy,
		Level: level(o.Role), Epoch: o.Epoch, Name: o.Name,
		UpdatedMs: o.ChangedMs, Frozen: o.Frozen, UnverifiedHead: o.Unverified,
	}
	if n, err := hex.Decode(i.SpaceID[:], []byte(o.SpaceID[:min(len(o.SpaceID), 64)])); err != nil || n != 32 {
		return SpaceInfo{}, fmt.Errorf("answer: spaceId %q is not 32 bytes in hex", clip(o.SpaceID))
	}
	if o.Revision != nil {
		if i.Rev, err = space.ParseTID(*o.Revision); err != nil {
			return SpaceInfo{}, fmt.Errorf("answer: %w", err)
		}
	}
	i.CreatedMs, err = millis(o.CreatedAt)
	return i, err
}

// level is LevelNone for a name that is none.
func level(s string) space.Level {
	l, err := space.ParseLevel(s)
	if err != nil {
		return space.LevelNone
	}
	return l
}

func millis(s string) (int64, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, fmt.Errorf("answer: %w", err)
	}
	return t.UnixMilli(), nil
}

// Status is the node's one status structure.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	return st, c.query(ctx, "dev.kith.node.status", nil, &st)
}

// Peers lists the connected peers.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	var out peersAnswer
	err := c.query(ctx, "dev.kith.node.peers", nil, &out)
	return out.Peers, err
}

// Connect dials a multiaddr.
func (c *Client) Connect(ctx context.Context, addr string) (Peer, error) {
	var p Peer
	return p, c.procedure(ctx, "dev.kith.node.connect", map[string]string{"addr": addr}, &p)
}

// Disconnect closes the connections to a peer.
func (c *Client) Disconnect(ctx context.Context, peerID string) error {
	return c.procedure(ctx, "dev.kith.node.disconnect", map[string]string{"peerId": peerID}, &done{})
}

// limitValue sets a page size if there is one.
func limitValue(v url.Values, limit int) {
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
}
