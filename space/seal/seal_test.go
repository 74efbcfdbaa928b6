package seal

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

// ones is a reader of one byte for ever.
type ones byte

func (o ones) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(o)
	}
	return len(p), nil
}

// broken fails.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func unhex(s string) []byte { return must(hex.DecodeString(s)) }

func person(b byte) identity.Commitment { return identity.Commitment(fill(b, 32)) }

// puk is the per-user key whose secret is 32 times b.
func puk(gen uint32, b byte) identity.PUK {
	raw := binary.BigEndian.AppendUint32([]byte{1}, gen)
	return must(identity.UnmarshalPUK(append(raw, fill(b, 32)...)))
}

// epoch is one drawn epoch with a writer key for whoever asks.
type epoch struct {
	rand   io.Reader
	keys   Keys
	issuer Issuer
}

func newEpoch(seed byte) epoch {
	r := random(seed)
	return epoch{rand: r, keys: Full(must(NewGroupKey(r))), issuer: must(NewIssuer(r))}
}

func (e epoch) credential(c identity.Commitment) Credential {
	w := must(NewWriterKey(e.rand))
	return Credential{
		Grant:   e.issuer.Grant(w.Public(), 2, 1_900_000_000),
		Voucher: e.issuer.Vouch(w.Public(), c),
		Writer:  w,
	}
}

func (e epoch) writer(c identity.Commitment) *Writer {
	return must(NewWriter(e.rand, e.credential(c), e.issuer.Topic(), e.keys, c))
}

// chain is a writer, its hello and what comes after.
func (e epoch) chain(c identity.Commitment, bodies ...[]byte) (*Writer, []envelope.Envelope) {
	w := e.writer(c)
	run, _, err := w.Hello(e.rand, testHello())
	if err != nil {
		panic(err)
	}
	for _, b := range bodies {
		run = append(run, must(w.Seal(e.rand, envelope.Entry, b))...)
	}
	return w, run
}

func (e epoch) reader(w *Writer) *Reader {
	return must(NewReader(e.keys, w.Chain(), w.Certificate()))
}

func testHello() Hello {
	return Hello{
		Device: [32]byte(fill(7, 32)), PUKGen: 3,
		PrevChain:   &PrevChain{Chain: envelope.ChainID(fill(8, 32)), Seq: 41, ID: envelope.ID(fill(9, 32))},
		Ctl:         space.Head{Term: 1, Seq: 5, Hash: [32]byte(fill(10, 32))},
		IdentityLog: [][]byte{[]byte("first"), []byte("second")},
		Addrs:       []string{"/ip4/192.0.2.1/udp/4001/quic-v1"},
		Tags:        []Tag{{Slot: 1, MAC: [16]byte(fill(1, 16))}, {Slot: 4, MAC: [16]byte(fill(2, 16))}},
	}
}

// drain opens a run and returns the bodies and the first error.
func drain(r *Reader, run []envelope.Envelope) (bodies [][]byte, err error) {
	for _, e := range run {
		b, done, err := r.Open(e)
		if err != nil {
			return bodies, err
		}
		if done {
			bodies = append(bodies, b)
		}
	}
	return bodies, nil
}

// text is n bytes that are not all alike.
func text(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + 1)
	}
	return b
}

