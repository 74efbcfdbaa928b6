package control

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
)

const testPeer = "/p2p/12D3KooWGQmdpbHXbNdfqDzyjQfpC9dyi3D4jqTTCuDPRm5PMEMG"

func testLink() Link {
	return Link{
		Secret:  space.Hash(space.LabelInvite, []byte("secret")),
		SpaceID: space.Hash(space.LabelSpace, []byte("space")),
		Head:    space.Hash(space.LabelSpace, []byte("head")),
		Addrs:   []string{"/ip4/192.0.2.7/udp/4001/quic-v1" + testPeer, "/dns4/home.example/tcp/4001" + testPeer},
	}
}

func testLinks() []Link {
	none, most := testLink(), testLink()
	none.Addrs = nil
	long := "/dns4/" + strings.Repeat("a", maxAddrSize-len("/dns4/")-len(testPeer)) + testPeer
	most.Addrs = slices.Repeat([]string{long}, MaxLinkAddrs)
	return []Link{none, testLink(), most}
}

func sameLink(a, b Link) bool {
	return a.Secret == b.Secret && a.SpaceID == b.SpaceID && a.Head == b.Head && slices.Equal(a.Addrs, b.Addrs)
}

func TestLinkLayout(t *testing.T) {
	l := testLink()
	b := []byte{1}
	b = append(append(append(b, l.Secret[:]...), l.SpaceID[:]...), l.Head[:]...)
	b = append(b, 2)
	for _, a := range l.Addrs {
		b = append(append(b, 0, byte(len(a))), a...)
	}
	frag := base64.RawURLEncoding.EncodeToString(b)
	if got := l.String(); got != "kith:j#"+frag {
		t.Fatalf("link is %s", got)
	}
	id := l.InviteID()
	if got := l.HTTPS("kith.example:8443"); got != "https://kith.example:8443/j/"+hex.EncodeToString(id[:])+"#"+frag {
		t.Fatalf("https link is %s", got)
	}
	key := pub(l.InviteKey())
	want := space.Hash(space.LabelInvite, key[:])
	if seed := space.KDF(l.Secret[:], space.LabelInvite, nil, 32); !bytes.Equal(seed, l.InviteKey().Seed()) || !bytes.Equal(id[:], want[:16]) {
		t.Fatal("invite id")
	}
}

func TestLinkForgives(t *testing.T) {
	for _, l := range testLinks() {
		for _, form := range []string{
			l.String(), " \t" + l.String() + "\r\n", `"` + l.String() + `"`, "'" + l.String() + "'",
			"`" + l.String() + "`", "<" + l.String() + ">", "“" + l.String() + "”", "\ufeff" + l.String() + "\u00a0",
			"KITH:J" + strings.TrimPrefix(l.String(), "kith:j"),
			l.HTTPS("kith.example"), " «" + l.HTTPS("[2001:db8::1]:443") + "» ",
			"HTTPS://" + strings.TrimPrefix(l.HTTPS("KITH.example"), "https://"),
		} {
			got, err := ParseLink(form)
			if err != nil || !sameLink(got, l) {
				t.Errorf("%.40q: %v", form, err)
			}
		}
	}
}

func TestLinkRefused(t *testing.T) {
	l := testLink()
	text, raw := l.String(), must(base64.RawURLEncoding.DecodeString(strings.TrimPrefix(l.String(), linkScheme)))
	spoil := func(edit func(b []byte) []byte) string {
		return linkScheme + base64.RawURLEncoding.EncodeToString(edit(append([]byte(nil), raw...)))
	}
	withAddr := func(a string) string {
		return spoil(func(b []byte) []byte {
			b = append(b[:linkFixed-1], 1, byte(len(a)>>8), byte(len(a)))
			return append(b, a...)
		})
	}
	tests := []struct{ name, text, says string }{
		{"nothing", "", "no link"},
		{"blanks", "  \n", "no link"},
		{"other text", "hello", "not an invite link"},
		{"other scheme", "mailto:j#abc", "not an invite link"},
		{"scheme alone", "kith:", "cut off"},
		{"scheme and j", "kith:j", "cut off"},
		{"no fragment", "kith:j#", "cut off"},
		{"http", "http://kith.example/j/x#" + text[7:], "not an invite link"},
		{"web page", "https://kith.example/about", "not an invite link"},
		{"no host", "https:///j/x#" + text[7:], "not an invite link"},
		{"web link without fragment", "https://kith.example/j/00112233445566778899aabbccddeeff", "cut off"},
		{"web link cut in the id", "https://kith.example/j/0011", "cut off"},
		{"short id", "https://kith.example/j/0011#" + text[7:], "damaged"},
		{"id of another invite", "https://kith.example/j/00112233445566778899aabbccddeeff#" + text[7:], "mixed up"},
		{"line end inside", text[:60] + "\n" + text[60:], "line end after 53"},
		{"blank inside", text[:60] + " " + text[60:], "blank"},
		{"carriage return inside", text[:60] + "\r\n" + text[60:], "blank or a line end"},
		{"stray sign", text[:60] + "+" + text[61:], "damaged"},
		{"padding", spoil(func(b []byte) []byte { return b }) + "=", "damaged"},
		{"fragment twice", text + "#x", "damaged"},
		{"one character short", text[:len(text)-1], "cut off"},
		{"cut in the secret", text[:30], "cut off"},
		{"cut before the addresses", spoil(func(b []byte) []byte { return b[:linkFixed] }), "address 1 of 2"},
		{"cut in a length", spoil(func(b []byte) []byte { return b[:linkFixed+1] }), "address 1 of 2"},
		{"cut in an address", spoil(func(b []byte) []byte { return b[:len(b)-3] }), "address 2 of 2"},
		{"cut before the count", spoil(func(b []byte) []byte { return b[:linkFixed-1] }), "cut off"},
		{"bytes behind", spoil(func(b []byte) []byte { return append(b, 1, 2, 3) }), "3 bytes too many"},
		{"version 0", spoil(func(b []byte) []byte { b[0] = 0; return b }), "version 0"},
		{"17 addresses", spoil(func(b []byte) []byte { b[linkFixed-1] = 17; return b }), "17 addresses"},
		{"address without peer", withAddr("/ip4/192.0.2.7/tcp/1"), "/p2p/"},
		{"address too long", withAddr("/dns4/" + strings.Repeat("a", maxAddrSize) + testPeer), "too large"},
		{"address no multiaddr", withAddr("home.example" + testPeer), "slash"},
		{"address with control", withAddr("/dns4/a\x1b[2J" + testPeer), "0x1b"},
		{"empty address", withAddr(""), "slash"},
		{"far too long", linkScheme + strings.Repeat("A", maxLinkText), "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseLink(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want %q", err, tt.says)
			}
			if !errors.Is(err, space.ErrMalformed) && !errors.Is(err, space.ErrTooLarge) {
				t.Fatalf("%v wraps no sentinel", err)
			}
			if !sameLink(got, Link{}) {
				t.Fatal("a link in spite of an error")
			}
			if strings.Contains(err.Error(), text[10:40]) {
				t.Fatal("the error repeats the secret")
			}
		})
	}
	if _, err := ParseLink(spoil(func(b []byte) []byte { b[0] = 2; return b })); !errors.Is(err, space.ErrUnsupported) {
		t.Errorf("version 2: %v", err)
	}
}

