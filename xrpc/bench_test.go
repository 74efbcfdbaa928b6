package xrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
)

// backend is Records under a name that is not also a method of it.
type backend = Records

// instant acknowledges every write at once.
type instant struct {
	backend
	ref Written
}

func (i *instant) Write(context.Context, space.ID, []Write, WriteOptions) (Written, error) {
	return i.ref, nil
}

// sink takes an answer.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(int)             {}

// A record of 299 bytes in a body of 386 or so, as in docs/benchmarks.md.
func benchBody() []byte {
	record := `{"$type":"com.example.note","createdAt":"2027-01-31T12:00:00.000Z","n":12345,"tags":["one","two","three"],"text":"` + strings.Repeat("x", 187) + `"}`
	return []byte(`{"space":"` + home.String() + `","collection":"com.example.note","rkey":"3jzfcijpj2z2a","record":` + record + `}`)
}

// serveLoop calls h with the body again and again, without a network.
func serveLoop(b *testing.B, h http.Handler, body []byte) {
	target, err := url.Parse("http://localhost/xrpc/com.atproto.space.putRecord")
	if err != nil {
		b.Fatal(err)
	}
	r := &http.Request{
		Method: post, URL: target, Host: "localhost", ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + apiToken}},
	}
	w := &sink{http.Header{}}
	rd := bytes.NewReader(body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		rd.Reset(body)
		r.Body = io.NopCloser(rd)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkPutRecord is the whole handler on a node that does nothing; beside
// it a handler that only reads and answers, one that decodes with
// encoding/json, and the record's own parsing, which no handler can spare.
func BenchmarkPutRecord(b *testing.B) {
	body := benchBody()
	o, err := parseObject(body)
	if err != nil {
		b.Fatal(err)
	}
	raw, _ := o.raw("record")
	raw = bytes.Clone(raw)
	rec, err := space.RecordFromJSON(raw)
	if err != nil {
		b.Fatal(err)
	}
	ref := RecordRef{space.URI{Space: home, Author: owner, Path: space.Path{Collection: notes, Key: "3jzfcijpj2z2a"}}, rec.CID()}
	s := newServer(newFake(b))
	s.Records = &instant{ref: Written{1 << 60, []RecordRef{ref}}}

	b.Run("handler", func(b *testing.B) { serveLoop(b, s, body) })
	b.Run("bare", func(b *testing.B) {
		answer := []byte(`{"uri":"` + ref.URI.String() + `","cid":"` + ref.CID.String() + `"}`)
		serveLoop(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				b.Error(err)
			}
			w.Header().Set("Content-Type", "application/json")
			w.Write(answer)
		}), body)
	})
	b.Run("bare-json", func(b *testing.B) {
		serveLoop(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var in recordBodyAny
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				b.Error(err)
			}
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(recordAnswer{URI: ref.URI.String(), CID: ref.CID.String()})
		}), body)
	})
	b.Run("record-only", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := space.RecordFromJSON(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("scan-only", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parseObject(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

type recordBodyAny struct {
	Space, Collection, Rkey string
	Record                  map[string]any
}

// BenchmarkPutRecordHTTP is the same over loopback connections.
func BenchmarkPutRecordHTTP(b *testing.B) {
	s := newServer(newFake(b))
	rec := must(space.RecordFromJSON([]byte(`{"text":"` + strings.Repeat("x", 280) + `"}`)))(b)
	path := space.Path{Collection: notes, Key: "3jzfcijpj2z2a"}
	s.Records = &instant{ref: Written{1 << 60, []RecordRef{{space.URI{Space: home, Author: owner, Path: path}, rec.CID()}}}}
	base, _ := listen(b, s)
	c := &Client{Base: base, Token: apiToken}
	b.SetParallelism(4)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := c.PutRecord(context.Background(), home, path, rec, nil); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkListRecords encodes a page of 100.
func BenchmarkListRecords(b *testing.B) {
	f := newFake(b)
	for i := range 100 {
		f.put(owner, "com.example.note/k"+string(rune('a'+i/10))+string(rune('a'+i%10)), `{"text":"`+strings.Repeat("x", 280)+`"}`)
	}
	s := newServer(f)
	b.ReportAllocs()
	for b.Loop() {
		if w := ask(s, get, "com.atproto.space.listRecords", "limit=100&space="+home.String()); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}
