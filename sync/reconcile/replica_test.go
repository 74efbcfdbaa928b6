package reconcile

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// world makes chains of one topic. The same seeds give the same bytes.
type world struct {
	issuer, writer ed25519.PrivateKey
	topic          envelope.TopicID
	fetch          FetchKey
}

func seed(name string) []byte {
	h := sha256.Sum256([]byte(name))
	return h[:]
}

func newWorld(name string) *world {
	w := &world{
		issuer: ed25519.NewKeyFromSeed(seed(name + " issuer")),
		writer: ed25519.NewKeyFromSeed(seed(name + " writer")),
		fetch:  NewFetchKey(ed25519.NewKeyFromSeed(seed(name + " fetch"))),
	}
	w.topic = envelope.TopicOf(w.issuer.Public().(ed25519.PublicKey))
	return w
}

// chain is a chain under construction.
type chain struct {
	w    *world
	key  ed25519.PrivateKey
	id   envelope.ChainID
	cert envelope.Certificate
	envs []envelope.Envelope
}

// newChain makes a chain of n envelopes with n plaintexts of size bytes, all
// signed, seqs in bad excepted.
func (w *world) newChain(name string, n, size int, bad ...int) *chain {
	c := &chain{w: w, key: ed25519.NewKeyFromSeed(seed(name))}
	c.id = envelope.ChainID(c.key.Public().(ed25519.PublicKey))
	body := envelope.GrantBody(w.issuer.Public().(ed25519.PublicKey), w.writer.Public().(ed25519.PublicKey), 2, 1<<40)
	grant := append(body, space.Sign(w.issuer, space.LabelWriterCert, body)...)
	link := space.Sign(w.writer, space.LabelChain, w.topic[:], c.id[:])
	cert, err := envelope.NewCertificate([envelope.GrantSize]byte(grant), [64]byte(link))
	if err != nil {
		panic(err)
	}
	c.cert = cert
	for i := range n {
		c.write(size, "", contains(bad, i))
	}
	return c
}

func contains(s []int, x int) bool {
	for _, y := range s {
		if x == y {
			return true
		}
	}
	return false
}

// write appends an envelope; branch makes it another one than it would be.
func (c *chain) write(size int, branch string, bad bool) {
	h := envelope.Header{Type: envelope.Entry, Topic: c.w.topic, Chain: c.id, Seq: uint64(len(c.envs)), Prev: c.cert.ID()}
	if len(c.envs) == 0 {
		h.Type = envelope.Hello
	} else {
		h.Prev = c.envs[len(c.envs)-1].ID()
	}
	nonce := [24]byte(seed(fmt.Sprint("nonce ", h.Seq, branch)))
	ct := make([]byte, envelope.PaddedSize(size)+envelope.TagSize)
	raw, err := envelope.Build(h, nonce, ct, func(m []byte) []byte {
		if bad {
			return make([]byte, 64)
		}
		return ed25519.Sign(c.key, m)
	})
	if err != nil {
		panic(err)
	}
	e, err := envelope.Parse(raw)
	if err != nil {
		panic(err)
	}
	c.envs = append(c.envs, e)
}

// fork is a second chain of the same key that parts from c at seq n and has
// more envelopes after it.
func (c *chain) fork(n, more int) *chain {
	f := *c
	f.envs = append([]envelope.Envelope(nil), c.envs[:n]...)
	for range more {
		f.write(100, "other branch", false)
	}
	return &f
}

// memory is a replica in memory: Replica, Sink and ControlLog.
type memory struct {
	topic *envelope.Topic
	envs  map[envelope.ChainID][]envelope.Envelope
	log   *ctlLog
	epoch uint64

	maxRun  int    // envelopes a Run returns; 0: as many as fit
	named   int    // Config.MaxNamed
	nonce   string // makes another nonce
	onQuery func() // called by each Summary
	fail    error  // what Deliver answers
	past    *Memory
	earlier Earlier
	minTree int    // 0: the constant
	segment uint64 // 0: the constant
}

func (w *world) newMemory() *memory {
	m := &memory{topic: envelope.NewTopic(w.topic), envs: make(map[envelope.ChainID][]envelope.Envelope), epoch: 7, log: newCtlLog(3)}
	m.topic.SetIDs(m)
	return m
}

// clone is a copy that goes its own way.
func (m *memory) clone() *memory {
	c := &memory{envs: make(map[envelope.ChainID][]envelope.Envelope), log: m.log, epoch: m.epoch}
	topic, err := envelope.RestoreTopic(m.topic.ID(), slices.Collect(m.topic.Chains()), m.topic.Count(), m.topic.State())
	if err != nil {
		panic(err)
	}
	c.topic = topic
	c.topic.SetIDs(c)
	for id, envs := range m.envs {
		c.envs[id] = slices.Clip(envs)
	}
	return c
}

// with puts the first n envelopes of c in.
func (m *memory) with(c *chain, n int) *memory {
	for have := len(m.envs[c.id]); have < n; have = len(m.envs[c.id]) {
		var cert *envelope.Certificate
		if have == 0 {
			cert = &c.cert
		}
		if _, err := m.Deliver(cert, c.envs[have:min(n, have+envelope.MaxRun)]); err != nil {
			panic(err)
		}
	}
	return m
}

func (m *memory) IDAt(c envelope.ChainID, seq uint64) (envelope.ID, bool) {
	if seq >= uint64(len(m.envs[c])) {
		return envelope.ID{}, false
	}
	return m.envs[c][seq].ID(), true
}

