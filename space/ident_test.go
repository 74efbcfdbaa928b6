package space

import (
	"errors"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

func TestIdentifierErrors(t *testing.T) {
	did := func(s string) error { _, err := ParseDID(s); return err }
	nsid := func(s string) error { _, err := ParseNSID(s); return err }
	key := func(s string) error { _, err := ParseRecordKey(s); return err }
	path := func(s string) error { _, err := ParsePath(s); return err }
	for _, c := range []struct {
		parse func(string) error
		in    string
		want  string // "" = accepted; else part of the message
	}{
		{did, "did:plc:oky5czdrnfjpqslsw2a5iclo", ""},
		{did, "did:web:localhost%3A8080", ""},
		{did, "did:key:" + strings.Repeat("z", MaxDID-8), ""},
		{did, "did:key:" + strings.Repeat("z", MaxDID-7), "at most 2048"},
		{did, "", `begins with "did:"`},
		{did, "alice.example", `did "alice.example": a DID begins with "did:"`},
		{did, "did:PLC:abc", "lower case"},
		{did, "did:plc:", "made of"},
		{did, "did:plc:a/b", "made of"},
		{did, "did:plc:a:", "does not end"},
		{did, "did:web:a%", "does not end"},
		{nsid, "com.example.fooBar", ""},
		{nsid, "com.ex-ample.foo2", ""},
		{nsid, "com.4chan.foo", ""},
		{nsid, "foo", `nsid "foo": an NSID needs at least 3 segments`},
		{nsid, "com.example", "at least 3"},
		{nsid, "com..foo", "1 to 63"},
		{nsid, "com." + strings.Repeat("a", 64) + ".foo", "1 to 63"},
		{nsid, "4com.example.foo", "begins with a letter"},
		{nsid, "com.example.foo-bar", "last segment"},
		{nsid, "com.example.4foo", "last segment"},
		{nsid, "com.-example.foo", "inner hyphens"},
		{nsid, "com.exa_mple.foo", "inner hyphens"},
		{nsid, "com." + strings.Repeat(strings.Repeat("a", 62)+".", 5) + "foo", "at most 317"},
		{key, "self", ""},
		{key, "a_~.:-Z9", ""},
		{key, strings.Repeat("k", 512), ""},
		{key, strings.Repeat("k", 513), "1 to 512"},
		{key, "", "1 to 512"},
		{key, ".", "not record keys"},
		{key, "..", "not record keys"},
		{key, "a/b", "made of"},
		{key, "a%20", "made of"},
		{key, "ключ", "made of"},
		{path, "com.example.foo/self", ""},
		{path, "com.example.foo", "want collection/rkey"},
		{path, "com.example/self", `collection "com.example"`},
		{path, "com.example.foo/a/b", `rkey "a/b"`},
	} {
		err := c.parse(c.in)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%.60q: %v", c.in, err)
		case c.want != "" && (!errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%.60q: %v, want ErrMalformed with %q", c.in, err, c.want)
		}
	}
}

// The errors name the part of an address that is wrong.
func TestAddresses(t *testing.T) {
	const did, author = "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:b.example"
	id := ID{did, "com.example.group", "main"}
	ats, at := "ats://"+did+"/com.example.group/main", "at://"+did+"/space/com.example.group/main"
	for _, s := range []string{ats, at} {
		got, err := ParseID(s)
		if err != nil || got != id || got.String() != ats || got.AT() != at {
			t.Errorf("ParseID(%s) = %v, %v", s, got, err)
		}
		u, err := ParseURI(s + "/" + author + "/com.example.note/1")
		want := URI{id, author, Path{"com.example.note", "1"}}
		if err != nil || u != want || u.String() != ats+"/"+author+"/com.example.note/1" || u.AT() != at+"/"+author+"/com.example.note/1" {
			t.Errorf("ParseURI = %v, %v", u, err)
		}
		if _, err := ParseURI(s); err == nil {
			t.Errorf("ParseURI(%s) takes a space for a record", s)
		}
	}
	for in, want := range map[string]string{
		"":                                   "begins with ats:// or at://",
		"https://a/b/c":                      "begins with ats:// or at://",
		"ATS://" + did + "/com.example.a/b":  "begins with ats:// or at://",
		"at://" + did + "/com.example.a/b":   `"/space/"`,
		"at://" + did:                        `"/space/"`,
		"ats://" + did + "/foo/main":         `space type "foo": an NSID needs at least 3 segments`,
		"ats://alice.example/com.ex.a/main":  `space authority "alice.example"`,
		"ats://" + did + "/com.ex.a/..":      `space key ".."`,
		"ats://" + did + "/com.ex.a":         "want ats://did/type/key",
		ats + "/":                            "trailing slash",
		ats + "/" + author:                   "want ats://did/type/key",
		ats + "/" + author + "/com.ex.a/r":   "want ats://did/type/key",
		ats + "#/x":                          "no fragment",
		ats + "?x=y":                         "no query",
		"ats://" + did + "/com.ex.a/m%61in":  `space key "m%61in"`,
		"at://" + did + "/space/com.ex.a//":  "trailing slash",
		"at://" + did + "/space//main":       `space type ""`,
		ats + strings.Repeat("k", MaxURI):    "at most 8192",
		"ats:///com.example.group/main":      `space authority ""`,
		" " + ats:                            "begins with",
		ats + " ":                            "space key",
		"at://" + did + "/SPACE/com.ex.a/m":  `"/space/"`,
		"ats://" + did + "/space/com.ex.a/m": "want ats://did/type/key",
	} {
		if _, err := ParseID(in); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseID(%.80q): %v, want ErrMalformed with %q", in, err, want)
		}
	}
	tail := "/" + author + "/com.ex.note/1"
	for in, want := range map[string]string{
		at + tail + "/more":                  "author/collection/rkey",
		at + tail + "/":                      "trailing slash",
		at + "/bob.example/com.ex.note/1":    "author",
		at + "/" + author + "/note/1":        `collection "note"`,
		at + "/" + author + "/com.ex.note/.": `rkey "."`,
		at + "/" + author + "/com.ex.note":   "author/collection/rkey",
	} {
		if _, err := ParseURI(in); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseURI(%.80q): %v, want ErrMalformed with %q", in, err, want)
		}
	}
}

