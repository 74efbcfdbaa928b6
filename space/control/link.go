package control

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/kithnet/kith/space"
)

// Layout of a link's fragment; the package comment has the table.
const (
	linkVersion = 1
	linkFixed   = 1 + 3*32 + 1 // up to and with the number of addresses

	// MaxLinkAddrs bounds the addresses of a link.
	MaxLinkAddrs = 16

	maxFragment = linkFixed + MaxLinkAddrs*(2+maxAddrSize)
	maxLinkText = 2048 + (maxFragment*4+2)/3 // with room for a host

	linkScheme = "kith:j#"
)

// Link is an invite link. Whoever holds it can join, so it shows itself only
// through String and HTTPS; every other way to print it gives a fingerprint.
type Link struct {
	Secret  [32]byte // the invite's; InviteKey comes of it
	SpaceID [32]byte
	Head    [32]byte // hash of an entry the log must contain
	Addrs   []string // multiaddrs with /p2p/ of nodes to ask
}

// InviteKey is the private key of the invite; the log holds its public half.
func (l Link) InviteKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(space.KDF(l.Secret[:], space.LabelInvite, nil, ed25519.SeedSize))
}

// InviteID names the invite in the log.
func (l Link) InviteID() [16]byte {
	return InviteID(l.InviteKey().Public().(ed25519.PublicKey))
}

// String is the link itself, kith:j#…, secret and all. Addresses that a link
// cannot carry (too long, no /p2p/, more than MaxLinkAddrs) are left out.
func (l Link) String() string { return linkScheme + l.fragment() }

// HTTPS is the same link as a page of host, which never sees the fragment.
func (l Link) HTTPS(host string) string {
	id := l.InviteID()
	return "https://" + host + "/j/" + hex.EncodeToString(id[:]) + "#" + l.fragment()
}

func (l Link) fragment() string {
	b := append(make([]byte, 0, 512), linkVersion)
	b = append(b, l.Secret[:]...)
	b = append(b, l.SpaceID[:]...)
	b = append(b, l.Head[:]...)
	b = append(b, 0)
	for _, a := range l.Addrs {
		if checkLinkAddr(a) != nil || b[linkFixed-1] == MaxLinkAddrs {
			continue
		}
		b[linkFixed-1]++
		b = binary.BigEndian.AppendUint16(b, uint16(len(a)))
		b = append(b, a...)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// fingerprint tells links apart without giving them away: the invite id is in
// the log, where every member can read it.
func (l Link) fingerprint() string {
	id := l.InviteID()
	return "invite:" + hex.EncodeToString(id[:4])
}

// Format prints the fingerprint under every verb, so that no log line and no
// error text can hand out the secret.
func (l Link) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(l.fingerprint())) }

// LogValue is the fingerprint.
func (l Link) LogValue() slog.Value { return slog.StringValue(l.fingerprint()) }

// MarshalJSON is the fingerprint; an answer that carries the link says String.
func (l Link) MarshalJSON() ([]byte, error) { return json.Marshal(l.fingerprint()) }

// ParseLink reads either form of a link as people paste it, with blanks or
// quotes around it. Its errors are sentences for them and wrap
// space.ErrMalformed, or space.ErrUnsupported for a link of a later version;
// they never repeat the link.
func ParseLink(text string) (Link, error) {
	text = strings.Trim(text, " \t\r\n\v\f\u00a0\u200b\ufeff\"'`<>“”‘’«»")
	if len(text) > maxLinkText {
		return Link{}, linkError("the link is too long: %d characters", len(text))
	}
	frag, id, err := splitLink(text)
	if err != nil {
		return Link{}, err
	}
	raw, err := decodeFragment(frag)
	if err != nil {
		return Link{}, err
	}
	l, err := decodeLink(raw)
	if err != nil {
		return Link{}, err
	}
	if want := l.InviteID(); id != "" && !strings.EqualFold(id, hex.EncodeToString(want[:])) {
		return Link{}, linkError("the link was mixed up: what stands before and after the # belongs to two different invites")
	}
	return l, nil
}

func linkError(format string, args ...any) error {
	return fmt.Errorf(format+" (%w)", append(args, space.ErrMalformed)...)
}

