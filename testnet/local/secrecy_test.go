package local

import (
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// A canary is found wherever it stands, plain, in hex and in base64 of every
// alignment; what only resembles it is not.
func TestScanner(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		canary := rapid.SliceOfN(rapid.Byte(), 12, 60).Draw(rt, "canary")
		before := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "before")
		after := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "after")
		s := newScanner([][]byte{[]byte("another canary"), canary})
		whole := append(append(append([]byte{}, before...), canary...), after...)
		for name, b := range map[string][]byte{
			"plain":     whole,
			"hex":       []byte(hex.EncodeToString(whole)),
			"base64":    []byte(base64.StdEncoding.EncodeToString(whole)),
			"base64url": []byte(base64.RawURLEncoding.EncodeToString(whole)),
		} {
			if got := s.find(b); got == nil {
				rt.Errorf("%s of %x is overlooked", name, whole)
			}
		}
		spoilt := append([]byte{}, canary...)
		spoilt[len(spoilt)-1] ^= 1
		if got := s.find(append(before, spoilt...)); got != nil && !strings.Contains(string(before)+string(spoilt), string(got)) {
			rt.Errorf("%x is taken for %x", spoilt, got)
		}
	})
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	if got := newScanner([][]byte{[]byte("com.example.forum.post"), []byte("short")}).find(noise); got != nil {
		t.Errorf("found %q in noise", got)
	}
}

// stage is a demonstration with the homes of ada and cem, and no process.
func stage(t *testing.T) *demo {
	c := &cast{dir: t.TempDir()}
	for _, name := range []string{"ada", "cem"} {
		n := &node{home: filepath.Join(c.dir, name)}
		if err := os.Mkdir(n.home, 0o700); err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, n)
	}
	return &demo{cast: c}
}

// The step finds what it looks for in contents, in names and in logs.
func TestSecrecyFinds(t *testing.T) {
	for _, name := range []string{"ada/store/000001.log", "ada.log", "cem/blobs/x"} {
		d := stage(t)
		d.canary("the rain barrels behind")
		file := filepath.Join(d.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("\x00\x01 the rain barrels before \xff"), 0o600); err != nil {
			t.Fatal(err)
		}
		if told, err := d.secrecy(t.Context()); err != nil || !strings.Contains(told, "in 1 files") {
			t.Errorf("%s, innocent: %s, %v", name, told, err)
		}
		if err := os.WriteFile(file, []byte("\x00\x01 the rain barrels behind \xff"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.secrecy(t.Context()); err == nil || !strings.Contains(err.Error(), filepath.FromSlash(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := stage(t)
	d.canary("garden-4i3s2n2pe3wv")
	if err := os.WriteFile(filepath.Join(d.dir, "ada", "garden-4i3s2n2pe3wv.ldb"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.secrecy(t.Context()); err == nil {
		t.Error("a telling name is overlooked")
	}
}

func TestFragments(t *testing.T) {
	posts, err := readForum("")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range posts {
		for _, f := range fragments(p) {
			if len(f) < canarySize || !strings.Contains(p.text+string(p.record), f) || strings.Contains(p.text, f) && !utf8.ValidString(f) {
				t.Errorf("line %d: %q", p.line, f)
			}
		}
	}
	link := "kith:j#" + base64.RawURLEncoding.EncodeToString([]byte("v"+strings.Repeat("0123456789abcdef", 6)))
	if got := linkSecrets(link); len(got) != 2 || got[0] != "0123456789abcdef0123456789abcdef" || !strings.Contains(link, got[1]) {
		t.Errorf("secrets %q", got)
	}
	for _, bad := range []string{"", "kith:j", "kith:j#", "kith:j#AAAA", "kith:j#!!"} {
		if got := linkSecrets(bad); got != nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}
