package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
)

func TestDeviceMarshal(t *testing.T) {
	d := must[Device](t)(NewDevice(testRand(3)))
	b := d.Marshal()
	back := must[Device](t)(UnmarshalDevice(b))
	if !back.Equal(d) || back.ID() != d.ID() || !bytes.Equal(back.KEMPublic(), d.KEMPublic()) || !back.DH().Equal(d.DH()) {
		t.Error("a device does not survive Marshal")
	}
	if other := must[Device](t)(NewDevice(testRand(4))); other.Equal(d) {
		t.Error("two devices are equal")
	}
	for name, bad := range map[string][]byte{"empty": nil, "short": b[:96], "long": append(b, 0), "version": append([]byte{2}, b[1:]...)} {
		if _, err := UnmarshalDevice(bad); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewDevice(strings.NewReader("too few")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("NewDevice on a dry source: %v", err)
	}
}

func TestPUKMarshal(t *testing.T) {
	p := must[PUK](t)(newPUK(testRand(3), 5))
	b := p.Marshal()
	back := must[PUK](t)(UnmarshalPUK(b))
	if !back.Equal(p) || back.Gen() != 5 || !back.Public().Equal(p.Public()) {
		t.Error("a PUK does not survive Marshal")
	}
	gen := func(g ...byte) []byte { return append(append([]byte{1}, g...), b[5:]...) }
	for name, bad := range map[string][]byte{
		"empty": nil, "short": b[:36], "long": append(b, 0), "version": append([]byte{2}, b[1:]...),
		"generation 0": gen(0, 0, 0, 0), "generation 1001": gen(0, 0, 3, 0xe9),
	} {
		if _, err := UnmarshalPUK(bad); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No way of printing a secret shows it.
func TestSecretsAreOpaque(t *testing.T) {
	c := alice()
	seed := testSeed(0x11)
	kem, err := c.Device.KEM().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets := [][]byte{bytes.Repeat([]byte{0x11}, 32), seed.signing().Seed(), c.Device.Sig().Seed(), kem, c.Device.DH().Bytes(), c.PUK.k().secret[:]}
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	for _, v := range []any{seed, c.Device, c.PUK, &seed, &c.Device, &c.PUK, struct{ key Seed }{seed}, struct{ key Device }{c.Device}, struct{ key PUK }{c.PUK}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %x %q\n", v, v, v, v, v, v)
		log.Info("key", "key", v)
		js, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(js)
	}
	for i, s := range secrets {
		decimal := strings.Trim(fmt.Sprint(s[:6]), "[]")
		hexed := hex.EncodeToString(s[:6])
		for _, form := range []string{string(s[:6]), hexed, strings.ToUpper(hexed), decimal, strings.ReplaceAll(decimal, " ", ", ")} {
			if strings.Contains(out.String(), form) {
				t.Errorf("secret %d is shown as %q", i, form)
			}
		}
	}
	for _, want := range []string{"seed:4cab13ac", fmt.Sprintf("device:%x", c.Device.k().id[:4]), "puk:1:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log does not say %s", want)
		}
	}
}

func TestZeroKeysPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"Seed.Words":      func() { Seed{}.Words() },
		"Seed.Commitment": func() { Seed{}.Commitment() },
		"DIDKey":          func() { DIDKey(Seed{}) },
		"Device.ID":       func() { Device{}.ID() },
		"Device.Marshal":  func() { Device{}.Marshal() },
		"PUK.KEM":         func() { PUK{}.KEM() },
		"PUK.Marshal":     func() { PUK{}.Marshal() },
	} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "identity: use of a zero") {
					t.Errorf("%s of the zero value: %v", name, r)
				}
			}()
			f()
		}()
	}
	for _, v := range []slog.LogValuer{Seed{}, Device{}, PUK{}} {
		if got := v.LogValue().String(); !strings.HasSuffix(got, ":none") {
			t.Errorf("LogValue of a zero key = %s", got)
		}
	}
}

func TestSeedClear(t *testing.T) {
	s := must[Seed](t)(NewSeed(testRand(1)))
	secret, sig := s.k().secret[:], s.k().sig
	s.Clear()
	if !bytes.Equal(secret, make([]byte, 32)) || !bytes.Equal(sig, make([]byte, 64)) {
		t.Error("Clear leaves secrets")
	}
}

// le is n as 32 little-endian bytes.
func le(n *big.Int) []byte {
	b := n.FillBytes(make([]byte, 32))
	for i := range 16 {
		b[i], b[31-i] = b[31-i], b[i]
	}
	return b
}

func TestDHPublic(t *testing.T) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	good := alice().Device.DH().PublicKey().Bytes()
	if _, err := parseDHPublic(good); err != nil {
		t.Errorf("a good key: %v", err)
	}
	high := bytes.Clone(good)
	high[31] |= 0x80
	order8 := must[[]byte](t)(hex.DecodeString("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"))
	other8 := must[[]byte](t)(hex.DecodeString("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"))
	for name, c := range map[string]struct {
		b  []byte
		is error
	}{
		"empty":       {nil, space.ErrMalformed},
		"long":        {append(bytes.Clone(good), 0), space.ErrMalformed},
		"zero":        {le(big.NewInt(0)), space.ErrMalformed},
		"one":         {le(big.NewInt(1)), space.ErrMalformed},
		"order 8":     {order8, space.ErrMalformed},
		"order 8 too": {other8, space.ErrMalformed},
		"p-1":         {le(new(big.Int).Sub(p, big.NewInt(1))), space.ErrMalformed},
		"p":           {le(p), space.ErrNotCanonical},
		"p+9":         {le(new(big.Int).Add(p, big.NewInt(9))), space.ErrNotCanonical},
		"high bit":    {high, space.ErrNotCanonical},
	} {
		if _, err := parseDHPublic(c.b); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
}

func TestKEMPublic(t *testing.T) {
	good := alice().Device.KEMPublic()
	if _, err := parseKEMPublic(good); err != nil {
		t.Errorf("a good key: %v", err)
	}
	unreduced := bytes.Clone(good)
	unreduced[0], unreduced[1] = 0xff, unreduced[1]|0x0f // a coefficient of 4095, over q
	small := append(bytes.Clone(good[:kemPublicSize-32]), make([]byte, 32)...)
	for name, b := range map[string][]byte{"empty": nil, "short": good[:kemPublicSize-1], "unreduced": unreduced, "small order": small} {
		if _, err := parseKEMPublic(b); !errors.Is(err, space.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
