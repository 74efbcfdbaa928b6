//go:build tools

package kith

import (
	_ "filippo.io/age"
	_ "filippo.io/edwards25519"
	_ "github.com/BurntSushi/toml"
	_ "github.com/alecthomas/kong"
	_ "github.com/bluesky-social/indigo/atproto/atcrypto"
	_ "github.com/cosmos/go-bip39"
	_ "github.com/fxamacker/cbor/v2"
	_ "github.com/gofrs/flock"
	_ "github.com/hashicorp/golang-lru/v2"
	_ "github.com/ipfs/go-cid"
	_ "github.com/ipfs/go-datastore"
	_ "github.com/ipfs/go-ds-leveldb"
	_ "github.com/libp2p/go-libp2p"
	_ "github.com/libp2p/go-libp2p-pubsub"
	_ "github.com/libp2p/go-libp2p/x/simlibp2p"
	_ "github.com/marcopolo/simnet"
	_ "github.com/multiformats/go-multiaddr"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/tidwall/btree"
	_ "golang.org/x/crypto/chacha20poly1305"
	_ "golang.org/x/term"
	_ "golang.org/x/time/rate"
	_ "lukechampine.com/blake3"
	_ "pgregory.net/rapid"
)