// splitLink gives the fragment and, of the https form, the invite id.
func splitLink(text string) (frag, id string, err error) {
	if text == "" {
		return "", "", linkError("there is no link here")
	}
	front, frag, found := strings.Cut(text, "#")
	https := len(front) >= 8 && strings.EqualFold(front[:8], "https://")
	if !https && !strings.EqualFold(front, "kith:j") {
		if strings.HasPrefix("kith:j", strings.ToLower(front)) {
			return "", "", linkError("the link is cut off: there is nothing after %q", front)
		}
		return "", "", linkError("this is not an invite link: it begins neither with kith:j# nor with https://")
	}
	if https {
		host, path, _ := strings.Cut(front[8:], "/")
		var ok bool
		if id, ok = strings.CutPrefix(path, "j/"); host == "" || !ok {
			return "", "", linkError("this is a web address but not an invite link: those read https://HOST/j/ID#…")
		}
		if found && len(id) != 32 {
			return "", "", linkError("the link is damaged: the part before the # is %d characters, not 32", len(id))
		}
	}
	if !found || frag == "" {
		return "", "", linkError("the link is cut off: the part after the # is missing")
	}
	return frag, id, nil
}

// decodeFragment is base64url without padding, each value in one spelling.
func decodeFragment(frag string) ([]byte, error) {
	for i, r := range frag {
		switch {
		case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-', r == '_':
		case r == ' ', r == '\n', r == '\r', r == '\t':
			return nil, linkError("the link is broken by a blank or a line end after %d characters of the part behind the #", i)
		default:
			return nil, linkError("the link is damaged: %q does not belong in it, after %d characters of the part behind the #", r, i)
		}
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(frag)
	if err != nil {
		return nil, linkError("the link is cut off or damaged at its end")
	}
	return raw, nil
}

func decodeLink(raw []byte) (Link, error) {
	if len(raw) > 0 && raw[0] != linkVersion {
		if raw[0] == 0 {
			return Link{}, linkError("the link is damaged: version 0")
		}
		return Link{}, fmt.Errorf("the link was made by a newer Kith, version %d: this one reads version %d (%w)", raw[0], linkVersion, space.ErrUnsupported)
	}
	if len(raw) < linkFixed {
		return Link{}, linkError("the link is cut off: %d of at least %d bytes are there", len(raw), linkFixed)
	}
	var l Link
	copy(l.Secret[:], raw[1:])
	copy(l.SpaceID[:], raw[33:])
	copy(l.Head[:], raw[65:])
	n := int(raw[linkFixed-1])
	if n > MaxLinkAddrs {
		return Link{}, linkError("the link is damaged: it says it has %d addresses, at most %d are allowed", n, MaxLinkAddrs)
	}
	rest := raw[linkFixed:]
	for i := range n {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return Link{}, linkError("the link is cut off: address %d of %d is not complete", i+1, n)
		}
		size := int(binary.BigEndian.Uint16(rest))
		a := string(rest[2 : 2+size])
		if err := checkLinkAddr(a); err != nil {
			return Link{}, fmt.Errorf("the link is damaged: address %d of %d: %w", i+1, n, err)
		}
		l.Addrs = append(l.Addrs, a)
		rest = rest[2+size:]
	}
	if len(rest) != 0 {
		return Link{}, linkError("the link is damaged: %d bytes too many at its end", len(rest))
	}
	return l, nil
}

// checkLinkAddr wants an address that says whom one expects there.
func checkLinkAddr(a string) error {
	if err := checkAddr(a); err != nil {
		return err
	}
	if !strings.Contains(a, "/p2p/") {
		return malformed("an address without /p2p/")
	}
	return nil
}

// checkAddr holds a multiaddr to its shape; who dials it parses it.
func checkAddr(a string) error {
	if len(a) > maxAddrSize {
		return fmt.Errorf("%w: an address of %d bytes", space.ErrTooLarge, len(a))
	}
	if !strings.HasPrefix(a, "/") {
		return malformed("an address that does not begin with a slash")
	}
	for i := range len(a) {
		if a[i] <= ' ' || a[i] > '~' {
			return malformed("an address with byte %#x in it", a[i])
		}
	}
	return nil
}