func TestVectors(t *testing.T) {
	gk := must(UnmarshalGroupKey(fill(0x22, 32)))
	issuer := must(UnmarshalIssuer(fill(0x33, 32)))
	chain := signerOf(must(secretFrom(fill(0x44, 32))))
	c := identity.Commitment(unhex("4cab13ac917b0cdeb99964fe0256a9f3393564fed58e0d47fcc85e18eaa71b50"))

	kid, topic, id := gk.KID(), issuer.Topic(), envelope.ChainID(chain.Public())
	ak := gk.Author(c)
	ek := newEntryKeys(ak.secret, space.LabelEntry, id).at(7)
	h := envelope.Header{Type: envelope.Entry, Topic: topic, Chain: id, Seq: 7, Prev: envelope.ID(fill(0x55, 32))}
	env, err := sealPart(ones(0x66), ek, h, []byte("hello world"), false, func(m []byte) []byte {
		return ed25519.Sign(chain.key(), m)
	})
	if err != nil {
		t.Fatal(err)
	}
	envID := env.ID()
	for _, v := range []struct {
		name, want string
		got        []byte
	}{
		{"kid", "abf76504d0af4dcb5172842a8ee3f9321b2a5c9bdbdb65c7d1a952b9c7b0e4ec", kid[:]},
		{"AK", "928ebdeb5e92d4c77ac20af2315219f6ca6055bf19f0de41d9fc527e1299246a", ak.Marshal()},
		{"topic_id", "e3832b0c524de45b2ddfb285101a18451500c896cbd4e68e2b052699debfd5c6", topic[:]},
		{"chain_id", "d759793bbc13a2819a827c76adb6fba8a49aee007f49f2d0992d99b825ad2c48", id[:]},
		{"entry key", "6d73789cb615086060d402557fdd0433d69032ab846c816366652c7d3c5cab67", ek},
		{"envelope_id", "b8e1a60d69f002f3061abf1133b5f243474419570d01c77051e8524b168fb63c", envID[:]},
	} {
		if got := hex.EncodeToString(v.got); got != v.want {
			t.Errorf("%s = %s, want %s", v.name, got, v.want)
		}
	}
	if n := len(env.Bytes()); n != 472 {
		t.Errorf("envelope is %d bytes, want 472", n)
	}
	part, more, err := openPart(ek, env)
	if err != nil || more || string(part) != "hello world" {
		t.Errorf("open = %q, %v, %v", part, more, err)
	}
}

// TestEntryKeysNaive compares the kept HMAC state with the derivation as written.
func TestEntryKeysNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parent := must(newSecret(random(rapid.Byte().Draw(t, "parent"))))
		chain := envelope.ChainID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "chain"))
		l := rapid.SampledFrom([]space.Label{space.LabelEntry, space.LabelCtlEntry}).Draw(t, "label")
		k := newEntryKeys(parent, l, chain)
		for _, seq := range rapid.SliceOf(rapid.Uint64()).Draw(t, "seqs") {
			want := space.KDF(parent.raw(), l, binary.BigEndian.AppendUint64(chain[:], seq), 32)
			if got := k.at(seq); !bytes.Equal(got, want) {
				t.Fatalf("%s key of %d = %x, want %x", l, seq, got, want)
			}
		}
	})
}

func TestRoundTrip(t *testing.T) {
	e := newEpoch(1)
	alice := person(1)
	sizes := []int{1, 11, 251, 252, 253, 5000, maxPart - 1, maxPart, maxPart + 1, 2 * maxPart, MaxBody}
	bodies := make([][]byte, len(sizes))
	for i, n := range sizes {
		bodies[i] = text(n)
	}
	w, run := e.chain(alice, bodies...)
	last := run[len(run)-1]
	if h, ok := w.Head(); !ok || h != last.Head() {
		t.Errorf("head = %v, %v", h, ok)
	}

	// What a Topic accepts is what a Reader is given.
	topic := envelope.NewTopic(e.issuer.Topic())
	cert := w.Certificate()
	adv, err := topic.Check(&cert, run)
	if err != nil {
		t.Fatal(err)
	}
	r := e.reader(w)
	got, err := drain(r, adv.New)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got[1:], bodies, bytes.Equal) {
		t.Error("bodies differ")
	}
	if c, ok := r.Author(); !ok || c != alice {
		t.Errorf("author = %v, %v", c, ok)
	}
	if d, ok := r.Device(); !ok || d != testHello().Device {
		t.Errorf("device = %v, %v", d, ok)
	}
	h, ok := r.Hello()
	if !ok || h.C != alice || h.PUKGen != 3 || len(h.Tags) != 2 || h.PrevChain.Seq != 41 {
		t.Errorf("hello = %+v, %v", h, ok)
	}
	if r.Position() != uint64(len(run)) || r.Next() != r.Position() {
		t.Errorf("position %d, next %d, want %d", r.Position(), r.Next(), len(run))
	}
}

