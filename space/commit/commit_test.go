package commit

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"reflect"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/kithnet/kith/space"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type vector struct {
	Name        string   `json:"name"`
	Why         string   `json:"why"`
	Expect      bool     `json:"expect"`
	SpecVerdict string   `json:"specVerdict"`
	KeyType     string   `json:"keyType"`
	PrivateKey  hexBytes `json:"privateKeyHex"`
	DIDKey      string   `json:"didKey"`
	Ctx         struct{ Space, Author, Rev string }
	Ver         *int            `json:"ver"`
	Rev         string          `json:"rev"`
	IKM         hexBytes        `json:"ikmHex"`
	Hash        hexBytes        `json:"hashHex"`
	CtxBytes    hexBytes        `json:"ctxHex"`
	MACKey      hexBytes        `json:"macKeyHex"`
	MAC         hexBytes        `json:"macHex"`
	Sig         hexBytes        `json:"sigHex"`
	CBOR        hexBytes        `json:"commitCborHex"`
	CID         string          `json:"commitCid"`
	JSON        json.RawMessage `json:"commitJson"`
}

func vectors(t *testing.T) (valid, invalid []vector) {
	t.Helper()
	b, err := os.ReadFile("testdata/commit.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Valid, Invalid []vector }
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Valid) < 10 || len(f.Invalid) < 30 {
		t.Fatalf("%d valid and %d invalid cases", len(f.Valid), len(f.Invalid))
	}
	return f.Valid, f.Invalid
}

func (v vector) accept() bool {
	if v.SpecVerdict != "" {
		return v.SpecVerdict == "accept"
	}
	return v.Expect
}

// block writes the case's fields as a commit block, whatever their lengths.
func (v vector) block(t *testing.T) []byte {
	t.Helper()
	if len(v.CBOR) > 0 {
		return v.CBOR
	}
	ver, rev := Version, v.Ctx.Rev
	if v.Ver != nil {
		ver = *v.Ver
	}
	if v.Rev != "" {
		rev = v.Rev
	}
	b, err := space.Marshal(map[string]any{
		"ver": ver, "rev": rev, "hash": []byte(v.Hash), "ikm": []byte(v.IKM), "mac": []byte(v.MAC), "sig": []byte(v.Sig),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (v vector) context() (Context, error) {
	id, err := space.ParseID(v.Ctx.Space)
	if err == nil && id.AT() != v.Ctx.Space {
		err = space.ErrNotCanonical
	}
	author, err2 := space.ParseDID(v.Ctx.Author)
	rev, err3 := space.ParseTID(v.Ctx.Rev)
	return Context{id, author, rev}, errors.Join(err, err2, err3)
}

// verify is what a reader does with a block it was sent.
func (v vector) verify(t *testing.T) error {
	t.Helper()
	pub, err := atcrypto.ParsePublicDIDKey(v.DIDKey)
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := v.context()
	if err != nil {
		return err
	}
	c, err := ParseCBOR(v.block(t))
	if err != nil {
		return err
	}
	return c.VerifyContext(pub, ctx)
}

func TestVectors(t *testing.T) {
	valid, invalid := vectors(t)
	for _, v := range append(valid, invalid...) {
		t.Run(v.Name, func(t *testing.T) {
			err := v.verify(t)
			if v.accept() != (err == nil) {
				t.Fatalf("accept %v (%s), got %v", v.accept(), v.Why, err)
			}
			if err != nil && !errors.Is(err, space.ErrForged) && !errors.Is(err, space.ErrMalformed) && !errors.Is(err, space.ErrNotCanonical) {
				t.Errorf("error without a sentinel: %v", err)
			}
		})
	}
}

func TestVectorBytes(t *testing.T) {
	valid, _ := vectors(t)
	for _, v := range valid {
		if !v.accept() || v.CtxBytes == nil {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			ctx, err := v.context()
			if err != nil {
				t.Fatal(err)
			}
			ikm, hash := [32]byte(v.IKM), [32]byte(v.Hash)
			if got := ctx.bytes(ikm); !bytes.Equal(got, v.CtxBytes) {
				t.Errorf("context %x, want %x", got, v.CtxBytes)
			}
			if key, _ := hkdf.Expand(sha256.New, v.IKM, string(v.CtxBytes), 32); v.MACKey != nil && !bytes.Equal(key, v.MACKey) {
				t.Errorf("mac key %x, want %x", key, v.MACKey)
			}
			c, err := FromStatement(ctx.Space, ctx.Author, ctx.Rev, ikm, [64]byte(v.Sig), hash)
			if err != nil || !bytes.Equal(c.MAC[:], v.MAC) {
				t.Fatalf("mac %x, want %x, %v", c.MAC, v.MAC, err)
			}
			if v.CBOR != nil {
				v.checkEncodings(t, c)
			}
		})
	}
}

func (v vector) checkEncodings(t *testing.T, c Commit) {
	t.Helper()
	b, err := c.CBOR()
	if err != nil || !bytes.Equal(b, v.CBOR) {
		t.Errorf("block %x, want %x, %v", b, []byte(v.CBOR), err)
	}
	if cid := space.Sum(b).String(); v.CID != "" && cid != v.CID {
		t.Errorf("cid %s, want %s", cid, v.CID)
	}
	var fromJSON Commit
	if err := json.Unmarshal(v.JSON, &fromJSON); err != nil || fromJSON != c {
		t.Errorf("from JSON: %+v, %v", fromJSON, err)
	}
	out, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if json.Unmarshal(out, &got) != nil || json.Unmarshal(v.JSON, &want) != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("JSON %s, want %s", out, v.JSON)
	}
}

// Signing is randomised for K-256, so signatures are verified, not compared.
func TestSign(t *testing.T) {
	valid, _ := vectors(t)
	for _, v := range valid {
		if v.PrivateKey == nil || !v.accept() {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			var key atcrypto.PrivateKey
			var err error
			if v.KeyType == "p256" {
				key, err = atcrypto.ParsePrivateBytesP256(v.PrivateKey)
			} else {
				key, err = atcrypto.ParsePrivateBytesK256(v.PrivateKey)
			}
			if err != nil {
				t.Fatal(err)
			}
			pub, err := key.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			if pub.DIDKey() != v.DIDKey {
				t.Fatalf("did key %s, want %s", pub.DIDKey(), v.DIDKey)
			}
			ctx, err := v.context()
			if err != nil {
				t.Fatal(err)
			}
			c, err := Sign(key, [32]byte(v.IKM), ctx.Space, ctx.Author, ctx.Rev, [32]byte(v.Hash))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(c.MAC[:], v.MAC) {
				t.Errorf("mac %x, want %x", c.MAC, v.MAC)
			}
			if err := c.Verify(pub, ctx.Space, ctx.Author); err != nil {
				t.Error(err)
			}
		})
	}
}