// Our grammars are those of an independent implementation.
func FuzzIdentifiers(f *testing.F) {
	for _, s := range []string{"did:plc:abc", "did:web:a%", "com.example.foo", "com.4-a.b", "self", "..", "3kbcq3p7ad422", "3kbcq3p7ad400", "zzzzzzzzzzzzz", "a.b.c\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		agree := func(what string, ours, theirs error) {
			t.Helper()
			if (ours == nil) != (theirs == nil) {
				t.Errorf("%s %q: %v, oracle %v", what, s, ours, theirs)
			}
		}
		_, ours := ParseDID(s)
		_, theirs := syntax.ParseDID(s)
		agree("did", ours, theirs)
		_, ours = ParseNSID(s)
		_, theirs = syntax.ParseNSID(s)
		agree("nsid", ours, theirs)
		_, ours = ParseRecordKey(s)
		_, theirs = syntax.ParseRecordKey(s)
		agree("rkey", ours, theirs)
		tid, ours := ParseTID(s)
		theirTID, theirs := syntax.ParseTID(s)
		agree("tid", ours, theirs)
		if ours == nil && (tid.String() != s || uint64(tid) != theirTID.Integer()) {
			t.Errorf("tid %q: %s, %d", s, tid, tid)
		}
	})
}

func FuzzAddresses(f *testing.F) {
	f.Add("ats://did:plc:a/com.example.group/main")
	f.Add("at://did:plc:a/space/com.example.group/main")
	f.Add("at://did:plc:a/space/com.example.group/main/did:web:b/com.example.note/1")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s && id.AT() != s {
			t.Errorf("%q parsed and gave %q and %q", s, id.String(), id.AT())
		}
		if u, err := ParseURI(s); err == nil && u.String() != s && u.AT() != s {
			t.Errorf("%q parsed and gave %q and %q", s, u.String(), u.AT())
		}
	})
}

func TestPathOrder(t *testing.T) {
	// By collection first: as one text "a.b.c-d/x" would stand before "a.b.c/x".
	sorted := []Path{{}, {"a.b.c", "x"}, {"a.b.c", "y"}, {"a.b.c-d.e", "a"}, {"a.b.d", "a"}}
	for i, p := range sorted {
		for j, q := range sorted {
			if c := p.Compare(q); (c < 0) != (i < j) || (c > 0) != (i > j) {
				t.Errorf("%v against %v: %d", p, q, c)
			}
		}
	}
}