func TestControlBodies(t *testing.T) {
	e := newEpoch(2)
	w, run := e.chain(person(1), text(10))
	long := text(3 * maxPart)
	run = append(run, must(w.Seal(e.rand, envelope.Control, long))...)
	run = append(run, must(w.Seal(e.rand, envelope.Entry, text(20)))...)
	got, err := drain(e.reader(w), run)
	if err != nil || len(got) != 4 || !bytes.Equal(got[2], long) || !bytes.Equal(got[3], text(20)) {
		t.Fatalf("%d bodies, %v", len(got), err)
	}

	// A member that reads only itself follows the log in another's chain.
	self, err := e.keys.Self(person(9))
	if err != nil {
		t.Fatal(err)
	}
	r := must(NewReader(self, w.Chain(), w.Certificate()))
	var bodies [][]byte
	for _, env := range run {
		b, done, err := r.Open(env)
		if env.Type() != envelope.Control && !errors.Is(err, space.ErrNoKey) {
			t.Fatalf("%v at %d opened: %v", env.Type(), env.Seq(), err)
		}
		if done {
			bodies = append(bodies, b)
		}
	}
	if len(bodies) != 1 || !bytes.Equal(bodies[0], long) {
		t.Fatalf("%d control bodies", len(bodies))
	}
	if _, ok := r.Author(); ok {
		t.Error("author of a chain it cannot read")
	}

	// Promoted, it reads the chain from its beginning.
	state := must(r.MarshalBinary())
	r = must(RestoreReader(e.keys, w.Chain(), w.Certificate(), state))
	if r.Position() != 0 {
		t.Fatalf("position %d", r.Position())
	}
	if got, err := drain(r, run); err != nil || len(got) != 4 {
		t.Fatalf("%d bodies, %v", len(got), err)
	}
	r = must(RestoreReader(self, w.Chain(), w.Certificate(), state))
	if r.Position() != uint64(len(run)) {
		t.Fatalf("position %d", r.Position())
	}
}

// TestSelfWriter: a writer without the group key is read by itself, by a full
// reader that guesses, and by nobody else.
func TestSelfWriter(t *testing.T) {
	e := newEpoch(3)
	alice, bob := person(1), person(2)
	self := must(e.keys.Self(alice))
	w := must(NewWriter(e.rand, e.credential(alice), e.issuer.Topic(), self, alice))
	run, _, err := w.Hello(e.rand, Hello{IdentityLog: [][]byte{text(60_000), text(60_000)}})
	if err != nil || len(run) != 2 {
		t.Fatal(len(run), err)
	}
	run = append(run, must(w.Seal(e.rand, envelope.Entry, text(100)))...)

	if got, err := drain(must(NewReader(self, w.Chain(), w.Certificate())), run); err != nil || len(got) != 2 {
		t.Errorf("itself: %d bodies, %v", len(got), err)
	}
	if _, err := drain(e.reader(w), run); !errors.Is(err, space.ErrForged) {
		t.Errorf("without a guess: %v", err)
	}
	r := e.reader(w)
	r.Guess(slices.Values([]identity.Commitment{bob}))
	if _, err := drain(r, run); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("not in the roster yet: %v", err)
	}
	r.Guess(slices.Values([]identity.Commitment{bob, alice}))
	if got, err := drain(r, run); err != nil || len(got) != 2 {
		t.Errorf("in the roster: %d bodies, %v", len(got), err)
	}
	if _, err := NewWriter(e.rand, e.credential(bob), e.issuer.Topic(), self, bob); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("as another: %v", err)
	}
}

// TestHelloUnderAnothersKey: a full writer cannot pass its hello off under the
// author key of another.
func TestHelloUnderAnothersKey(t *testing.T) {
	e := newEpoch(4)
	alice, bob := person(1), person(2)
	w := e.writer(bob)
	w.hello = e.keys.group.Author(alice).helloKey()
	run, _, err := w.Hello(e.rand, Hello{})
	if err != nil {
		t.Fatal(err)
	}
	r := e.reader(w)
	r.Guess(slices.Values([]identity.Commitment{alice, bob}))
	if _, err := drain(r, run); !errors.Is(err, space.ErrForged) {
		t.Errorf("full reader: %v", err)
	}
	r = must(NewReader(must(e.keys.Self(alice)), w.Chain(), w.Certificate()))
	if _, err := drain(r, run); !errors.Is(err, space.ErrForged) {
		t.Errorf("alice: %v", err)
	}
}

