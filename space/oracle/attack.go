package oracle

import (
	"bytes"
	"crypto/hpke"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Role is what the 32 bytes of a secret are used for.
type Role byte

// The roles.
const (
	AsSeed    Role = iota // the root of an identity
	AsKEM                 // the seed of a device's X-Wing key
	AsPUK                 // a per-user key
	AsGroup               // a group key
	AsAuthor              // an author key
	AsControl             // a control key
	AsHello               // a key of hellos
	AsOther               // an issuer, an invite, a signing key: opens nothing
	roles
)

type secret struct {
	key  [32]byte
	role Role
}

// Item is a ciphertext, and how the key that opens it comes from a secret in
// the role that the protocol says.
type Item struct {
	Name string // told when it is open; "": nobody asks
	Role Role

	// Either an AEAD key, Key(secret), or an HPKE seal.
	Key            func([]byte) []byte
	Nonce, AAD, CT []byte

	HPKE bool
	Info []byte

	// Opened reads on in the plaintext; key is the secret it opened under.
	Opened func(a *Attacker, key, plain []byte)
}

// KEMs remembers the X-Wing keys of secrets, which cost much to make. The
// attackers of one goroutine may share it.
type KEMs map[secret]kem

type kem struct {
	sk  hpke.PrivateKey
	pub []byte
}

// Attacker knows secrets and ciphertexts.
type Attacker struct {
	// Everything: each secret given to Hold is tried in every role on every
	// ciphertext, not only in the one it was made for.
	Everything bool
	// Whose says, for the infos of HPKE seals it has, to which public key they
	// were sealed, so that nobody else's is tried; an
	// empty one: that there is no such seal. May be nil.
	Whose map[string][]byte

	people  []identity.Commitment // everybody there is
	kems    KEMs
	secrets []secret
	known   map[secret]bool
	items   []*Item
	done    map[*Item]bool
	open    map[string]bool
}

// New is an attacker that knows nothing but who people are.
func New(people []identity.Commitment, k KEMs) *Attacker {
	return &Attacker{people: people, kems: k, known: map[secret]bool{}, done: map[*Item]bool{}, open: map[string]bool{}}
}

// Open reports whether an item of that name is open.
func (a *Attacker) Open(name string) bool { return a.open[name] }

// Secrets are all secrets that the attacker knows by now.
func (a *Attacker) Secrets() [][32]byte {
	var out [][32]byte
	for s := range a.known {
		out = append(out, s.key)
	}
	return out
}

// Hold gives the attacker a secret to begin with.
func (a *Attacker) Hold(key []byte, r Role) {
	a.Learn(key, r)
	if a.Everything {
		for r := range roles {
			a.Learn(key, r)
		}
	}
}

// Learn takes a secret that was found, and what derives from it, and tries them.
func (a *Attacker) Learn(key []byte, r Role) {
	if len(key) != 32 {
		return
	}
	s := secret{[32]byte(key), r}
	if a.known[s] {
		return
	}
	a.known[s] = true
	a.secrets = append(a.secrets, s)
	switch r {
	case AsGroup:
		a.Learn(space.KDF(key, space.LabelCtl, nil, 32), AsControl)
		a.Learn(space.KDF(key, space.LabelHelloKey, nil, 32), AsHello)
		for _, c := range a.people {
			a.Learn(space.KDF(key, space.LabelAuthor, c[:], 32), AsAuthor)
		}
	case AsAuthor:
		a.Learn(space.KDF(key, space.LabelHelloKey, nil, 32), AsHello)
	}
	for _, it := range slices.Clone(a.items) {
		a.try(it, s)
	}
}

// See takes a ciphertext and tries it.
func (a *Attacker) See(items ...*Item) {
	for _, it := range items {
		a.items = append(a.items, it)
		for i := 0; i < len(a.secrets); i++ {
			a.try(it, a.secrets[i])
		}
	}
}

func (a *Attacker) try(it *Item, s secret) {
	if it.Role != s.role || a.done[it] {
		return
	}
	plain, ok := a.unseal(it, s)
	if !ok {
		return
	}
	a.done[it] = true
	if it.Name != "" {
		a.open[it.Name] = true
	}
	if it.Opened != nil {
		it.Opened(a, s.key[:], plain)
	}
}

func (a *Attacker) unseal(it *Item, s secret) ([]byte, bool) {
	if it.HPKE {
		pub, ok := a.Whose[string(it.Info)]
		if ok && len(pub) == 0 {
			return nil, false
		}
		k := a.kems.of(s)
		if ok && !a.Everything && !bytes.Equal(pub, k.pub) {
			return nil, false
		}
		plain, err := hpke.Open(k.sk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), it.Info, it.CT)
		return plain, err == nil
	}
	aead, err := chacha20poly1305.NewX(it.Key(s.key[:]))
	if err != nil {
		panic(err)
	}
	plain, err := aead.Open(nil, it.Nonce, it.CT, it.AAD)
	return plain, err == nil
}

func (k KEMs) of(s secret) kem {
	if have, ok := k[s]; ok {
		return have
	}
	suite := hpke.MLKEM768X25519()
	var sk hpke.PrivateKey
	var err error
	switch s.role {
	case AsSeed:
		sk, err = suite.DeriveKeyPair(space.KDF(s.key[:], space.LabelIDKEM, nil, 32))
	case AsPUK:
		sk, err = suite.DeriveKeyPair(space.KDF(s.key[:], space.LabelPUKKEM, nil, 32))
	case AsGroup:
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

// Itself is the key of an item that is sealed under the secret.
func Itself(k []byte) []byte { return k }

// Derived is the key of an item that is sealed under a derivation.
func Derived(l space.Label, ctx ...[]byte) func([]byte) []byte {
	return func(k []byte) []byte { return space.KDF(k, l, bytes.Join(ctx, nil), 32) }
}

// Boxed is an item whose bytes are nonce ‖ ciphertext.
func Boxed(name string, r Role, key func([]byte) []byte, aad, b []byte, opened func(a *Attacker, key, plain []byte)) *Item {
	return &Item{Name: name, Role: r, Key: key, Nonce: b[:24], CT: b[24:], AAD: aad, Opened: opened}
}

// Wrapped is an item sealed with HPKE.
func Wrapped(name string, r Role, info, ct []byte, opened func(a *Attacker, key, plain []byte)) *Item {
	return &Item{Name: name, Role: r, HPKE: true, Info: info, CT: ct, Opened: opened}
}

// Gives is the reading of a plaintext that is a secret.
func Gives(r Role) func(*Attacker, []byte, []byte) {
	return func(a *Attacker, _, plain []byte) { a.Learn(plain, r) }
}
