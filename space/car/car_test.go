package car

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"pgregory.net/rapid"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
)

// vector describes a file of the reference implementation.
type vector struct {
	Name, Space, Author, DIDKey, SetHashHex, Expect, SpecVerdict string

	Rev          space.TID
	ExpectValues bool
	Roots        []space.CID
	Records      int
	Commit       commit.Commit
}

func load(t testing.TB, file string) (v vector, b []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if b, err = os.ReadFile(strings.TrimSuffix(file, ".json") + ".car"); err != nil {
		t.Fatal(err)
	}
	return v, b
}

func (v vector) repo(t testing.TB) Repo {
	id, err := space.ParseID(v.Space)
	if err != nil {
		t.Fatal(err)
	}
	key, err := atcrypto.ParsePublicDIDKey(v.DIDKey)
	if err != nil {
		t.Fatal(err)
	}
	return Repo{Space: id, Author: space.DID(v.Author), Key: key, IndexOnly: !v.ExpectValues}
}

// read takes a snapshot apart.
func read(r io.Reader, of Repo) (*Reader, []space.Record, error) {
	d, err := NewReader(r, of)
	if err != nil {
		return nil, nil, err
	}
	var records []space.Record
	for {
		_, rec, err := d.Next()
		if err == io.EOF {
			return d, records, nil
		}
		if err != nil {
			return nil, nil, err
		}
		records = append(records, rec)
	}
}

func vectors(t testing.TB, pattern string, least int) []string {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < least {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	return files
}

// write puts a snapshot together.
func write(t testing.TB, c commit.Commit, x Index, records []space.Record) []byte {
	t.Helper()
	var values Values
	if records != nil || len(x) == 0 {
		values = func(_ Index, give func(space.Record) error) error {
			for _, r := range records {
				if err := give(r); err != nil {
					return err
				}
			}
			return nil
		}
	}
	var out bytes.Buffer
	if err := Write(&out, c, x.Block(), values); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The reference's snapshots verify, and the same repo and commit give the same
// bytes again.
func TestVectors(t *testing.T) {
	for _, f := range vectors(t, "testdata/*.json", 8) {
		t.Run(filepath.Base(f), func(t *testing.T) {
			v, b := load(t, f)
			d, records, err := read(iotest.OneByteReader(bytes.NewReader(b)), v.repo(t))
			if err != nil {
				t.Fatal(err)
			}
			if h := d.State.Sum(); hex.EncodeToString(h[:]) != v.SetHashHex || d.Commit != v.Commit || len(d.Index) != v.Records {
				t.Errorf("%d records, %x, %+v", len(d.Index), h, d.Commit)
			}
			if v.ExpectValues != (len(records) == len(d.Index)) && v.Records > 0 {
				t.Errorf("%d values for %d entries", len(records), len(d.Index))
			}
			// The writer gets the records in another order: that of a repo.
			repo := space.NewRepo()
			for i := range d.Index {
				repo.Load(d.Index[i].Path, space.Leaf{CID: d.Index[i].CID})
			}
			x := IndexOf(repo.Ascend(space.Path{}, ""), repo.Count())
			if !slices.Equal(x, d.Index) {
				t.Fatal("the index is sorted otherwise")
			}
			if out := write(t, d.Commit, x, records); !bytes.Equal(out, b) {
				t.Errorf("written: %d bytes, want %d", len(out), len(b))
			}
		})
	}
}

// What must not pass fails with one of the sentinels.
func TestInvalidVectors(t *testing.T) {
	for _, f := range vectors(t, "testdata/invalid/*.json", 20) {
		t.Run(filepath.Base(f), func(t *testing.T) {
			v, b := load(t, f)
			_, _, err := read(bytes.NewReader(b), v.repo(t))
			accept := v.Expect == "ok"
			switch v.SpecVerdict {
			case "reject":
				accept = false
			case "unspecified":
				// A second encoding of a commit is refused here.
				accept = v.Name != "commit-extra-field"
			}
			if accept != (err == nil) {
				t.Fatalf("%v, want accepted %v", err, accept)
			}
			sentinels := []error{space.ErrMalformed, space.ErrNotCanonical, space.ErrForged, space.ErrTooLarge}
			if err != nil && !slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) }) {
				t.Errorf("%v is none of the sentinels", err)
			}
		})
	}
}

