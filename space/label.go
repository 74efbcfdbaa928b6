package space

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"filippo.io/edwards25519"
)

// Label separates the domains of every hash, derivation, MAC and signature of
// the protocol. Each label has one use; on the wire it stands as
// "sp/v1/" ‖ label ‖ 0x00 in front of what is hashed or signed.
type Label string

// The label registry (docs/protocol.md, "Labels").
const (
	LabelIDSig       Label = "id/sig"        // KDF: seed -> identity signing key
	LabelIDKEM       Label = "id/kem"        // KDF: seed -> identity KEM key
	LabelIDAtproto   Label = "id/atproto"    // KDF: seed -> K-256 DID key
	LabelCommit      Label = "commit"        // Hash: identity keys -> commitment C
	LabelIDCheck     Label = "id/check"      // Hash: commitment -> check characters of its fingerprint
	LabelIdentityLog Label = "ilog"          // Sign: identity log entry
	LabelBindDID     Label = "bind"          // Sign: DID <-> commitment, both ways
	LabelDevicePop   Label = "device/pop"    // Sign: proof of possession of a new device key
	LabelPUKKEM      Label = "puk/kem"       // KDF: per-user key -> KEM key
	LabelPUKDH       Label = "puk/dh"        // KDF: per-user key -> X25519 key
	LabelPUKPrev     Label = "puk/prev"      // KDF: per-user key -> key sealing the previous one
	LabelPUKWrap     Label = "puk/wrap"      // HPKE info: per-user key to a device
	LabelPUKList     Label = "puk/list"      // KDF: per-user key -> key sealing the list of one's spaces
	LabelIDList      Label = "ilist"         // Sign: device on that list
	LabelDeviceCode  Label = "device/code"   // Hash: secret of an enrolment code, its check characters
	LabelDeviceSeal  Label = "device/seal"   // KDF: enrolment code -> key of one message
	LabelIdentityAsk Label = "iask"          // Sign: a device proves itself on an identity stream
	LabelBackup      Label = "backup"        // HPKE info: key of a backup to the identity key
	LabelSpace       Label = "space"         // Hash: genesis body -> space id
	LabelPropose     Label = "ctl/propose"   // Sign: proposer of a control entry
	LabelCtlCommit   Label = "ctl/commit"    // Sign: sequencer of a control entry
	LabelCtlEntry    Label = "ctl/entry"     // KDF: control key -> key of one type-3 envelope
	LabelCtlSync     Label = "ctl/sync"      // KDF: control key -> key of a CTL page on a sync stream
	LabelCtlInner    Label = "ctl/inner"     // KDF: control key -> key of an epoch entry's inner body
	LabelCtlLink     Label = "ctl/link"      // KDF: control key -> key sealing the previous control key
	LabelFingerprint Label = "fp"            // MAC: secret key -> what a log may show of it
	LabelKID         Label = "kid"           // MAC: group key -> its commitment
	LabelCtl         Label = "ctl"           // KDF: group key -> control key
	LabelAuthor      Label = "author"        // KDF: group key -> author subkey
	LabelEntry       Label = "entry"         // KDF: author subkey -> key of one entry
	LabelPrev        Label = "prev"          // KDF: group key -> key sealing the previous group key
	LabelFetch       Label = "fetch"         // KDF: group key -> fetch key
	LabelDelegate    Label = "delegate"      // KDF: group key -> KEM key parents wrap to
	LabelObject      Label = "object"        // KDF: control key -> key of sealed objects
	LabelBlob        Label = "blob"          // KDF: key of a blob -> key of its parts
	LabelTopic       Label = "topic"         // Hash: issuer key -> topic id
	LabelWriterCert  Label = "wcert"         // Sign: issuer certifies a writer key
	LabelChain       Label = "chain"         // Sign: writer key links a chain key
	LabelVouch       Label = "vouch"         // Sign: issuer says whose a writer key is
	LabelVouchVia    Label = "vouch/via"     // Sign: likewise, of a writer that a child space sends
	LabelEnvelope    Label = "env"           // Sign: chain key signs an envelope
	LabelHello       Label = "hello"         // MAC: attribution tag
	LabelHelloPair   Label = "hello/pair"    // KDF: pair secret -> tag key
	LabelHelloKey    Label = "hello/key"     // KDF: group key -> key of hellos
	LabelWrap        Label = "wrap"          // HPKE info: group key to a member
	LabelWrapIssuer  Label = "wrap/issuer"   // HPKE info: issuer seed to a keeper
	LabelWrapChild   Label = "wrap/child"    // HPKE info: group key to a child space
	LabelChildVouch  Label = "child/vouch"   // Sign: a child space says who is in it
	LabelChildAsk    Label = "child/ask"     // Hash, Sign: request on a delegation stream
	LabelWelcome     Label = "welcome"       // HPKE info and Sign: welcome of a newcomer
	LabelAdmit       Label = "admit"         // Sign: membership claim of a known member
	LabelInvite      Label = "invite"        // KDF and Hash: invite secret, invite id
	LabelRedeem      Label = "invite/redeem" // Hash, Sign: redemption of an invite
	LabelSyncAuth    Label = "sync/auth"     // Sign: holder of the fetch key on a sync stream
	LabelRoster      Label = "roster"        // Hash: roster root
	LabelDescriptor  Label = "desc"          // Sign: sequencer describes its space to those that delegate to it, issuer its topic to relays
	LabelLease       Label = "lease"         // Sign: holder of the fetch key asks a relay
	LabelReceipt     Label = "receipt"       // Sign: relay says what it holds
	LabelRelayHost   Label = "relay/host"    // KDF: relay key -> key of a further host
	LabelLeave       Label = "leave"         // Sign: device of a member that leaves
	LabelTransfer    Label = "transfer"      // Sign: device of the next authority
	LabelSpaceDID    Label = "space/did"     // Sign: a space's own DID names its authority
	LabelStoreDEK    Label = "store/dek"     // KDF: key of stored values
	LabelStoreIndex  Label = "store/idx"     // KDF: key of blinded store keys
)

