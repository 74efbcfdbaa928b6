package space

import (
	"encoding/json"
	"testing"

	"github.com/ipfs/go-cid"
)

func TestCID(t *testing.T) {
	for _, c := range []CID{Sum([]byte{0xa0}), SumRaw([]byte("blob"))} {
		oracle, err := cid.Parse(c.String())
		if err != nil || string(oracle.Bytes()) != string(c.Bytes()) || oracle.String() != c.String() {
			t.Errorf("%s: %v, %v", c, oracle, err)
		}
		if back, err := ParseCID(c.String()); err != nil || back != c {
			t.Errorf("ParseCID: %v, %v", back, err)
		}
		if back, err := CIDFromBytes(c.Bytes()); err != nil || back != c {
			t.Errorf("CIDFromBytes: %v, %v", back, err)
		}
	}
	if s := Sum([]byte{0xa0}).String(); s != "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua" {
		t.Errorf("the empty map is %s", s)
	}
}

func TestCIDRefusals(t *testing.T) {
	good := Sum([]byte{0xa0}).String()
	for _, s := range []string{
		"", "b", good[1:], "B" + good[1:], good + "a", good[:58] + "b", "z" + good[1:], good[:30] + "\n" + good[31:],
		"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnd7u1", // version 0
		cid.NewCidV1(cid.DagProtobuf, mustCID(t, good).Hash()).String(),
	} {
		if c, err := ParseCID(s); err == nil {
			t.Errorf("%q is %v", s, c)
		}
	}
	if _, err := CIDFromBytes(append(Sum(nil).Bytes(), 0)); err == nil {
		t.Error("37 bytes accepted")
	}
}

func mustCID(t *testing.T, s string) cid.Cid {
	t.Helper()
	c, err := cid.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNoCID(t *testing.T) {
	var none CID
	if !none.IsZero() || none.Bytes() != nil || none.String() != "" {
		t.Errorf("none = %x %q", none.Bytes(), none)
	}
	b, err := Marshal(none)
	if err != nil || string(b) != "\xf6" {
		t.Errorf("none in DRISL: %x, %v", b, err)
	}
	back := Sum(nil)
	if err := Unmarshal(b, &back); err != nil || !back.IsZero() {
		t.Errorf("null: %v, %v", back, err)
	}
	back = Sum(nil)
	if err := json.Unmarshal([]byte(`""`), &back); err != nil || !back.IsZero() {
		t.Errorf(`"": %v, %v`, back, err)
	}
}
