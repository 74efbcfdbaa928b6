package reconcile

import (
	"fmt"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// Version is what a CHALLENGE says. Version 1 began a round otherwise and is
// refused.
const Version = 2

// Kind is the type byte of a frame.
type Kind uint8

// The kinds of frames (docs/protocol.md, "Sync stream"). 15 is kept for a notice
// of why a stream ends.
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
	KindBeacon      Kind = 11
	KindVector      Kind = 12
	KindTree        Kind = 13
	KindManifest    Kind = 14
	KindSegments    Kind = 16
)

var kindNames = [...]string{
	KindChallenge: "challenge", KindAuth: "auth", KindControl: "control", KindControlPage: "page",
	KindDigest: "digest", KindFrontier: "frontier", KindWant: "want", KindRun: "run",
	KindServed: "served", KindDone: "done", KindBeacon: "beacon", KindVector: "vector", KindTree: "tree",
	KindManifest: "manifest", KindSegments: "segments",
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
	// MaxEager is how many changes a BEACON may name: they are stated before
	// anybody knows whether they are needed.
	MaxEager = 64
	// MaxChanges is how many changes a VECTOR may name.
	MaxChanges = 1_000
	// MaxTreePage is how many parents one TREE message answers for.
	MaxTreePage = 512
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

// ChainHead is one chain of a frontier: [chain, seq, tag]. The tag is of the
// id of the head, salted with what both sides drew for this stream: nobody can
// have prepared two ids with one tag.
type ChainHead struct {
	_     struct{} `cbor:",toarray"`
	Chain envelope.ChainID
	Seq   uint64
	Tag   Tag
}

// Frontier is [[chain, seq, tag]..., last]: chains in strictly ascending order
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

// Done is [past]: the sender's set is the one that the other side stated last;
// the end of a round. A follower says with it how the epochs before compare.
type Done struct {
	_    struct{} `cbor:",toarray"`
	Past Past
}

// Past is how the epochs before that both sides hold compare.
type Past uint8

const (
	PastUnknown Past = 0 // nobody could tell
	PastEqual   Past = 1
	PastDiffers Past = 2
	PastNone    Past = 3 // there are none that both hold
)

// Beacon is [log, from, past, count, digest, base, changes, fresh]: who leads a
// round states everything it has. Log is a salted tag of the head of the
// control log, From the first epoch before this one that is held without a gap
// (0: none) and Past a salted tag over those epochs. Base names what was last
// agreed on, eight bytes, or is empty; then changes and fresh are too.
type Beacon struct {
	_       struct{} `cbor:",toarray"`
	Log     Tag
	From    uint64
	Past    Tag
	Count   uint64
	Digest  [32]byte
	Base    []byte
	Changes []Change
	Fresh   []FreshChain
}

// Vector is [past, count, digest, changes, fresh]: the follower's set, and what
// it has that differs from the base the BEACON named. Each side knows by now
// what both have; who is ahead in a chain sends it unasked. Where the set is
// the base itself, count is 0 and digest, changes and fresh are empty.
type Vector struct {
	_       struct{} `cbor:",toarray"`
	Past    Past
	Count   uint64
	Digest  []byte
	Changes []Change
	Fresh   []FreshChain
}

// Change is [index, seq, tag, forked]: a chain of the base, by its place there,
// that has another head by now or has forked here.
type Change struct {
	_      struct{} `cbor:",toarray"`
	Index  uint64
	Seq    uint64
	Tag    Tag
	Forked bool
}

// FreshChain is [chain, seq, tag, forked]: a chain that the base has not.
type FreshChain struct {
	_      struct{} `cbor:",toarray"`
	Chain  envelope.ChainID
	Seq    uint64
	Tag    Tag
	Forked bool
}

// Tree is [depth, mask, tags, last]: an answer to the tags of nodes that the
// other side sent. Mask has a bit for each of them, set where ours is another;
// tags are those of the 16 children of each of these, eight bytes each. At
// depth there are none: the chains of these nodes follow as a FRONTIER. The
// first TREE of a pass answers for the 16 nodes below the root and marks all.
type Tree struct {
	_     struct{} `cbor:",toarray"`
	Depth uint64
	Mask  []byte
	Tags  []byte
	Last  bool
}

// Segments is [[chain, from, to]...]: the ranges of segments, by number and both
// ends included, of which the sender wants the manifest; one for each chain,
// strictly ascending. Wants come then in any order and number until the last.
type Segments struct {
	_      struct{} `cbor:",toarray"`
	Ranges []Range
}

// Manifest is [chain, first, heads, last]: the ids of the last envelopes of
// segments of a chain, from number first on. Less than was asked for is well.
type Manifest struct {
	_     struct{} `cbor:",toarray"`
	Chain envelope.ChainID
	First uint64
	Heads []byte
	Last  bool
}

func (Segments) Kind() Kind    { return KindSegments }
func (Manifest) Kind() Kind    { return KindManifest }
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
func (Beacon) Kind() Kind      { return KindBeacon }
func (Vector) Kind() Kind      { return KindVector }
func (Tree) Kind() Kind        { return KindTree }

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
