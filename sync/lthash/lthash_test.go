package lthash

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
)

type vector struct {
	Name    string  `json:"name"`
	Ops     [][]any `json:"ops"`
	Formula *struct {
		Count   int    `json:"count"`
		Element string `json:"element"`
	} `json:"formula"`
	DigestHex string `json:"digestHex"`
	IsEmpty   bool   `json:"isEmpty"`
	StateB64  string `json:"stateB64"`
}

func vectors(t *testing.T) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/lthash.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Cases []vector `json:"cases"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Cases) != 46 {
		t.Fatalf("%d cases, want 46", len(f.Cases))
	}
	return f.Cases
}

func (v vector) apply(s *State) {
	for _, op := range v.Ops {
		n := 1
		if len(op) == 3 {
			n = int(op[2].(float64))
		}
		for range n {
			if op[0] == "add" {
				s.Add([]byte(op[1].(string)))
			} else {
				s.Remove([]byte(op[1].(string)))
			}
		}
	}
	if v.Formula != nil {
		for i := range v.Formula.Count {
			s.Add([]byte(strings.ReplaceAll(v.Formula.Element, "{i}", strconv.Itoa(i))))
		}
	}
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			var s State
			v.apply(&s)
			if sum := s.Sum(); hex.EncodeToString(sum[:]) != v.DigestHex {
				t.Errorf("digest %x, want %s", sum, v.DigestHex)
			}
			if s.IsEmpty() != v.IsEmpty {
				t.Errorf("IsEmpty = %v", s.IsEmpty())
			}
			if v.StateB64 == "" {
				return
			}
			want, err := base64.StdEncoding.DecodeString(v.StateB64)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := s.AppendBinary(nil); string(got) != string(want) {
				t.Error("serialised state differs")
			}
			var back State
			if err := back.UnmarshalBinary(want); err != nil || !back.Equal(&s) {
				t.Errorf("UnmarshalBinary: %v, equal %v", err, back.Equal(&s))
			}
		})
	}
}

// TestMerge: a set hashed in two parts is the sum of both, wherever it is cut.
func TestMerge(t *testing.T) {
	var whole State
	for i := range 200 {
		whole.Add([]byte(strconv.Itoa(i)))
	}
	for cut := range 201 {
		var parts [2]State
		for i := range 200 {
			half := &parts[0]
			if i >= cut {
				half = &parts[1]
			}
			half.Add([]byte(strconv.Itoa(i)))
		}
		if parts[0].Merge(&parts[1]); !parts[0].Equal(&whole) {
			t.Fatalf("cut at %d: another sum", cut)
		}
	}
}
