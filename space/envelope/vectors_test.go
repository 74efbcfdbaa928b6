package envelope

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/sync/lthash"
)

// The vectors of docs/protocol.md, "Test vectors".
const (
	vectorTopic    = "e3832b0c524de45b2ddfb285101a18451500c896cbd4e68e2b052699debfd5c6"
	vectorChain    = "d759793bbc13a2819a827c76adb6fba8a49aee007f49f2d0992d99b825ad2c48"
	vectorEntryKey = "6d73789cb615086060d402557fdd0433d69032ab846c816366652c7d3c5cab67"
	vectorID       = "b8e1a60d69f002f3061abf1133b5f243474419570d01c77051e8524b168fb63c"
	vectorDigest   = "bc5ea22e4e386931fa953ba71b5404d37c6b6b8cd6da02653a3a7ef92fb61772"
	vectorEmpty    = "e5a00aa9991ac8a5ee3109844d84a55583bd20572ad3ffcd42792f3c36b183ad"
)

// vectorEnvelope seals "hello world" as the vectors do.
func vectorEnvelope(t testing.TB) Envelope {
	t.Helper()
	chainKey := key(0x44)
	h := Header{Type: Entry, Topic: newIssuer(0x33).topic, Chain: ChainID(public(chainKey)), Seq: 7}
	copy(h.Prev[:], bytes.Repeat([]byte{0x55}, 32))
	nonce := [24]byte(bytes.Repeat([]byte{0x66}, 24))

	plain := binary.BigEndian.AppendUint32(nil, uint32(len("hello world")))
	plain = append(plain, "hello world"...)
	plain = append(plain, make([]byte, PaddedSize(len(plain))-len(plain))...)
	entryKey, err := hex.DecodeString(vectorEntryKey)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := chacha20poly1305.NewX(entryKey)
	if err != nil {
		t.Fatal(err)
	}
	ct := aead.Seal(nil, nonce[:], plain, h.AAD(nonce, len(plain)+TagSize))
	raw, err := Build(h, nonce, ct, func(m []byte) []byte { return ed25519.Sign(chainKey, m) })
	if err != nil {
		t.Fatal(err)
	}
	e, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestVectors(t *testing.T) {
	e := vectorEnvelope(t)
	topic, chain, id := e.Topic(), e.Chain(), e.ID()
	var one, empty lthash.State
	one.Add(id[:])
	digest, none := one.Sum(), empty.Sum()
	for _, c := range []struct {
		name, want string
		got        []byte
	}{
		{"topic_id", vectorTopic, topic[:]},
		{"chain_id", vectorChain, chain[:]},
		{"envelope_id", vectorID, id[:]},
		{"sync digest", vectorDigest, digest[:]},
		{"empty", vectorEmpty, none[:]},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s is %s, want %s", c.name, got, c.want)
		}
	}
	if e.Len() != 472 {
		t.Errorf("envelope is %d bytes, want 472", e.Len())
	}
	if !e.VerifySignature() {
		t.Error("the vector's signature does not verify")
	}
	if got, want := NewTopic(topic).Digest(), none; got != want {
		t.Errorf("empty topic's digest is %x, want %x", got, want)
	}
}
