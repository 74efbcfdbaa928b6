package seal

import (
	"crypto/ed25519"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// GroupKey is the root of an epoch's keys: 32 random bytes, never derived from
// an earlier one. Who holds it reads everything of the epoch.
type GroupKey struct{ secret }

// NewGroupKey draws the key of a new epoch.
func NewGroupKey(rand io.Reader) (GroupKey, error) {
	s, err := newSecret(rand)
	return GroupKey{s}, err
}

// UnmarshalGroupKey is the inverse of Marshal.
func UnmarshalGroupKey(b []byte) (GroupKey, error) {
	s, err := secretFrom(b)
	return GroupKey{s}, err
}

// KID is the commitment to the key that stands in the control log.
func (k GroupKey) KID() [32]byte { return space.MAC(k.raw(), space.LabelKID) }

// CheckKID reports in constant time whether the log committed to this key.
func (k GroupKey) CheckKID(kid [32]byte) error {
	own := k.KID()
	if subtle.ConstantTimeCompare(own[:], kid[:]) != 1 {
		return fmt.Errorf("check group key: %w: not the key the log commits to", space.ErrForged)
	}
	return nil
}

// Control is the key of the control log while the epoch lasts.
func (k GroupKey) Control() ControlKey {
	return ControlKey{derive(k.raw(), space.LabelCtl, nil)}
}

// Author is the key of one member's entries. A member that reads only itself
// holds its own and no other.
func (k GroupKey) Author(c identity.Commitment) AuthorKey {
	return AuthorKey{derive(k.raw(), space.LabelAuthor, c[:])}
}

// Fetch is the key that proves "some member" to a peer or relay, and no more.
func (k GroupKey) Fetch() ed25519.PrivateKey {
	return signerOf(k.fetchSeed()).key()
}

func (k GroupKey) fetchSeed() secret { return derive(k.raw(), space.LabelFetch, nil) }

// Equal compares in constant time.
func (k GroupKey) Equal(o GroupKey) bool { return k.equal(o.secret) }

// AuthorKey opens the entries of one author in one epoch.
type AuthorKey struct{ secret }

// UnmarshalAuthorKey is the inverse of Marshal.
func UnmarshalAuthorKey(b []byte) (AuthorKey, error) {
	s, err := secretFrom(b)
	return AuthorKey{s}, err
}

// Equal compares in constant time.
func (k AuthorKey) Equal(o AuthorKey) bool { return k.equal(o.secret) }

// ControlKey opens the control log entries of one epoch.
type ControlKey struct{ secret }

// UnmarshalControlKey is the inverse of Marshal.
func UnmarshalControlKey(b []byte) (ControlKey, error) {
	s, err := secretFrom(b)
	return ControlKey{s}, err
}

// Bytes is the raw key, for the package that opens control entries.
func (k ControlKey) Bytes() []byte { return k.Marshal() }

// Equal compares in constant time.
func (k ControlKey) Equal(o ControlKey) bool { return k.equal(o.secret) }

// Keys is what one member holds of one epoch: the group key, or, for a member
// that reads only itself, its own author key, the control key and the seed of
// the fetch key.
type Keys struct {
	group GroupKey
	self  AuthorKey // zero beside a group key
	who   identity.Commitment
	ctl   ControlKey
	fetch signer
}

// Full is what a reader or writer holds.
func Full(gk GroupKey) Keys {
	return Keys{group: gk, ctl: gk.Control(), fetch: signerOf(gk.fetchSeed())}
}

// Self is the part of a full reader's keys that a member which reads only
// itself receives.
func (k Keys) Self(c identity.Commitment) (Keys, error) {
	ak, err := k.Author(c)
	if err != nil {
		return Keys{}, err
	}
	return Keys{self: ak, who: c, ctl: k.ctl, fetch: k.fetch}, nil
}

// IsZero reports whether there are no keys.
func (k Keys) IsZero() bool { return k.group.IsZero() && k.self.IsZero() }

// Group is the group key, or space.ErrNoKey.
func (k Keys) Group() (GroupKey, error) {
	if k.group.IsZero() {
		return GroupKey{}, fmt.Errorf("group key: %w", space.ErrNoKey)
	}
	return k.group, nil
}

// Author is the author key of c, or space.ErrNoKey.
func (k Keys) Author(c identity.Commitment) (AuthorKey, error) {
	switch {
	case !k.group.IsZero():
		return k.group.Author(c), nil
	case !k.self.IsZero() && k.who == c:
		return k.self, nil
	}
	return AuthorKey{}, fmt.Errorf("author key: %w", space.ErrNoKey)
}

// helloKey is the key of hellos of a writer whose author key is ak: the epoch's,
// or, for a writer without the group key, its own.
func (k Keys) helloKey(ak AuthorKey) secret {
	if k.group.IsZero() {
		return ak.helloKey()
	}
	return k.group.helloKey()
}

func (k GroupKey) helloKey() secret { return derive(k.raw(), space.LabelHelloKey, nil) }

func (k AuthorKey) helloKey() secret { return derive(k.raw(), space.LabelHelloKey, nil) }

// Control is the epoch's control key.
func (k Keys) Control() ControlKey { return k.ctl }

// Fetch is the epoch's fetch key.
func (k Keys) Fetch() ed25519.PrivateKey { return k.fetch.key() }

// CheckKID checks a group key against the log's commitment. The keys of a
// member that reads only itself carry no group key and pass: the seal they came
// in vouches for them.
func (k Keys) CheckKID(kid [32]byte) error {
	if k.group.IsZero() {
		return nil
	}
	return k.group.CheckKID(kid)
}

// Marshal gives the keys for the key file or a wrap: 32 bytes, the group key,
// or 96 bytes, author key ‖ control key ‖ fetch seed.
func (k Keys) Marshal() []byte {
	if !k.group.IsZero() {
		return k.group.Marshal()
	}
	b := make([]byte, 0, 3*KeySize)
	b = append(b, k.self.raw()...)
	b = append(b, k.ctl.raw()...)
	return append(b, k.fetch.raw()...)
}

// UnmarshalKeys is the inverse of Marshal; c is the member that holds them.
func UnmarshalKeys(b []byte, c identity.Commitment) (Keys, error) {
	switch len(b) {
	case KeySize:
		gk, err := UnmarshalGroupKey(b)
		if err != nil {
			return Keys{}, err
		}
		return Full(gk), nil
	case 3 * KeySize:
		var parts [3]secret
		for i := range parts {
			s, err := secretFrom(b[i*KeySize : (i+1)*KeySize])
			if err != nil {
				return Keys{}, err
			}
			parts[i] = s
		}
		return Keys{
			self: AuthorKey{parts[0]}, who: c, ctl: ControlKey{parts[1]}, fetch: signerOf(parts[2]),
		}, nil
	}
	return Keys{}, fmt.Errorf("%w: keys are %d bytes", space.ErrMalformed, len(b))
}

// Format prints a fingerprint, whatever the verb.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.fingerprint()) }

// LogValue is a fingerprint.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.fingerprint()) }

// MarshalText refuses.
func (k Keys) MarshalText() ([]byte, error) { return nil, errOpaque }

// MarshalBinary refuses.
func (k Keys) MarshalBinary() ([]byte, error) { return nil, errOpaque }

func (k Keys) fingerprint() string {
	if k.group.IsZero() {
		return k.self.fingerprint()
	}
	return k.group.fingerprint()
}