// A link cut anywhere is refused: with the count in front, no prefix is a link.
func TestLinkCutAnywhere(t *testing.T) {
	for _, l := range testLinks() {
		for _, text := range []string{l.String(), l.HTTPS("kith.example")} {
			for i := range len(text) {
				if _, err := ParseLink(text[:i]); err == nil {
					t.Fatalf("cut after %d of %d characters: accepted", i, len(text))
				}
			}
		}
	}
}

func TestLinkLeavesOutBadAddresses(t *testing.T) {
	l := testLink()
	good := l.Addrs[0]
	l.Addrs = append([]string{"nonsense", "/ip4/1.2.3.4/tcp/1", strings.Repeat("/", 300)}, slices.Repeat([]string{good}, 20)...)
	got, err := ParseLink(l.String())
	if err != nil || !slices.Equal(got.Addrs, slices.Repeat([]string{good}, MaxLinkAddrs)) {
		t.Fatalf("%d addresses, %v", len(got.Addrs), err)
	}
}

func TestLinkDoesNotLeak(t *testing.T) {
	l := testLink()
	outer := struct {
		Link Link
		P    *Link
	}{l, &l}
	var b bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&b, nil))
	logger.Info("x", "link", l, "outer", outer)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "link", l, "pointer", &l, "outer", outer)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%X", "%T %v"} {
		fmt.Fprintf(&b, verb+"\n", l)
		fmt.Fprintf(&b, verb+"\n", &l)
		fmt.Fprintf(&b, verb+"\n", outer)
	}
	fmt.Fprintln(&b, l, &l, outer, []Link{l}, fmt.Errorf("join %v: failed", l))
	b.Write(must(json.Marshal(outer)))
	for name, secret := range map[string]string{
		"fragment": l.String()[12:40],
		"hex":      hex.EncodeToString(l.Secret[:6]),
		"HEX":      strings.ToUpper(hex.EncodeToString(l.Secret[:6])),
		"raw":      string(l.Secret[:6]),
		"decimal":  strings.Trim(fmt.Sprint(l.Secret[:4]), "[]"),
		"list":     fmt.Sprintf("%d,%d,%d", l.Secret[0], l.Secret[1], l.Secret[2]),
	} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%s of the secret is shown", name)
		}
	}
	id := l.InviteID()
	if want := "invite:" + hex.EncodeToString(id[:4]); fmt.Sprint(l) != want {
		t.Errorf("shows as %v, want %s", l, want)
	}
}

func TestLinkCheck(t *testing.T) {
	l := populated(t)
	var raws [][]byte
	for _, e := range l.entries {
		raws = append(raws, e.Raw())
	}
	link := testLink()
	link.SpaceID, link.Head = l.s.SpaceID, l.entries[3].Hash()
	if err := link.Check(l.s, raws); err != nil {
		t.Fatal(err)
	}
	if err := link.Check(l.s, raws[:3]); !errors.Is(err, space.ErrForged) {
		t.Fatalf("old log: %v", err)
	}
	link.SpaceID[0] ^= 1
	if err := link.Check(l.s, raws); !errors.Is(err, space.ErrForged) {
		t.Fatalf("another space: %v", err)
	}
}

func TestLinkRoundTrip(t *testing.T) {
	addr := rapid.Custom(func(t *rapid.T) string {
		return "/dns4/" + rapid.StringMatching(`[a-z.!~/-]{0,190}`).Draw(t, "host") + testPeer
	})
	key := rapid.SliceOfN(rapid.Byte(), 32, 32)
	rapid.Check(t, func(t *rapid.T) {
		l := Link{
			Secret:  [32]byte(key.Draw(t, "secret")),
			SpaceID: [32]byte(key.Draw(t, "space")),
			Head:    [32]byte(key.Draw(t, "head")),
			Addrs:   rapid.SliceOfN(addr, 0, MaxLinkAddrs).Draw(t, "addrs"),
		}
		for _, text := range []string{l.String(), l.HTTPS("kith.example")} {
			got, err := ParseLink(text)
			if err != nil || !sameLink(got, l) {
				t.Fatalf("%s: %v", text, err)
			}
		}
	})
}
