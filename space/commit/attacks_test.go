package commit

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
)

// TestS13TamperedCommit: a commit is good for one space, author, revision,
// version and hash, whole.
func TestS13TamperedCommit(t *testing.T) {
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	author := space.DID(pub.DIDKey())
	id, err := space.ParseID("ats://did:web:a.example/com.example.type/self")
	if err != nil {
		t.Fatal(err)
	}
	var ikm [32]byte
	rand.Read(ikm[:])
	ctx := Context{id, author, space.TID(1 << 40)}
	good, err := Sign(key, ikm, ctx.Space, ctx.Author, ctx.Rev, [32]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	if err := good.VerifyContext(pub, ctx); err != nil {
		t.Fatal(err)
	}
	other, err := space.ParseID("ats://did:web:a.example/com.example.type/other")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		commit func(*Commit)
		ctx    func(*Context)
		want   error
	}{
		"hash":         {func(c *Commit) { c.Hash[31] ^= 1 }, nil, space.ErrForged},
		"mac":          {func(c *Commit) { c.MAC[0] ^= 1 }, nil, space.ErrForged},
		"signature":    {func(c *Commit) { c.Sig[40] ^= 1 }, nil, space.ErrForged},
		"no signature": {func(c *Commit) { c.Sig = [64]byte{} }, nil, space.ErrForged},
		"ikm":          {func(c *Commit) { c.IKM[3] ^= 1 }, nil, space.ErrForged},
		"ikm of zeros": {func(c *Commit) { c.IKM = [32]byte{} }, nil, space.ErrForged},
		"version 2":    {func(c *Commit) { c.Ver = 2 }, nil, space.ErrMalformed},
		"version 0":    {func(c *Commit) { c.Ver = 0 }, nil, space.ErrMalformed},
		"rev":          {func(c *Commit) { c.Rev++ }, nil, space.ErrForged},
		"another rev":  {nil, func(x *Context) { x.Rev++ }, space.ErrForged},
		"space":        {nil, func(x *Context) { x.Space = other }, space.ErrForged},
		"author":       {nil, func(x *Context) { x.Author = "did:web:b.example" }, space.ErrForged},
		// Both moved alike: the signature is of another revision.
		"rev in both": {func(c *Commit) { c.Rev++ }, func(x *Context) { x.Rev++ }, space.ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			bad, at := good, ctx
			if c.commit != nil {
				c.commit(&bad)
			}
			if c.ctx != nil {
				c.ctx(&at)
			}
			if err := bad.VerifyContext(pub, at); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	t.Run("of another length", func(t *testing.T) {
		raw, err := good.CBOR()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseCBOR(raw); err != nil {
			t.Fatal(err)
		}
		type loose struct {
			Ver  int    `cbor:"ver"`
			Hash []byte `cbor:"hash"`
			IKM  []byte `cbor:"ikm"`
			MAC  []byte `cbor:"mac"`
			Sig  []byte `cbor:"sig"`
			Rev  string `cbor:"rev"`
		}
		for _, n := range []int{0, 31, 33} {
			b, err := space.Marshal(loose{1, good.Hash[:], make([]byte, n), good.MAC[:], good.Sig[:], good.Rev.String()})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseCBOR(b); !errors.Is(err, space.ErrNotCanonical) {
				t.Errorf("keying material of %d bytes: %v", n, err)
			}
		}
	})
}
