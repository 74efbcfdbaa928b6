package reconcile

import (
	"crypto/ed25519"
	"encoding/binary"
	"log/slog"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// Role is which end of the stream a session is.
type Role uint8

const (
	// Initiator opened the stream, speaks first and proves itself first.
	Initiator Role = 1
	// Responder answers; it starts from what ReadOpening returned.
	Responder Role = 2
)

func (r Role) other() Role { return Initiator + Responder - r }

func (r Role) String() string {
	switch r {
	case Initiator:
		return "initiator"
	case Responder:
		return "responder"
	}
	return "no role"
}

// Keys prove and check who may sync a topic: the epoch's fetch key under label
// sync/auth. FetchKey is the one for those who hold the private half.
type Keys interface {
	// Sign signs what AUTH binds.
	Sign(message []byte) (signature []byte)
	// Verify reports whether a holder of the fetch key signed it.
	Verify(message, signature []byte) bool
}

// FetchKey is an epoch's fetch key. The zero value signs with no key and
// panics.
type FetchKey struct {
	_    [0]func()
	priv ed25519.PrivateKey
}

var _ Keys = FetchKey{}

// NewFetchKey keeps priv; the caller does not change it.
func NewFetchKey(priv ed25519.PrivateKey) FetchKey { return FetchKey{priv: priv} }

// Sign signs with label sync/auth.
func (k FetchKey) Sign(message []byte) []byte {
	return space.Sign(k.priv, space.LabelSyncAuth, message)
}

// Verify checks against the public half.
func (k FetchKey) Verify(message, signature []byte) bool {
	return space.Verify(k.priv.Public().(ed25519.PublicKey), space.LabelSyncAuth, signature, message)
}

// At is the key on a stream with a relay, which proves itself with the key of
// its peer id: it holds no fetch key. The caller knows that peer as a relay of
// the space.
func (k FetchKey) At(relay ed25519.PublicKey) Keys { return atRelay{k, relay} }

type atRelay struct {
	FetchKey
	relay ed25519.PublicKey
}

func (k atRelay) Verify(message, signature []byte) bool {
	return space.Verify(k.relay, space.LabelSyncAuth, signature, message)
}

// RelayKeys are a relay's: it knows who holds the fetch key by its public half,
// and proves itself as the peer it is. sign signs with the key of its peer id.
func RelayKeys(fetch ed25519.PublicKey, sign func(message []byte) ([]byte, error)) Keys {
	return relayKeys{fetch, sign}
}

type relayKeys struct {
	fetch ed25519.PublicKey
	sign  func([]byte) ([]byte, error)
}

// Sign gives what no peer accepts if the key fails.
func (k relayKeys) Sign(message []byte) []byte {
	sig, err := k.sign(space.LabelSyncAuth.Message(message))
	if err != nil || len(sig) != ed25519.SignatureSize {
		return make([]byte, ed25519.SignatureSize)
	}
	return sig
}

func (k relayKeys) Verify(message, signature []byte) bool {
	return space.Verify(k.fetch, space.LabelSyncAuth, signature, message)
}

// LogValue says that there is a key and not which.
func (k FetchKey) LogValue() slog.Value { return slog.StringValue("fetch key") }

// authMessage is what AUTH of the signer signs.
func authMessage(topic envelope.TopicID, opener, answer [32]byte, openerPeer, answerPeer []byte, signer Role) []byte {
	m := make([]byte, 0, 3*32+2*2+len(openerPeer)+len(answerPeer)+1)
	m = append(m, topic[:]...)
	m = append(m, opener[:]...)
	m = append(m, answer[:]...)
	for _, peer := range [][]byte{openerPeer, answerPeer} {
		m = binary.BigEndian.AppendUint16(m, uint16(len(peer)))
		m = append(m, peer...)
	}
	return append(m, byte(signer))
}

// nobody is a well-formed public key (the base point). A responder that does
// not know the topic checks the signature against it and refuses whatever the
// outcome, so that it takes as long as one that does.
var nobody = ed25519.PublicKey{
	0x58, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
	0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
}

func (s *Session) authMessage(signer Role) []byte {
	opener, answer := s.cfg.Nonce, s.theirNonce
	openerPeer, answerPeer := s.cfg.LocalPeer, s.cfg.RemotePeer
	if s.cfg.Role == Responder {
		opener, answer = answer, opener
		openerPeer, answerPeer = answerPeer, openerPeer
	}
	return authMessage(s.cfg.Topic, opener, answer, openerPeer, answerPeer, signer)
}

// auth is our AUTH.
func (s *Session) auth() Auth {
	var m Auth
	copy(m.Signature[:], s.cfg.Keys.Sign(s.authMessage(s.cfg.Role)))
	return m
}

func (s *Session) verifyAuth(m Auth) bool {
	signed := s.authMessage(s.cfg.Role.other())
	if s.cfg.Keys == nil {
		space.Verify(nobody, space.LabelSyncAuth, m.Signature[:], signed)
		return false
	}
	return s.cfg.Keys.Verify(signed, m.Signature[:])
}
