package reconcile

import (
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// Version is what a CHALLENGE says; there is no other yet.
const Version = 1

// Kind is the type byte of a frame.
type Kind uint8

// The kinds of frames (docs/protocol.md, "Sync stream"). 11 to 15 are kept for
// a beacon (keepalive), a vector of changes since the last talk, nodes of a
// tree over chain ids, a manifest of sealed segments, and a notice of why a
// stream ends.
const (
	KindChallenge   Kind = 1
	KindAuth        Kind = 2
	KindControl     Kind = 3
	KindControlPage Kind = 4
	KindDigest      Kind = 5
	KindFrontier    Kind = 6
	KindWant        Kind = 7
	KindRun         Kind = 8
	KindServed      Kind = 9
	KindDone        Kind = 10
)

var kindNames = [...]string{
	KindChallenge: "challenge", KindAuth: "auth", KindControl: "control", KindControlPage: "page",
	KindDigest: "digest", KindFrontier: "frontier", KindWant: "want", KindRun: "run",
	KindServed: "served", KindDone: "done",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Spec limits.
const (
	// MaxChains is how many chains a frontier may have.
	MaxChains = envelope.MaxChains
	// MaxPage is how many chains a FRONTIER and how many ranges a WANT may have.
	MaxPage = 1_000
	// MaxControlPage is the size of one control page; it travels in chunks.
	MaxControlPage = 2 << 20
	// MaxControlPages is how many control pages one round carries. Who needs
	// more gets them in the next round.
	MaxControlPages = 4_096
	// MaxControlBytes is how many bytes these pages have together.
	MaxControlBytes = 64 << 20
	// MaxRunBytes is how many bytes of envelopes one RUN may have: a frame
	// less its head and the certificate.
	MaxRunBytes = MaxFrame - 512
)

// maxChunk is the part of a control page that fits one frame.
const maxChunk = MaxFrame - 512

// Msg is one message of a session: the types of this file and no others.
type Msg interface{ Kind() Kind }

// Challenge is [version, topic, nonce]: the first message of either side. The
// opener's names the topic, the answer repeats it.
type Challenge struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Topic   envelope.TopicID
	Nonce   [32]byte
}

// Auth is [signature]: Sign(fetch key, "sync/auth", topic ‖ opener's nonce ‖
// responder's nonce ‖ u16 len ‖ opener's peer id ‖ u16 len ‖ responder's peer
// id ‖ role of the signer).
type Auth struct {
	_         struct{} `cbor:",toarray"`
	Signature [64]byte
}

// Control is [term, seq, hash]: the head of the sender's control log, all zero
// if it has none.
type Control struct {
	_         struct{} `cbor:",toarray"`
	Term, Seq uint64
	Hash      [32]byte
}

// Head is the stated head.
func (m Control) Head() space.Head { return space.Head{Term: m.Term, Seq: m.Seq, Hash: m.Hash} }

// ControlPage is [chunk, more, last]: a part of a sealed control page. More
// says that the page goes on in the next message, Last that no page follows.
// The last message alone may be empty.
type ControlPage struct {
	_     struct{} `cbor:",toarray"`
	Chunk []byte
	More  bool
	Last  bool
}

// Digest is [epoch, count, digest]: the sender's set at this moment.
type Digest struct {
	_      struct{} `cbor:",toarray"`
	Epoch  uint64
	Count  uint64
	Digest [32]byte
}

// ChainHead is one chain of a frontier: [chain, seq, id].
type ChainHead struct {
	_     struct{} `cbor:",toarray"`
	Chain envelope.ChainID
	Seq   uint64
	ID    envelope.ID
}

// Frontier is [[chain, seq, id]..., last]: chains in strictly ascending order
// over all pages. Only the last page may be empty.
type Frontier struct {
	_      struct{} `cbor:",toarray"`
	Chains []ChainHead
	Last   bool
}

// Range is [chain, from, to], both ends included.
type Range struct {
	_        struct{} `cbor:",toarray"`
	Chain    envelope.ChainID
	From, To uint64
}

// Want is [[chain, from, to]..., last]: chains in strictly ascending order
// over all pages, one range for each. Only the last page may be empty.
type Want struct {
	_      struct{} `cbor:",toarray"`
	Ranges []Range
	Last   bool
}

// Envelopes is [certificate, envelopes]: consecutive envelopes of one chain joined
// into one byte string; the certificate's 203 bytes if they begin at seq 0,
// else none.
type Envelopes struct {
	Cert *envelope.Certificate
	Run  []envelope.Envelope
}

// Served is []: every range asked for has been answered, as far as it is held.
type Served struct {
	_ struct{} `cbor:",toarray"`
}

// Done is [equal]: the sender's verdict, last of a round.
type Done struct {
	_     struct{} `cbor:",toarray"`
	Equal bool
}

func (Challenge) Kind() Kind   { return KindChallenge }
func (Auth) Kind() Kind        { return KindAuth }
func (Control) Kind() Kind     { return KindControl }
func (ControlPage) Kind() Kind { return KindControlPage }
func (Digest) Kind() Kind      { return KindDigest }
func (Frontier) Kind() Kind    { return KindFrontier }
func (Want) Kind() Kind        { return KindWant }
func (Envelopes) Kind() Kind   { return KindRun }
func (Served) Kind() Kind      { return KindServed }
func (Done) Kind() Kind        { return KindDone }

// payload is how many bytes of m are envelopes.
func payload(m Msg) int {
	run, ok := m.(Envelopes)
	if !ok {
		return 0
	}
	n := 0
	for _, e := range run.Run {
		n += e.Len()
	}
	return n
}