// Both curves: (r, n-s) fits the curve's equation and is refused.
func TestHighSIsRefused(t *testing.T) {
	orders := map[string]string{
		"k256": "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
		"p256": "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
	}
	valid, _ := vectors(t)
	for _, v := range valid {
		if v.KeyType == "" || !v.accept() || len(v.Sig) != 64 {
			continue
		}
		n, _ := new(big.Int).SetString(orders[v.KeyType], 16)
		high := new(big.Int).Sub(n, new(big.Int).SetBytes(v.Sig[32:])).FillBytes(make([]byte, 32))
		pub, err := atcrypto.ParsePublicDIDKey(v.DIDKey)
		if err != nil {
			t.Fatal(err)
		}
		sig := append(append([]byte{}, v.Sig[:32]...), high...)
		if err := pub.HashAndVerifyLenient(v.CtxBytes, sig); err != nil {
			t.Errorf("%s: the high-S twin is not a signature: %v", v.Name, err)
		}
		v.Sig, v.CBOR = sig, nil
		if err := v.verify(t); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: high S: %v, want ErrForged", v.Name, err)
		}
	}
}

func TestIncompleteContext(t *testing.T) {
	id, _ := space.ParseID("ats://did:web:a.example/com.example.type/self")
	for _, ctx := range []Context{{}, {Space: id, Author: "did:web:a.example"}, {Space: id, Rev: 1}, {Author: "did:web:a.example", Rev: 1}} {
		if _, err := FromStatement(ctx.Space, ctx.Author, ctx.Rev, [32]byte{}, [64]byte{}, [32]byte{}); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%+v: %v, want ErrMalformed", ctx, err)
		}
	}
}

func TestParseCBORRefusals(t *testing.T) {
	block := func(change func(m map[string]any)) []byte {
		m := map[string]any{
			"ver": 1, "rev": "3lbcq3p7ad42c", "hash": make([]byte, 32), "ikm": make([]byte, 32), "mac": make([]byte, 32), "sig": make([]byte, 64),
		}
		change(m)
		b, err := space.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if _, err := ParseCBOR(block(func(map[string]any) {})); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(m map[string]any){
		"version 2":       func(m map[string]any) { m["ver"] = 2 },
		"no version":      func(m map[string]any) { delete(m, "ver") },
		"version as text": func(m map[string]any) { m["ver"] = "1" },
		"no rev":          func(m map[string]any) { delete(m, "rev") },
		"rev not a TID":   func(m map[string]any) { m["rev"] = "3kbcq3p7ad400" },
		"rev a number":    func(m map[string]any) { m["rev"] = 5 },
		"short hash":      func(m map[string]any) { m["hash"] = make([]byte, 31) },
		"long ikm":        func(m map[string]any) { m["ikm"] = make([]byte, 33) },
		"no mac":          func(m map[string]any) { delete(m, "mac") },
		"null mac":        func(m map[string]any) { m["mac"] = nil },
		"short sig":       func(m map[string]any) { m["sig"] = make([]byte, 63) },
		"another field":   func(m map[string]any) { m["x"] = 1 },
	} {
		c, err := ParseCBOR(block(change))
		if !errors.Is(err, space.ErrMalformed) && !errors.Is(err, space.ErrNotCanonical) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func FuzzParseCBOR(f *testing.F) {
	b, err := Commit{Ver: Version, Rev: 1 << 62}.CBOR()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add([]byte("\xa1cver\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCBOR(b)
		if err != nil {
			return
		}
		again, err := c.CBOR()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x parsed and gave %x, %v", b, again, err)
		}
		j, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var back Commit
		if err := json.Unmarshal(j, &back); err != nil || back != c {
			t.Fatalf("%s does not come back: %v", j, err)
		}
	})
}
