// Package commit is the face a repo shows to atproto: a signed commit over its
// set hash, verifiable by whoever speaks com.atproto.space.
//
// It promises the reference's bytes: a context of space, author, revision and
// fresh keying material is signed, and a MAC keyed by that material covers the
// hash. It refuses any version but 1, fields of another length, DER and high-S
// signatures, and every second encoding.
//
// A commit is deniable by design. The signature does not cover the hash, and
// whoever holds a commit can compute the MAC of another one: it authenticates
// a repo only when it came from the author's host over an authenticated
// channel, or inside an entry, and only if the reader's own digest equals Hash.
//
// Everything is a value; nothing is kept, nothing locks. Keying material comes
// from the caller and must be fresh for every commit.
package commit

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/kithnet/kith/space"
)

// Version is the only one there is.
const Version = 1

const tag = "atproto-space-v1"

// Commit says that the repo had the set hash Hash at Rev.
type Commit struct {
	Ver  int
	Hash [32]byte // digest of the repo's set hash
	IKM  [32]byte // keying material of the MAC, fresh for each commit
	MAC  [32]byte
	Sig  [64]byte // ECDSA over the context, compact, low-S
	Rev  space.TID
}

// Context is what a commit speaks of.
type Context struct {
	Space  space.ID
	Author space.DID
	Rev    space.TID
}

// bytes is what is signed and what the MAC's key is bound to: the tag, then
// each of space, author, rev and ikm behind its length in two bytes. The
// grammars keep all of them below 64 KiB.
func (c Context) bytes(ikm [32]byte) []byte {
	b := append(make([]byte, 0, 512), tag...)
	for _, field := range []string{c.Space.AT(), c.Author.String(), c.Rev.String(), string(ikm[:])} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
		b = append(b, field...)
	}
	return b
}

func (c Context) check() error {
	if len(c.Space.AT()) > space.MaxURI || len(c.Author) > space.MaxDID || c.Space.IsZero() || c.Author == "" || c.Rev == 0 {
		return fmt.Errorf("commit of an incomplete context: %w", space.ErrMalformed)
	}
	return nil
}

// mac is HMAC-SHA256 of the hash under a key expanded from the keying
// material. There is no extract step: ikm is the pseudorandom key.
func mac(ctx []byte, ikm, hash [32]byte) ([32]byte, error) {
	key, err := hkdf.Expand(sha256.New, ikm[:], string(ctx), sha256.Size)
	if err != nil {
		return [32]byte{}, fmt.Errorf("expand the mac key: %w", err)
	}
	h := hmac.New(sha256.New, key)
	h.Write(hash[:])
	return [32]byte(h.Sum(nil)), nil
}

// Sign commits to hash. The keying material ikm must be random and never have
// been used before.
func Sign(key atcrypto.PrivateKey, ikm [32]byte, id space.ID, author space.DID, rev space.TID, hash [32]byte) (Commit, error) {
	ctx := Context{id, author, rev}
	if err := ctx.check(); err != nil {
		return Commit{}, err
	}
	sig, err := key.HashAndSign(ctx.bytes(ikm))
	if err != nil {
		return Commit{}, fmt.Errorf("sign commit: %w", err)
	}
	if len(sig) != 64 {
		return Commit{}, fmt.Errorf("sign commit: signature of %d bytes, want 64", len(sig))
	}
	return FromStatement(id, author, rev, ikm, [64]byte(sig), hash)
}

// FromStatement rebuilds the commit of an author's statement: what an author
// need not send, any reader computes. It verifies nothing.
func FromStatement(id space.ID, author space.DID, rev space.TID, ikm [32]byte, sig [64]byte, hash [32]byte) (Commit, error) {
	ctx := Context{id, author, rev}
	if err := ctx.check(); err != nil {
		return Commit{}, err
	}
	m, err := mac(ctx.bytes(ikm), ikm, hash)
	if err != nil {
		return Commit{}, err
	}
	return Commit{Ver: Version, Hash: hash, IKM: ikm, MAC: m, Sig: sig, Rev: rev}, nil
}

// Verify checks that the holder of pub made c for the author's repo in the
// space, at the revision c names.
func (c Commit) Verify(pub atcrypto.PublicKey, id space.ID, author space.DID) error {
	return c.VerifyContext(pub, Context{id, author, c.Rev})
}

// VerifyContext is Verify for a revision the caller knows from elsewhere.
func (c Commit) VerifyContext(pub atcrypto.PublicKey, ctx Context) error {
	if c.Ver != Version {
		return fmt.Errorf("commit version %d, want %d: %w", c.Ver, Version, space.ErrMalformed)
	}
	if err := ctx.check(); err != nil {
		return err
	}
	if c.Rev != ctx.Rev {
		return fmt.Errorf("commit of rev %s, want %s: %w", c.Rev, ctx.Rev, space.ErrForged)
	}
	b := ctx.bytes(c.IKM)
	want, err := mac(b, c.IKM, c.Hash)
	if err != nil {
		return err
	}
	if !hmac.Equal(want[:], c.MAC[:]) {
		return fmt.Errorf("commit mac: %w", space.ErrForged)
	}
	// HashAndVerify takes compact signatures with low S and no others.
	if err := pub.HashAndVerify(b, c.Sig[:]); err != nil {
		return fmt.Errorf("commit signature: %w", space.ErrForged)
	}
	return nil
}

// wire is the commit block: a map, the revision as text.
type wire struct {
	Ver  int      `cbor:"ver"`
	Hash [32]byte `cbor:"hash"`
	IKM  [32]byte `cbor:"ikm"`
	MAC  [32]byte `cbor:"mac"`
	Sig  [64]byte `cbor:"sig"`
	Rev  string   `cbor:"rev"`
}

// CBOR is the commit as a DRISL block, the first of a repo's CAR.
func (c Commit) CBOR() ([]byte, error) {
	if c.Ver != Version {
		return nil, fmt.Errorf("commit version %d, want %d: %w", c.Ver, Version, space.ErrMalformed)
	}
	return space.Marshal(wire{c.Ver, c.Hash, c.IKM, c.MAC, c.Sig, c.Rev.String()})
}

// ParseCBOR reads a commit block: the six fields in their lengths, version 1,
// a valid revision and nothing else.
func ParseCBOR(b []byte) (Commit, error) {
	var w wire
	if err := space.Unmarshal(b, &w); err != nil {
		return Commit{}, fmt.Errorf("commit: %w", err)
	}
	if w.Ver != Version {
		return Commit{}, fmt.Errorf("commit version %d, want %d: %w", w.Ver, Version, space.ErrMalformed)
	}
	rev, err := space.ParseTID(w.Rev)
	if err != nil {
		return Commit{}, fmt.Errorf("commit rev: %w", err)
	}
	return Commit{w.Ver, w.Hash, w.IKM, w.MAC, w.Sig, rev}, nil
}

// MarshalJSON is the commit block in the JSON of records: bytes are
// {"$bytes": base64 without padding}.
func (c Commit) MarshalJSON() ([]byte, error) {
	b, err := c.CBOR()
	if err != nil {
		return nil, err
	}
	return space.Record(b).JSON()
}

// UnmarshalJSON reads what MarshalJSON writes, as strictly as ParseCBOR.
func (c *Commit) UnmarshalJSON(b []byte) error {
	block, err := space.RecordFromJSON(b)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	*c, err = ParseCBOR(block)
	return err
}
