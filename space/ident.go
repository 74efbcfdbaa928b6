package space

import (
	"cmp"
	"fmt"
	"strings"
)

// The lengths an identifier may have, in bytes (atproto syntax).
const (
	MaxDID       = 2048
	MaxNSID      = 317
	MaxRecordKey = 512
	MaxURI       = 8192
)

// DID names a person, a space's authority or a service. The zero value names
// nobody; every other value was made by ParseDID.
type DID string

// NSID names a collection of records or a type of spaces.
type NSID string

// RecordKey names a record in its collection, or a space among those of one
// authority and type.
type RecordKey string

// ParseDID checks the grammar did:method:identifier. Nothing is normalised.
func ParseDID(s string) (DID, error) { return parseDID("did", s) }

// ParseNSID checks the grammar of a namespaced identifier: at least three
// segments, the last of which is a name without digits in front or hyphens.
func ParseNSID(s string) (NSID, error) { return parseNSID("nsid", s) }

// ParseRecordKey checks that s is 1 to 512 of A-Z a-z 0-9 _ ~ . : - and not
// "." or "..".
func ParseRecordKey(s string) (RecordKey, error) { return parseRecordKey("record key", s) }

// malformed says which field is wrong and why. Long values are cut: the text
// goes to logs and callers.
func malformed(field, value, why string) error {
	const shown = 80
	if len(value) > shown {
		value = strings.ToValidUTF8(value[:shown], "") + "…"
	}
	return fmt.Errorf("%s %q: %s: %w", field, value, why, ErrMalformed)
}

func parseDID(field, s string) (DID, error) {
	if len(s) > MaxDID {
		return "", malformed(field, s, "a DID has at most 2048 characters")
	}
	rest, ok := strings.CutPrefix(s, "did:")
	if !ok {
		return "", malformed(field, s, `a DID begins with "did:"`)
	}
	method, id, ok := strings.Cut(rest, ":")
	if !ok || method == "" || !all(method, isLower) {
		return "", malformed(field, s, "a DID needs a method in lower case letters after did:")
	}
	if id == "" || !all(id, isDIDChar) {
		return "", malformed(field, s, "a DID's identifier is made of A-Z a-z 0-9 . _ : % -")
	}
	if last := id[len(id)-1]; last == ':' || last == '%' {
		return "", malformed(field, s, `a DID does not end in ":" or "%"`)
	}
	return DID(s), nil
}

func parseNSID(field, s string) (NSID, error) {
	if len(s) > MaxNSID {
		return "", malformed(field, s, "an NSID has at most 317 characters")
	}
	segments := strings.Count(s, ".") + 1
	if segments < 3 {
		return "", malformed(field, s, "an NSID needs at least 3 segments")
	}
	i := 0
	for seg := range strings.SplitSeq(s, ".") {
		switch {
		case seg == "" || len(seg) > 63:
			return "", malformed(field, s, "an NSID's segments have 1 to 63 characters")
		case i == 0 && !isLetter(seg[0]):
			return "", malformed(field, s, "an NSID begins with a letter")
		case i == segments-1 && (!isLetter(seg[0]) || !all(seg, isAlphanumeric)):
			return "", malformed(field, s, "an NSID's last segment is letters and digits, a letter first")
		case seg[0] == '-' || seg[len(seg)-1] == '-' || !all(seg, isHostChar):
			return "", malformed(field, s, "an NSID's segments are letters, digits and inner hyphens")
		}
		i++
	}
	return NSID(s), nil
}

func parseRecordKey(field, s string) (RecordKey, error) {
	switch {
	case s == "" || len(s) > MaxRecordKey:
		return "", malformed(field, s, "a record key has 1 to 512 characters")
	case s == "." || s == "..":
		return "", malformed(field, s, `"." and ".." are not record keys`)
	case !all(s, isKeyChar):
		return "", malformed(field, s, "a record key is made of A-Z a-z 0-9 _ ~ . : -")
	}
	return RecordKey(s), nil
}

func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isLower(c byte) bool        { return 'a' <= c && c <= 'z' }
func isLetter(c byte) bool       { return isLower(c | 0x20) }
func isDigit(c byte) bool        { return '0' <= c && c <= '9' }
func isAlphanumeric(c byte) bool { return isLetter(c) || isDigit(c) }
func isHostChar(c byte) bool     { return isAlphanumeric(c) || c == '-' }
func isDIDChar(c byte) bool      { return isHostChar(c) || c == '.' || c == '_' || c == ':' || c == '%' }
func isKeyChar(c byte) bool      { return isHostChar(c) || c == '.' || c == '_' || c == ':' || c == '~' }

func (d DID) String() string       { return string(d) }
func (n NSID) String() string      { return string(n) }
func (k RecordKey) String() string { return string(k) }

// UnmarshalText parses, so that JSON yields valid identifiers or an error.
func (d *DID) UnmarshalText(b []byte) (err error) { *d, err = ParseDID(string(b)); return err }

// UnmarshalText parses, so that JSON yields valid identifiers or an error.
func (n *NSID) UnmarshalText(b []byte) (err error) { *n, err = ParseNSID(string(b)); return err }

// UnmarshalText parses, so that JSON yields valid identifiers or an error.
func (k *RecordKey) UnmarshalText(b []byte) (err error) {
	*k, err = ParseRecordKey(string(b))
	return err
}

// UnmarshalCBOR parses likewise: an empty or invalid DID is refused.
func (d *DID) UnmarshalCBOR(b []byte) error { return unmarshalText(b, d) }

// UnmarshalCBOR parses likewise: an empty or invalid NSID is refused.
func (n *NSID) UnmarshalCBOR(b []byte) error { return unmarshalText(b, n) }

// UnmarshalCBOR parses likewise: an empty or invalid key is refused.
func (k *RecordKey) UnmarshalCBOR(b []byte) error { return unmarshalText(b, k) }

// Path names a record in its author's repo.
type Path struct {
	Collection NSID
	Key        RecordKey
}

// ParsePath reads "collection/rkey".
func ParsePath(s string) (Path, error) {
	c, k, ok := strings.Cut(s, "/")
	if !ok {
		return Path{}, malformed("path", s, "want collection/rkey")
	}
	collection, err := parseNSID("collection", c)
	if err != nil {
		return Path{}, err
	}
	key, err := parseRecordKey("rkey", k)
	if err != nil {
		return Path{}, err
	}
	return Path{collection, key}, nil
}

// String is "collection/rkey".
func (p Path) String() string { return string(p.Collection) + "/" + string(p.Key) }

// Compare orders by collection, then key, each bytewise.
func (p Path) Compare(q Path) int {
	if c := cmp.Compare(p.Collection, q.Collection); c != 0 {
		return c
	}
	return cmp.Compare(p.Key, q.Key)
}