// Every prefix of a snapshot is refused, and every byte counts.
func TestDamage(t *testing.T) {
	v, b := load(t, "testdata/repo-7.json")
	of := v.repo(t)
	for n := range b {
		if _, _, err := read(bytes.NewReader(b[:n]), of); err == nil {
			t.Fatalf("%d of %d bytes pass", n, len(b))
		}
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, _, err := read(bytes.NewReader(bad), of); err == nil {
			t.Fatalf("byte %d does not count", i)
		}
	}
	if _, _, err := read(bytes.NewReader(append(bytes.Clone(b), 0)), of); err == nil {
		t.Error("a byte behind the end passes")
	}
}

// A reader that was promised much takes little before it is given it.
func TestPromises(t *testing.T) {
	v, b := load(t, "testdata/repo-7.json")
	for name, at := range map[string]int{"header": 0, "commit": 1 + headSize} {
		bad := append(bytes.Clone(b[:at]), 0xff, 0xff, 0xff, 0xff, 0x7f)
		if _, _, err := read(bytes.NewReader(bad), v.repo(t)); err == nil {
			t.Errorf("%s of 32 GiB passes", name)
		}
	}
}

// IndexOf sorts as the text of the keys does: shorter first, then bytewise.
func TestIndexOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		collections := []space.NSID{"com.a.b", "com.a.b-c", "com.a.bc", "com.a.b.c", "co.a.b", "zzz.a.b"}
		key := rapid.StringMatching(`[a-c.~-]{1,6}`)
		repo := space.NewRepo()
		var keys []string
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			p := space.Path{Collection: rapid.SampledFrom(collections).Draw(t, "collection"), Key: space.RecordKey(key.Draw(t, "key"))}
			if _, ok := repo.Leaf(p); ok {
				continue
			}
			repo.Load(p, space.Leaf{CID: space.SumRaw([]byte(p.String()))})
			keys = append(keys, p.String())
		}
		slices.SortFunc(keys, func(a, b string) int {
			if len(a) != len(b) {
				return len(a) - len(b)
			}
			return strings.Compare(a, b)
		})
		var have []string
		for _, e := range IndexOf(repo.Ascend(space.Path{}, ""), 0) {
			have = append(have, e.Path.String())
		}
		if !slices.Equal(have, keys) {
			t.Fatalf("%q, want %q", have, keys)
		}
	})
}

func TestWriteCountsValues(t *testing.T) {
	v, b := load(t, "testdata/repo-7.json")
	d, records, err := read(bytes.NewReader(b), v.repo(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 6, 8} {
		err := Write(io.Discard, d.Commit, d.Index.Block(), func(_ Index, give func(space.Record) error) error {
			for i := range n {
				if err := give(records[i%7]); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			t.Errorf("%d values for 7 entries pass", n)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, file := range append(vectors(f, "testdata/repo-[017]*.json", 3), vectors(f, "testdata/invalid/*.json", 20)...) {
		v, b := load(f, file)
		if len(b) < 4<<10 {
			f.Add(b, v.ExpectValues)
		}
	}
	v, _ := load(f, "testdata/repo-7.json")
	signed, unsigned := v.repo(f), Repo{}
	f.Fuzz(func(t *testing.T, b []byte, values bool) {
		unsigned.IndexOnly = !values
		_, _, _ = read(bytes.NewReader(b), signed)
		d, records, err := read(bytes.NewReader(b), unsigned)
		if err != nil {
			return
		}
		if len(records) < len(d.Index) {
			records = nil
		}
		if !bytes.Equal(write(t, d.Commit, d.Index, records), b) {
			t.Error("a second encoding passes")
		}
	})
}