// TestFlips changes every field of a hello, an entry and a control envelope.
func TestFlips(t *testing.T) {
	e := newEpoch(5)
	w, run := e.chain(person(1), text(30))
	run = append(run, must(w.Seal(e.rand, envelope.Control, text(30)))...)
	const tail = 136 // where the ciphertext begins
	for i, env := range run {
		n := len(env.Bytes())
		for off := range n {
			if off > 140 && off < n-90 && off%17 != 0 {
				continue
			}
			raw := bytes.Clone(env.Bytes())
			raw[off] ^= 1 << (off % 8)
			bad, err := envelope.Parse(raw)
			if err != nil {
				continue
			}
			if bad.VerifySignature() {
				t.Fatalf("envelope %d, byte %d: signature holds", i, off)
			}
			if off >= n-envelope.SignatureSize {
				continue // not sealed: only the signature covers itself
			}
			r := e.reader(w)
			if _, err := drain(r, run[:i]); err != nil {
				t.Fatal(err)
			}
			_, _, err = r.Open(bad)
			moved := bad.Chain() != env.Chain() || bad.Seq() != env.Seq()
			switch {
			case moved && errors.Is(err, ErrOrder):
			case !moved && errors.Is(err, space.ErrForged):
			case off == 1 && errors.Is(err, space.ErrMalformed): // the type may not stand there
			default:
				t.Errorf("envelope %d, byte %d (ciphertext from %d): %v", i, off, tail, err)
			}
		}
	}
}

func TestWrongPlace(t *testing.T) {
	e, other := newEpoch(6), newEpoch(7)
	w, run := e.chain(person(1), text(30), text(30))

	r := must(NewReader(other.keys, w.Chain(), w.Certificate()))
	if _, err := drain(r, run); !errors.Is(err, space.ErrForged) {
		t.Errorf("another epoch's keys: %v", err)
	}

	// The same ciphertext at another seq or in another chain, well signed.
	move := func(env envelope.Envelope, chain envelope.ChainID, seq uint64) envelope.Envelope {
		h := envelope.Header{Type: env.Type(), Topic: env.Topic(), Chain: chain, Seq: seq, Prev: env.Prev()}
		return must(envelope.Parse(must(envelope.Build(h, env.Nonce(), env.Ciphertext(), w.sign))))
	}
	r = e.reader(w)
	if _, err := drain(r, run[:2]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Open(move(run[1], w.Chain(), 2)); !errors.Is(err, space.ErrForged) {
		t.Errorf("another seq: %v", err)
	}
	w2, run2 := e.chain(person(1))
	r = e.reader(w2)
	if _, err := drain(r, run2); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Open(run[1]); !errors.Is(err, ErrOrder) {
		t.Errorf("another chain: %v", err)
	}
	if _, _, err := r.Open(move(run[1], w2.Chain(), 1)); !errors.Is(err, space.ErrForged) {
		t.Errorf("moved to another chain: %v", err)
	}
}

// TestInAnothersName: no node takes an entry for somebody the issuer does not
// vouch for, however well it is sealed.
func TestInAnothersName(t *testing.T) {
	e := newEpoch(8)
	alice, mallory := person(1), person(6)
	cred := e.credential(mallory)
	if _, err := NewWriter(e.rand, cred, e.issuer.Topic(), e.keys, alice); !errors.Is(err, space.ErrForged) {
		t.Errorf("writer: %v", err)
	}
	for name, voucher := range map[string][64]byte{
		"own voucher":   cred.Voucher,
		"her voucher":   e.credential(alice).Voucher,
		"other issuer":  newEpoch(9).issuer.Vouch(cred.Writer.Public(), alice),
		"none":          {},
		"self-vouching": [64]byte(space.Sign(cred.Writer.key(), space.LabelVouch, cred.Writer.Public(), alice[:])),
	} {
		w := must(NewWriter(e.rand, cred, e.issuer.Topic(), e.keys, mallory))
		w.who, w.vouch = alice, voucher
		w.entry = newEntryKeys(e.keys.group.Author(alice).secret, space.LabelEntry, w.Chain())
		run, cert, err := w.Hello(e.rand, Hello{})
		if err != nil {
			t.Fatal(err)
		}
		h := Hello{C: alice, Voucher: voucher}
		if err := CheckHello(h, cert); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: CheckHello = %v", name, err)
		}
		run = append(run, must(w.Seal(e.rand, envelope.Entry, text(9)))...)
		r := e.reader(w)
		if _, err := drain(r, run); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := r.Open(run[1]); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: after it: %v", name, err)
		}
		if _, ok := r.Author(); ok || r.Position() != 0 {
			t.Errorf("%s: author known, position %d", name, r.Position())
		}
	}
	w := e.writer(alice)
	_, cert, err := w.Hello(e.rand, Hello{C: mallory})
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckHello(Hello{C: alice, Voucher: w.vouch}, cert); err != nil {
		t.Error(err)
	}
}

