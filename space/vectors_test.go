package space

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

type repoVector struct {
	Rev     TID    `json:"rev"`
	SetHash string `json:"setHashHex"`
	Records []struct {
		Path  string          `json:"path"`
		CID   CID             `json:"cid"`
		CBOR  string          `json:"cborHex"`
		Value json.RawMessage `json:"value"`
	} `json:"records"`
}

// Repos exported by the reference implementation: its bytes, CIDs and set
// hashes are ours.
func TestRepoVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/repos/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var v repoVector
			if err := json.Unmarshal(b, &v); err != nil {
				t.Fatal(err)
			}
			v.check(t)
		})
	}
}

func (v repoVector) check(t *testing.T) {
	batch := Batch{Rev: v.Rev}
	for _, r := range v.Records {
		p, err := ParsePath(r.Path)
		if err != nil {
			t.Fatal(err)
		}
		value, err := RecordFromJSON(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		if value.CID() != r.CID || r.CBOR != "" && hex.EncodeToString(value) != r.CBOR {
			t.Errorf("%s: %s %x, want %s %s", r.Path, value.CID(), []byte(value), r.CID, r.CBOR)
		}
		batch.Ops = append(batch.Ops, Op{Path: p, Value: value})
	}
	repo := NewRepo()
	s := repo.Begin()
	s.Apply(batch, Stamp{Rev: v.Rev})
	s.Commit()
	if d := repo.Digest(); hex.EncodeToString(d[:]) != v.SetHash || repo.Count() != uint64(len(v.Records)) || repo.Rev() != v.Rev {
		t.Errorf("%d records, digest %x, want %d, %s", repo.Count(), d, len(v.Records), v.SetHash)
	}
}