func (m *memory) Envelopes(c envelope.ChainID, from, to uint64) []envelope.Envelope {
	if n := uint64(len(m.envs[c])); from < n {
		return m.envs[c][from:min(to+1, n)]
	}
	return nil
}

func (m *memory) Summary() (Summary, error) {
	if m.onQuery != nil {
		m.onQuery()
	}
	return Summary{Topic: m.topic.ID(), Ctl: m.log.head(), Epoch: m.epoch, Count: m.topic.Count(), Digest: m.topic.Digest()}, nil
}

func (m *memory) Chains() iter.Seq2[envelope.Chain, error] {
	return func(yield func(envelope.Chain, error) bool) {
		for c := range m.topic.Chains() {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (m *memory) Run(id envelope.ChainID, from, to uint64, maxBytes int) (*envelope.Certificate, []envelope.Envelope, error) {
	c, ok := m.topic.Chain(id)
	if !ok || from > c.Head.Seq {
		return nil, nil, nil
	}
	run := m.envs[id][from : min(to, c.Head.Seq)+1]
	n, size := 0, 0
	for n < len(run) && n < envelope.MaxRun && (n == 0 || size+run[n].Len() <= maxBytes) && (m.maxRun == 0 || n < m.maxRun) {
		size += run[n].Len()
		n++
	}
	return &c.Cert, run[:n], nil
}

func (m *memory) Deliver(cert *envelope.Certificate, run []envelope.Envelope) (Delivered, error) {
	if m.fail != nil {
		return Delivered{}, m.fail
	}
	adv, err := m.topic.Check(cert, run)
	if !adv.IsZero() {
		if adv.Cut {
			m.envs[adv.Chain.ID] = m.envs[adv.Chain.ID][:adv.Chain.Length]
		}
		m.topic.Commit(adv)
	}
	if err != nil {
		return Delivered{}, err
	}
	m.envs[adv.Chain.ID] = append(m.envs[adv.Chain.ID], adv.New...)
	return Delivered{Accepted: len(adv.New), Duplicate: len(run) - min(len(run), len(adv.New))}, nil
}

func (m *memory) ControlSince(have space.Head) ([][]byte, error) { return m.log.since(have) }
func (m *memory) DeliverControl(page []byte) error               { return m.log.deliver(page) }

// ids is the set of all envelope ids, the naive way.
func (m *memory) ids() map[envelope.ID]bool {
	set := make(map[envelope.ID]bool)
	for _, envs := range m.envs {
		for _, e := range envs {
			set[e.ID()] = true
		}
	}
	return set
}

// ctlLog is a control log of plain bytes; a page is "page", u64 seq, entry.
type ctlLog struct {
	entries [][]byte
	pad     int // bytes of filling in an entry
}

func newCtlLog(n int) *ctlLog {
	l := &ctlLog{}
	return l.grow(n, "")
}

func (l *ctlLog) grow(n int, branch string) *ctlLog {
	for range n {
		l.entries = append(l.entries, append(fmt.Appendf(nil, "entry %d%s", len(l.entries), branch), make([]byte, l.pad)...))
	}
	return l
}

func (l *ctlLog) headAt(n int) space.Head {
	if n == 0 {
		return space.Head{}
	}
	return space.Head{Term: 1, Seq: uint64(n - 1), Hash: sha256.Sum256(bytes.Join(l.entries[:n], nil))}
}

func (l *ctlLog) head() space.Head { return l.headAt(len(l.entries)) }

func (l *ctlLog) since(have space.Head) ([][]byte, error) {
	from := 0
	if have != (space.Head{}) {
		from = int(have.Seq) + 1
	}
	if from > len(l.entries) || l.headAt(from) != have {
		return nil, ErrControlFork
	}
	var pages [][]byte
	for i := from; i < len(l.entries); i++ {
		pages = append(pages, append(binary.BigEndian.AppendUint64([]byte("page"), uint64(i)), l.entries[i]...))
	}
	return pages, nil
}

func (l *ctlLog) deliver(page []byte) error {
	if len(page) < 12 || string(page[:4]) != "page" {
		return fmt.Errorf("open page: %w", space.ErrForged)
	}
	if binary.BigEndian.Uint64(page[4:]) == uint64(len(l.entries)) {
		l.entries = append(l.entries, bytes.Clone(page[12:]))
	}
	return nil
}

var (
	peerA = []byte("peer A")
	peerB = []byte("peer B")
)

func (m *memory) config(w *world, role Role) Config {
	cfg := Config{
		Role: role, Topic: w.topic, Nonce: [32]byte(seed(role.String() + m.nonce)), LocalPeer: peerA, RemotePeer: peerB,
		Keys: w.fetch, Replica: m, Sink: m, Control: m,
		Memory: m.past, Earlier: m.earlier, MaxNamed: m.named,
	}
	if role == Responder {
		cfg.Topic, cfg.LocalPeer, cfg.RemotePeer = envelope.TopicID{}, peerB, peerA
		cfg.Opening = Challenge{Version: Version, Topic: w.topic, Nonce: [32]byte(seed(Initiator.String()))}
	}
	return cfg
}

func (m *memory) session(t testing.TB, w *world, role Role) *Session {
	t.Helper()
	s, err := New(m.config(w, role))
	if err != nil {
		t.Fatal(err)
	}
	m.tune(s)
	return s
}

// tune sets what tests have otherwise than nodes.
func (m *memory) tune(s *Session) {
	if m.minTree > 0 {
		s.minTree = m.minTree
	}
	if m.segment > 0 {
		s.segment, s.minCold = m.segment, 2
	}
}