func TestCredential(t *testing.T) {
	e := newEpoch(10)
	alice := person(1)
	good := e.credential(alice)
	again := must(UnmarshalCredential(good.Marshal()))
	if err := again.Check(e.issuer.Topic(), alice); err != nil {
		t.Fatal(err)
	}
	if again.NotAfter() != 1_900_000_000 {
		t.Errorf("not after %d", again.NotAfter())
	}
	for name, c := range map[string]func(*Credential) envelope.TopicID{
		"topic":   func(*Credential) envelope.TopicID { return newEpoch(11).issuer.Topic() },
		"grant":   func(c *Credential) envelope.TopicID { c.Grant[70] ^= 1; return e.issuer.Topic() },
		"voucher": func(c *Credential) envelope.TopicID { c.Voucher[3] ^= 1; return e.issuer.Topic() },
		"writer": func(c *Credential) envelope.TopicID {
			c.Writer = must(NewWriterKey(e.rand))
			return e.issuer.Topic()
		},
	} {
		bad := good
		topic := c(&bad)
		if err := bad.Check(topic, alice); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: check = %v", name, err)
		}
		if _, err := NewWriter(e.rand, bad, topic, e.keys, alice); !errors.Is(err, space.ErrForged) {
			t.Errorf("%s: new writer = %v", name, err)
		}
	}
	if _, err := UnmarshalCredential(good.Marshal()[1:]); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("short: %v", err)
	}
}