func (l Label) prefix() []byte {
	p := make([]byte, 0, len("sp/v1/")+len(l)+1+64)
	p = append(p, "sp/v1/"...)
	p = append(p, l...)
	return append(p, 0)
}

// Hash is SHA-256("sp/v1/" ‖ label ‖ 0x00 ‖ parts...). Parts are joined
// without separators: callers pass fixed-size fields, or one last variable one.
func Hash(l Label, parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write(l.prefix())
	for _, p := range parts {
		h.Write(p)
	}
	var out [32]byte
	h.Sum(out[:0])
	return out
}

// KDF is HKDF-Expand-SHA256 (RFC 5869) with PRK key and
// info "sp/v1/" ‖ label ‖ 0x00 ‖ ctx, giving n bytes, n at most 8,160.
func KDF(key []byte, l Label, ctx []byte, n int) []byte {
	out, err := hkdf.Expand(sha256.New, key, string(append(l.prefix(), ctx...)), n)
	if err != nil {
		panic(fmt.Sprintf("space: KDF of %d bytes: %v", n, err))
	}
	return out
}

// MAC is HMAC-SHA256(key, "sp/v1/" ‖ label ‖ 0x00 ‖ parts...).
func MAC(key []byte, l Label, parts ...[]byte) [32]byte {
	h := hmac.New(sha256.New, key)
	h.Write(l.prefix())
	for _, p := range parts {
		h.Write(p)
	}
	var out [32]byte
	h.Sum(out[:0])
	return out
}

// Sign is Ed25519(sk, "sp/v1/" ‖ label ‖ 0x00 ‖ parts...), 64 bytes.
func Sign(sk ed25519.PrivateKey, l Label, parts ...[]byte) []byte {
	return ed25519.Sign(sk, l.Message(parts...))
}

// Verify reports whether sig is Sign's output for the holder of pk. It does
// not check pk itself: that is CheckPublicKey's work, once per key.
func Verify(pk ed25519.PublicKey, l Label, sig []byte, parts ...[]byte) bool {
	return len(pk) == ed25519.PublicKeySize && ed25519.Verify(pk, l.Message(parts...), sig)
}

// Message is "sp/v1/" ‖ label ‖ 0x00 ‖ parts...: what Sign signs, for signers
// of another kind (K-256), and the info of an HPKE seal.
func (l Label) Message(parts ...[]byte) []byte {
	m := l.prefix()
	for _, p := range parts {
		m = append(m, p...)
	}
	return m
}

// CheckPublicKey refuses an Ed25519 public key that is not 32 bytes, not the
// canonical encoding of a point, or of small order: ed25519.Verify alone
// accepts the identity point, for which one signature fits every message.
func CheckPublicKey(pk []byte) error {
	if len(pk) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: public key is %d bytes, want 32", ErrMalformed, len(pk))
	}
	p, err := new(edwards25519.Point).SetBytes(pk)
	if err != nil || string(p.Bytes()) != string(pk) {
		return fmt.Errorf("%w: public key is not a canonical point", ErrMalformed)
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return fmt.Errorf("%w: public key is of small order", ErrMalformed)
	}
	return nil
}
