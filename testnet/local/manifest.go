package local

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kithnet/kith/space"
)

// Manifest is what a network's operator hands to others. Its id is the hash of
// the operator's key, so that who has the id knows whose signature to want.
type Manifest struct {
	Kith      string   `json:"kith"`     // "testnet"
	Protocol  int      `json:"protocol"` // of the network, see ManifestProtocol
	Version   string   `json:"version"`  // of the operator's kith
	Network   string   `json:"network"`  // 16 hex digits of SHA-256(key): it prefixes protocol ids
	Key       []byte   `json:"key"`      // Ed25519, 32 bytes
	Space     space.ID `json:"space"`    // the public space
	Link      string   `json:"link"`     // where it is; opens no door
	Bootstrap []string `json:"bootstrap"`
	Relays    []string `json:"relays"`
	Made      int64    `json:"made"`          // Unix seconds
	Sig       []byte   `json:"sig,omitempty"` // Ed25519 over signedAs ‖ the JSON without sig
}

// ManifestProtocol is the one that this version speaks. Another one is refused.
const ManifestProtocol = 1

const (
	signedAs    = "kith testnet manifest\x00"
	maxManifest = 64 << 10
)

var (
	// ErrManifest: not a manifest, or not signed by the network's operator.
	ErrManifest = errors.New("not a good testnet manifest")
	// ErrManifestVersion: of a network that this version cannot speak with.
	ErrManifestVersion = errors.New("the network speaks another version")
)

// networkID names the network of an operator's key.
func networkID(key ed25519.PublicKey) string {
	h := sha256.Sum256(key)
	return hex.EncodeToString(h[:8])
}

// Manifest makes the manifest of a network, signed by its operator.
func (w Network) Manifest(version string, now time.Time) (Manifest, error) {
	key, err := operatorKey(w.Dir)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{
		Kith: "testnet", Protocol: ManifestProtocol, Version: version, Network: w.ID, Key: key.Public().(ed25519.PublicKey),
		Space: w.Space, Link: w.Invite, Bootstrap: []string{}, Relays: []string{}, Made: now.Unix(),
	}
	for _, n := range w.Nodes {
		switch {
		case n.Role == "relay" && len(n.Relay) > 0:
			m.Relays = append(m.Relays, n.Relay[0])
		case len(n.Listen) > 0:
			m.Bootstrap = append(m.Bootstrap, n.Listen[0])
		}
	}
	body, err := m.body()
	if err != nil {
		return Manifest{}, err
	}
	m.Sig = ed25519.Sign(key, body)
	return m, nil
}

func (m Manifest) body() ([]byte, error) {
	m.Sig = nil
	b, err := json.Marshal(m)
	return append([]byte(signedAs), b...), err
}

// ParseManifest reads a manifest and checks who signed it and whether this
// version understands the network. Errors match ErrManifest or
// ErrManifestVersion.
func ParseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if len(b) > maxManifest {
		return m, fmt.Errorf("%w: %d bytes", ErrManifest, len(b))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if m.Kith != "testnet" {
		return m, fmt.Errorf("%w: it is of %q", ErrManifest, m.Kith)
	}
	if m.Protocol != ManifestProtocol {
		return m, fmt.Errorf("%w: %d, made by kith %s; this one speaks %d", ErrManifestVersion, m.Protocol, m.Version, ManifestProtocol)
	}
	body, err := m.body()
	if err != nil || len(m.Key) != ed25519.PublicKeySize || m.Network != networkID(m.Key) || !ed25519.Verify(m.Key, body, m.Sig) {
		return m, fmt.Errorf("%w: the operator of network %q did not sign it", ErrManifest, m.Network)
	}
	return m, nil
}

// signpost is a link without the secret: it says where the space is, to who
// needs no invite (docs/protocol.md, "Invite link").
func signpost(link string) (string, error) {
	front, frag, ok := strings.Cut(link, "#")
	raw, err := base64.RawURLEncoding.DecodeString(frag)
	const secretEnd = 33
	if !ok || err != nil || len(raw) < secretEnd {
		return "", fmt.Errorf("link: %w", space.ErrMalformed)
	}
	clear(raw[1:secretEnd])
	return front + "#" + base64.RawURLEncoding.EncodeToString(raw), nil
}

// Joined is a node of one's own on a network of somebody else's.
type Joined struct {
	Network string   `json:"network"`
	URI     space.ID `json:"uri,omitzero"`
	Peers   int      `json:"peers"`
	NetNode
}

// joinFile stands in the home of a node that JoinNet started.
const joinFile = "joined.json"

// JoinNet starts a node in home that goes on when this process ends, and joins
// the public space of a manifest. A node that runs there is used as it is.
func JoinNet(ctx context.Context, kith, home string, m Manifest, wait time.Duration) (Joined, error) {
	kith, err := executable(kith)
	if err != nil {
		return Joined{}, err
	}
	j, err := readJoined(home)
	if err != nil || !j.alive(ctx) {
		j = Joined{Network: m.Network, NetNode: NetNode{Name: "you", Role: "member", Home: home}}
		args := []string{"--network", m.Network}
		for _, b := range m.Bootstrap {
			args = append(args, "--bootstrap", b)
		}
		if err := launch(kith, &j.NetNode, args); err != nil {
			return j, err
		}
	} else if j.Network != m.Network {
		return j, fmt.Errorf("%s belongs to network %s; name another directory with --home", home, j.Network)
	}
	if err := j.keep(); err != nil {
		return j, err
	}
	c, err := j.client()
	if err != nil {
		return j, err
	}
	got, err := c.JoinWait(ctx, m.Link, wait)
	if err != nil {
		return j, fmt.Errorf("join the public space: %w", err)
	}
	j.URI = got.ID
	peers, err := c.Peers(ctx)
	j.Peers = len(peers)
	return j, errors.Join(err, j.keep())
}

// keep writes down what leaving needs.
func (j Joined) keep() error {
	b, err := json.Marshal(j)
	if err == nil {
		err = os.WriteFile(filepath.Join(j.Home, joinFile), b, 0o600)
	}
	return err
}

func readJoined(home string) (j Joined, err error) {
	b, err := os.ReadFile(filepath.Join(home, joinFile))
	if err == nil {
		err = json.Unmarshal(b, &j)
	}
	return j, err
}

// LeaveNet stops the node that JoinNet started in a home. The home stays.
func LeaveNet(home string) (Joined, error) {
	j, err := readJoined(home)
	if err != nil {
		return j, fmt.Errorf("%s: %w", home, ErrNoNetwork)
	}
	if err := j.stop(); err != nil {
		return j, err
	}
	return j, os.Remove(filepath.Join(home, joinFile))
}