func TestWriterOrder(t *testing.T) {
	e := newEpoch(12)
	w := e.writer(person(1))
	if _, err := w.Seal(e.rand, envelope.Entry, text(1)); !errors.Is(err, ErrOrder) {
		t.Errorf("entry before hello: %v", err)
	}
	if _, ok := w.Head(); ok {
		t.Error("head before hello")
	}
	if _, _, err := w.Hello(broken{}, Hello{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("no randomness: %v", err)
	}
	run, _, err := w.Hello(e.rand, Hello{})
	if err != nil || run[0].Seq() != 0 {
		t.Fatal("an error took a place", err)
	}
	if _, _, err := w.Hello(e.rand, Hello{}); !errors.Is(err, ErrOrder) {
		t.Errorf("second hello: %v", err)
	}
	for name, v := range map[string]struct {
		t    envelope.Type
		body []byte
		want error
	}{
		"empty": {envelope.Entry, nil, space.ErrMalformed},
		"large": {envelope.Entry, make([]byte, MaxBody+1), space.ErrTooLarge},
		"type":  {envelope.Sealed, text(1), space.ErrUnsupported},
		"hello": {envelope.Hello, text(1), space.ErrUnsupported},
	} {
		if _, err := w.Seal(e.rand, v.t, v.body); !errors.Is(err, v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The randomness ends inside a body of several parts: nothing has happened.
	if _, err := w.Seal(io.LimitReader(e.rand, 30), envelope.Entry, text(2*maxPart)); err == nil {
		t.Error("sealed without randomness")
	}
	more := must(w.Seal(e.rand, envelope.Entry, text(5)))
	if more[0].Seq() != 1 || more[0].Prev() != run[0].ID() {
		t.Errorf("seq %d", more[0].Seq())
	}
	w.Close()
	w.Close()
	if _, err := w.Seal(e.rand, envelope.Entry, text(5)); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	unused := e.writer(person(1))
	held := unused.chain.at()
	unused.Close()
	if _, _, err := unused.Hello(e.rand, Hello{}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed before the hello: %v", err)
	}
	if _, err := unused.Seal(e.rand, envelope.Entry, text(5)); !errors.Is(err, ErrClosed) {
		t.Errorf("closed before the hello: %v", err)
	}
	if !bytes.Equal(held.priv, make([]byte, 64)) || held.k != [32]byte{} {
		t.Error("chain key outlives Close")
	}
}

// TestInterrupted restores a reader at every point of a chain of mixed bodies.
func TestInterrupted(t *testing.T) {
	e := newEpoch(13)
	w := e.writer(person(1))
	run, cert, err := w.Hello(e.rand, Hello{IdentityLog: [][]byte{text(60_000), text(60_000)}})
	if err != nil {
		t.Fatal(err)
	}
	bodies := [][]byte{text(10), text(3*maxPart + 5), text(11)}
	for _, b := range bodies {
		run = append(run, must(w.Seal(e.rand, envelope.Entry, b))...)
	}
	for cut := range run {
		r := e.reader(w)
		before, err := drain(r, run[:cut])
		if err != nil {
			t.Fatal(err)
		}
		state := must(r.MarshalBinary())
		r = must(RestoreReader(e.keys, w.Chain(), cert, state))
		if r.Position() > uint64(cut) {
			t.Fatalf("cut %d: position %d", cut, r.Position())
		}
		after, err := drain(r, run[r.Position():])
		if err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		got := append(before, after...)
		if len(got) != 4 || !slices.EqualFunc(got[1:], bodies, bytes.Equal) {
			t.Fatalf("cut %d: %d bodies", cut, len(got))
		}
		if c, ok := r.Author(); !ok || c != person(1) {
			t.Fatalf("cut %d: author %v", cut, ok)
		}
	}
}

// TestBodyInsideBody: another type inside a body of several parts ends a chain.
func TestBodyInsideBody(t *testing.T) {
	e := newEpoch(14)
	w, run := e.chain(person(1))
	first := func(typ envelope.Type, part []byte, more bool) envelope.Envelope {
		h := envelope.Header{Type: typ, Topic: w.topic, Chain: w.id, Seq: w.next, Prev: w.last}
		env := must(sealPart(e.rand, w.key(typ, w.next), h, part, more, w.sign))
		w.next, w.last = w.next+1, env.ID()
		return env
	}
	run = append(run, first(envelope.Entry, text(maxPart), true), first(envelope.Control, text(5), false))
	r := e.reader(w)
	if _, err := drain(r, run); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("control inside an entry: %v", err)
	}
	if r.Position() != 1 {
		t.Errorf("position %d", r.Position())
	}

	// A body that never ends is let go of at the cap, and the chain with it.
	w, run = e.chain(person(2))
	for range MaxBody/maxPart + 2 {
		run = append(run, first(envelope.Entry, text(maxPart), true))
	}
	r = e.reader(w)
	if _, err := drain(r, run); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("endless body: %v", err)
	}
	if r.part != nil || r.Position() != 1 {
		t.Errorf("keeps %d bytes, position %d", len(r.part), r.Position())
	}
	if _, _, err := r.Open(run[len(run)-1]); !errors.Is(err, space.ErrTooLarge) {
		t.Errorf("after it: %v", err)
	}

	// A second hello, with which a chain might change hands.
	w, run = e.chain(person(3))
	second := must(Hello{C: person(3), Voucher: w.vouch, Addrs: []string{"elsewhere"}}.Encode())
	run = append(run, first(envelope.Hello, second, false))
	if _, err := drain(e.reader(w), run); !errors.Is(err, space.ErrMalformed) {
		t.Errorf("second hello: %v", err)
	}
}

// TestPadding: a body has one encoding.
func TestPadding(t *testing.T) {
	plain := func(n uint32, size int) []byte {
		return append(binary.BigEndian.AppendUint32(nil, n), make([]byte, size-4)...)
	}
	dirty := plain(5, 256)
	dirty[255] = 1
	next := plain(5, 256)
	next[9] = 1
	for name, v := range map[string]struct {
		plain []byte
		want  error
	}{
		"last byte":       {dirty, space.ErrNotCanonical},
		"first byte":      {next, space.ErrNotCanonical},
		"too long":        {plain(253, 256), space.ErrMalformed},
		"huge":            {plain(1<<31-1, 256), space.ErrMalformed},
		"padded too much": {plain(5, 272), space.ErrMalformed},
		"empty":           {plain(0, 256), space.ErrMalformed},
		"short more":      {plain(5|moreBit, 256), space.ErrNotCanonical},
		"empty more":      {plain(moreBit, 256), space.ErrMalformed},
		"no length":       {[]byte{0, 0, 0}, space.ErrMalformed},
		"nothing":         {nil, space.ErrMalformed},
	} {
		if _, _, err := splitPart(v.plain); !errors.Is(err, v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, more, err := splitPart(plain(maxPart|moreBit, envelope.MaxPadded)); err != nil || !more {
		t.Errorf("full part: %v, %v", more, err)
	}
}

func TestReaderState(t *testing.T) {
	e := newEpoch(15)
	w, run := e.chain(person(1), text(1))
	r := e.reader(w)
	if _, err := drain(r, run); err != nil {
		t.Fatal(err)
	}
	good := must(r.MarshalBinary())
	for name, change := range map[string]func([]byte) []byte{
		"short":          func(b []byte) []byte { return b[1:] },
		"version":        func(b []byte) []byte { b[0] = 9; return b },
		"author state":   func(b []byte) []byte { b[1] = 3; return b },
		"unknown author": func(b []byte) []byte { b[1] = 0; return b },
		"past the end":   func(b []byte) []byte { b[2] = 0x80; return b },
		"foreign author": func(b []byte) []byte { b[1] = 2; return b },
		"at the start":   func(b []byte) []byte { clear(b[2:10]); return b },
	} {
		if _, err := RestoreReader(e.keys, w.Chain(), w.Certificate(), change(bytes.Clone(good))); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	self := must(e.keys.Self(person(5)))
	if _, err := RestoreReader(self, w.Chain(), w.Certificate(), good); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("without the author's key: %v", err)
	}
	if _, err := NewReader(Keys{}, w.Chain(), w.Certificate()); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("without keys: %v", err)
	}
	if _, err := NewWriter(e.rand, e.credential(person(1)), e.issuer.Topic(), Keys{}, person(1)); !errors.Is(err, space.ErrNoKey) {
		t.Errorf("without keys: %v", err)
	}
}

func manyTags(n int) []Tag {
	tags := make([]Tag, n)
	for i := range tags {
		tags[i].Slot = uint32(i)
	}
	return tags
}

func TestHelloCaps(t *testing.T) {
	for name, change := range map[string]func(*Hello){
		"tags":         func(h *Hello) { h.Tags = manyTags(MaxTags + 1) },
		"tag order":    func(h *Hello) { h.Tags[0].Slot = 4 },
		"addrs":        func(h *Hello) { h.Addrs = make([]string, MaxAddrs+1) },
		"addr":         func(h *Hello) { h.Addrs[0] = string(text(MaxAddrSize + 1)) },
		"empty addr":   func(h *Hello) { h.Addrs[0] = "" },
		"log":          func(h *Hello) { h.IdentityLog = make([][]byte, MaxLogEntries+1) },
		"log entry":    func(h *Hello) { h.IdentityLog[0] = text(MaxLogEntry + 1) },
		"empty entry":  func(h *Hello) { h.IdentityLog[0] = nil },
		"not utf-8":    func(h *Hello) { h.Addrs[0] = "\xff" },
		"past 63 bits": func(h *Hello) { h.PrevChain.Seq = 1 << 63 },
	} {
		h := testHello()
		change(&h)
		if _, err := h.Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	h := testHello()
	h.Tags = manyTags(MaxTags)
	b, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeHello(b)
	if err != nil || len(got.Tags) != MaxTags {
		t.Fatal(err)
	}
	if _, ok := got.Tag(255); !ok {
		t.Error("tag 255 is missing")
	}
	if _, ok := got.Tag(256); ok {
		t.Error("tag 256 is there")
	}
	if got := fmt.Sprint(must(DecodeHello(must(Hello{}.Encode())))); got != fmt.Sprint(Hello{}) {
		t.Errorf("empty hello = %s", got)
	}
}
