package space

import "strings"

// ID is the address of a space: who decides about it, what kind it is, and
// its name among that authority's spaces of the kind. Addresses are compared
// as they stand; nothing is decoded or folded.
type ID struct {
	Authority DID
	Type      NSID
	Key       RecordKey
}

// URI is the address of a record in a space.
type URI struct {
	Space  ID
	Author DID
	Path   Path
}

// ParseID reads the two forms of a space's address and nothing else:
//
//	ats://AUTHORITY/TYPE/KEY
//	at://AUTHORITY/space/TYPE/KEY
func ParseID(s string) (ID, error) {
	segs, err := splitURI("space", s)
	if err != nil {
		return ID{}, err
	}
	if len(segs) != 3 {
		return ID{}, malformed("space", s, "want ats://did/type/key or at://did/space/type/key")
	}
	return parseSpaceSegments(segs)
}

// ParseURI reads the two forms of a record's address:
//
//	ats://AUTHORITY/TYPE/KEY/AUTHOR/COLLECTION/RKEY
//	at://AUTHORITY/space/TYPE/KEY/AUTHOR/COLLECTION/RKEY
func ParseURI(s string) (URI, error) {
	segs, err := splitURI("record", s)
	if err != nil {
		return URI{}, err
	}
	if len(segs) != 6 {
		return URI{}, malformed("record", s, "want a space's address, then author/collection/rkey")
	}
	id, err := parseSpaceSegments(segs[:3])
	if err != nil {
		return URI{}, err
	}
	author, err := parseDID("author", segs[3])
	if err != nil {
		return URI{}, err
	}
	collection, err := parseNSID("collection", segs[4])
	if err != nil {
		return URI{}, err
	}
	key, err := parseRecordKey("rkey", segs[5])
	if err != nil {
		return URI{}, err
	}
	return URI{id, author, Path{collection, key}}, nil
}

// splitURI takes scheme and marker off. Whatever else stands in the text ends
// up in a segment, where the grammar of an identifier judges it.
func splitURI(field, s string) ([]string, error) {
	if len(s) > MaxURI {
		return nil, malformed(field, s, "an address has at most 8192 characters")
	}
	if strings.Contains(s, "#") || strings.Contains(s, "?") {
		return nil, malformed(field, s, "an address has no fragment and no query")
	}
	rest, ats := strings.CutPrefix(s, "ats://")
	if !ats {
		var at bool
		if rest, at = strings.CutPrefix(s, "at://"); !at {
			return nil, malformed(field, s, "an address begins with ats:// or at://")
		}
	}
	if strings.HasSuffix(rest, "/") {
		return nil, malformed(field, s, "an address has no trailing slash")
	}
	segs := strings.SplitN(rest, "/", 9)
	if ats {
		return segs, nil
	}
	if len(segs) < 2 || segs[1] != "space" {
		return nil, malformed(field, s, `after at://did stands "/space/"`)
	}
	return append(segs[:1], segs[2:]...), nil
}

func parseSpaceSegments(segs []string) (id ID, err error) {
	if id.Authority, err = parseDID("space authority", segs[0]); err != nil {
		return ID{}, err
	}
	if id.Type, err = parseNSID("space type", segs[1]); err != nil {
		return ID{}, err
	}
	if id.Key, err = parseRecordKey("space key", segs[2]); err != nil {
		return ID{}, err
	}
	return id, nil
}

// String is the form ats://AUTHORITY/TYPE/KEY.
func (id ID) String() string {
	return "ats://" + string(id.Authority) + "/" + string(id.Type) + "/" + string(id.Key)
}

// AT is the form at://AUTHORITY/space/TYPE/KEY, the one that is signed.
func (id ID) AT() string {
	return "at://" + string(id.Authority) + "/space/" + string(id.Type) + "/" + string(id.Key)
}

// IsZero reports whether id names no space.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText gives the ats:// form.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText parses either form.
func (id *ID) UnmarshalText(b []byte) (err error) { *id, err = ParseID(string(b)); return err }

// MarshalCBOR gives the at:// form: between nodes there is one.
func (id ID) MarshalCBOR() ([]byte, error) { return appendText(nil, id.AT()), nil }

// UnmarshalCBOR parses; that it was the at:// form shows when Unmarshal
// encodes again.
func (id *ID) UnmarshalCBOR(b []byte) error { return unmarshalText(b, id) }

// String is the ats:// form.
func (u URI) String() string { return u.Space.String() + u.tail() }

// AT is the at:// form.
func (u URI) AT() string { return u.Space.AT() + u.tail() }

func (u URI) tail() string { return "/" + string(u.Author) + "/" + u.Path.String() }

// MarshalText gives the ats:// form.
func (u URI) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText parses either form.
func (u *URI) UnmarshalText(b []byte) (err error) { *u, err = ParseURI(string(b)); return err }
