package store

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// chainMaker makes runs of one chain. Their signatures are not real: the store
// does not look at them.
type chainMaker struct {
	t     testing.TB
	topic envelope.TopicID
	cert  envelope.Certificate
	chain envelope.Chain
	size  int // of the padded plaintext
}

func newChain(t testing.TB, issuer, chain byte) *chainMaker {
	pub := ed25519.NewKeyFromSeed(bytesOf(issuer, 32)).Public().(ed25519.PublicKey)
	writer := ed25519.NewKeyFromSeed(bytesOf(chain, 32)).Public().(ed25519.PublicKey)
	grant := append(envelope.GrantBody(pub, writer, 2, 1<<40), make([]byte, 64)...)
	cert, err := envelope.NewCertificate([envelope.GrantSize]byte(grant), [64]byte{chain})
	if err != nil {
		t.Fatal(err)
	}
	c := &chainMaker{t: t, topic: envelope.TopicOf(pub), cert: cert, size: envelope.MinPadded}
	c.chain = envelope.Chain{ID: envelope.ChainID(writer), Cert: cert}
	return c
}

func bytesOf(b byte, n int) []byte {
	s := make([]byte, n)
	for i := range s {
		s[i] = b
	}
	return s
}

// next makes the next n envelopes and the row that stores them.
func (c *chainMaker) next(n int) *RunRow {
	r := &RunRow{}
	prev := c.chain.Head.ID
	if c.chain.Length == 0 {
		r.Cert, prev = c.cert.Bytes(), c.cert.ID()
	}
	for range n {
		h := envelope.Header{Type: envelope.Entry, Topic: c.topic, Chain: c.chain.ID, Seq: c.chain.Length, Prev: prev}
		if h.Seq == 0 {
			h.Type = envelope.Hello
		}
		e, err := envelope.Parse(c.build(h))
		if err != nil {
			c.t.Fatal(err)
		}
		r.Envs = append(r.Envs, e)
		c.chain.Head, c.chain.Length = e.Head(), c.chain.Length+1
		prev = e.ID()
	}
	r.Chain = c.chain
	return r
}

func (c *chainMaker) build(h envelope.Header) []byte {
	ct := make([]byte, c.size+envelope.TagSize)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(c.chain.ID[:], h.Seq))
	copy(ct, sum[:])
	b, err := envelope.Build(h, [24]byte(sum[:24]), ct, func([]byte) []byte { return make([]byte, 64) })
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// fold adds what envelopes change to a topic.
func fold(t *TopicRow, envs []envelope.Envelope) {
	for _, e := range envs {
		id := e.ID()
		t.State.Add(id[:])
		t.Count++
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func openMemory(t testing.TB) *Store {
	s := must[*Store](t)(Open("", [32]byte{1}, Options{}))
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func commit(t testing.TB, s *Space, c Class, b *Batch) {
	t.Helper()
	if err := s.Commit(c, b); err != nil {
		t.Fatal(err)
	}
}

const testAuthor = space.DID("did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme")

// author is a repo that is written to op by op, and the rows that store it.
type author struct {
	t    testing.TB
	did  space.DID
	repo *space.Repo
	ops  uint64
}

func newAuthor(t testing.TB, did space.DID) *author {
	return &author{t: t, did: did, repo: space.NewRepo()}
}

// write puts n records into b, or deletes them if value is "".
func (a *author) write(b *Batch, first, n int, value string) {
	a.t.Helper()
	body := space.Batch{Rev: space.NextTID(1_700_000_000_000_000, 3, a.repo.Rev())}
	for i := range n {
		op := space.Op{Path: testPath(first + i)}
		if value != "" {
			op.Value = testRecord(a.t, fmt.Sprint(value, i))
		}
		body.Ops = append(body.Ops, op)
	}
	staged := a.repo.Begin()
	changes := staged.Apply(body, space.Stamp{Rev: body.Rev, Device: [32]byte{1}, Entry: [32]byte{2}})
	page := OpPage{Author: a.did, First: a.ops}
	for i, c := range changes {
		leaf := space.Leaf{CID: c.New, Stamp: c.Stamp}
		b.Records = append(b.Records, RecordRow{Author: a.did, Path: c.Path, Leaf: leaf, Value: c.Value})
		page.Rows = append(page.Rows, OpRow{Rev: body.Rev, Idx: i, Path: c.Path, CID: c.New, Prev: c.Old})
	}
	staged.Commit()
	a.ops += uint64(len(page.Rows))
	b.Ops = append(b.Ops, page)
	b.Repos = append(b.Repos, a.row())
}

func (a *author) row() RepoRow {
	return RepoRow{Author: a.did, Rev: a.repo.Rev(), Count: a.repo.Count(), State: a.repo.State(), OpCount: a.ops}
}

func testPath(i int) space.Path {
	return space.Path{Collection: "app.example.note", Key: space.RecordKey(fmt.Sprintf("key-%04d", i))}
}

func testRecord(t testing.TB, text string) space.Record {
	t.Helper()
	return must[space.Record](t)(space.RecordFromJSON(fmt.Appendf(nil, `{"$type":"app.example.note","text":%q}`, text)))
}

func testStatement() *space.Statement {
	return &space.Statement{
		Count: 3, Hash: [32]byte{1}, IKM: [32]byte{2}, Sig: [64]byte{3},
		View: space.View{Count: 4, Digest: [32]byte{5}}, Ctl: space.Head{Term: 6, Seq: 7, Hash: [32]byte{8}},
	}
}

var smallBuffer = Options{WriteBufferBytes: minWriteBuffer, RetryAfter: -1}

// openFaulty opens a store on a disk that fails, with a small write buffer,
// which looks at a full disk at every write.
func openFaulty(t testing.TB, d *storetest.Disk) *Store {
	t.Helper()
	return must[*Store](t)(OpenOn(d, [32]byte{1}, smallBuffer))
}
