package oracle_test

import (
	"bytes"
	"crypto/hpke"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// role is what the 32 bytes of a secret are used for.
type role byte

const (
	asSeed    role = iota // the root of an identity
	asKEM                 // the seed of a device's X-Wing key
	asPUK                 // a per-user key
	asGroup               // a group key
	asAuthor              // an author key
	asControl             // a control key
	asHello               // a key of hellos
	asOther               // an issuer, an invite, a signing key: opens nothing
	roles
)

type secret struct {
	key [32]byte
	role
}

// item is a ciphertext, and how the key that opens it comes from a secret in
// the role that the protocol says.
type item struct {
	name string // what it is, see world
	role

	// One of the two: an AEAD key of key(secret), or an HPKE seal to pub.
	key            func([]byte) []byte
	nonce, aad, ct []byte

	hpke bool
	pub  []byte // whom it was sealed to; nil: not known, try everybody
	info []byte

	// opened reads on in the plaintext.
	opened func(a *attacker, plain []byte)
}

// attacker knows secrets and ciphertexts, and learns from them until nothing
// more opens. It has its own derivations: what the packages refuse to open it
// opens anyway, if the key fits.
type attacker struct {
	// everything: each given secret is tried in every role on every
	// ciphertext, not only in the role it was made for.
	everything bool
	people     []identity.Commitment // everybody there is
	kems       kems                  // shared by the attackers of one world

	secrets []secret
	items   []*item
	known   map[secret]bool
	open    map[string]bool // names of items
	done    map[*item]bool
}

// kems remembers the X-Wing keys of secrets, which cost much to make.
type kems map[secret]kem

type kem struct {
	sk  hpke.PrivateKey
	pub []byte
}

func newAttacker(people []identity.Commitment, k kems, everything bool) *attacker {
	return &attacker{
		everything: everything, people: people, kems: k,
		known: map[secret]bool{}, open: map[string]bool{}, done: map[*item]bool{},
	}
}

// hold gives the attacker a secret to begin with.
func (a *attacker) hold(key []byte, r role) {
	a.learn(key, r)
	if a.everything {
		for r := range roles {
			a.learn(key, r)
		}
	}
}

// learn takes a secret, and what derives from it, and tries them.
func (a *attacker) learn(key []byte, r role) {
	s := secret{[32]byte(key), r}
	if len(key) != 32 || a.known[s] {
		return
	}
	a.known[s] = true
	a.secrets = append(a.secrets, s)
	switch r {
	case asGroup:
		a.learn(space.KDF(key, space.LabelCtl, nil, 32), asControl)
		a.learn(space.KDF(key, space.LabelHelloKey, nil, 32), asHello)
		for _, c := range a.people {
			a.learn(space.KDF(key, space.LabelAuthor, c[:], 32), asAuthor)
		}
	case asAuthor:
		a.learn(space.KDF(key, space.LabelHelloKey, nil, 32), asHello)
	}
	for _, it := range slices.Clone(a.items) {
		a.try(it, s)
	}
}

// see takes a ciphertext and tries it.
func (a *attacker) see(it *item) {
	a.items = append(a.items, it)
	for i := 0; i < len(a.secrets); i++ {
		a.try(it, a.secrets[i])
	}
}

func (a *attacker) try(it *item, s secret) {
	if it.role != s.role || a.done[it] {
		return
	}
	plain, ok := a.unseal(it, s)
	if !ok {
		return
	}
	a.done[it] = true
	if it.name != "" {
		a.open[it.name] = true
	}
	if it.opened != nil {
		it.opened(a, plain)
	}
}

func (a *attacker) unseal(it *item, s secret) ([]byte, bool) {
	if it.hpke {
		k := a.kems.of(s)
		if it.pub != nil && !a.everything && !bytes.Equal(it.pub, k.pub) {
			return nil, false
		}
		plain, err := hpke.Open(k.sk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), it.info, it.ct)
		return plain, err == nil
	}
	aead, err := chacha20poly1305.NewX(it.key(s.key[:]))
	if err != nil {
		panic(err)
	}
	plain, err := aead.Open(nil, it.nonce, it.ct, it.aad)
	return plain, err == nil
}

func (k kems) of(s secret) kem {
	if have, ok := k[s]; ok {
		return have
	}
	suite := hpke.MLKEM768X25519()
	var sk hpke.PrivateKey
	var err error
	switch s.role {
	case asSeed:
		sk, err = suite.DeriveKeyPair(space.KDF(s.key[:], space.LabelIDKEM, nil, 32))
	case asPUK:
		sk, err = suite.DeriveKeyPair(space.KDF(s.key[:], space.LabelPUKKEM, nil, 32))
	case asGroup:
		sk, err = suite.DeriveKeyPair(space.KDF(s.key[:], space.LabelDelegate, nil, 32))
	default:
		sk, err = suite.NewPrivateKey(s.key[:])
	}
	if err != nil {
		panic(err)
	}
	k[s] = kem{sk, sk.PublicKey().Bytes()}
	return k[s]
}

// Ways from a secret to an AEAD key.

func itself(k []byte) []byte { return k }

func derived(l space.Label, ctx ...[]byte) func([]byte) []byte {
	return func(k []byte) []byte { return space.KDF(k, l, bytes.Join(ctx, nil), 32) }
}

// boxed is an item whose bytes are nonce ‖ ciphertext.
func boxed(name string, r role, key func([]byte) []byte, aad, b []byte, opened func(*attacker, []byte)) *item {
	return &item{name: name, role: r, key: key, nonce: b[:24], ct: b[24:], aad: aad, opened: opened}
}

// wrapped is an item sealed with HPKE.
func wrapped(name string, r role, pub, info, ct []byte, opened func(*attacker, []byte)) *item {
	return &item{name: name, role: r, hpke: true, pub: pub, info: info, ct: ct, opened: opened}
}

// gives is the reading of a plaintext that is a secret.
func gives(r role) func(*attacker, []byte) {
	return func(a *attacker, plain []byte) { a.learn(plain, r) }
}
