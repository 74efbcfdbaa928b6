package store

import (
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/sync/lthash"
)

// Class says how durable a commit is when it returns.
type Class uint8

const (
	// Own commits are synced before they return: the node's own entries,
	// control entries, grants.
	Own Class = iota
	// Remote commits can be fetched again. They are readable at once and
	// synced when none came for 20 ms, within half a second.
	Remote
	// Derived commits can be computed again. They are synced with whatever
	// follows.
	Derived
)

// Batch is what changes together. Every part is optional.
type Batch struct {
	Run         *RunRow
	Cut         *CutRow
	Applied     []AppliedRow
	Topic       *TopicRow
	Records     []RecordRow
	Repos       []RepoRow
	Ops         []OpPage
	Control     []ControlRow
	Outbox      []OutboxRow
	OutboxDone  []uint64
	Held        []HeldRow
	HeldDone    []uint64
	Objects     []ObjectRow
	ObjectsDone [][32]byte
	Meta        map[string][]byte // nil: delete
}

// RunRow extends a chain. Envs may be empty: then Chain alone is stored.
type RunRow struct {
	Cert  []byte              // of a chain that is new; nil otherwise
	Chain envelope.Chain      // as it is after Envs
	Envs  []envelope.Envelope // consecutive, up to Chain.Head
	// Sealed is what SealRun made of Envs; nil, or of another run: they are
	// sealed now.
	Sealed *SealedRun
}

// AppliedRow says how far a chain is materialised.
type AppliedRow struct {
	Topic envelope.TopicID
	Chain envelope.ChainID
	Seq   uint64
	State []byte // the reader's, opaque
}

// TopicRow is the digest of a topic.
type TopicRow struct {
	ID    envelope.TopicID
	Count uint64
	State lthash.State
}

// RecordRow is a record, or with a zero CID in its leaf the trace of one.
type RecordRow struct {
	Author space.DID
	Path   space.Path
	Leaf   space.Leaf
	Value  space.Record

	sealed   *sealedRecords // by SealRecords; nil: not
	from, to uint32         // its place in there
}

// RepoRow is what an author's records add up to.
type RepoRow struct {
	Author  space.DID
	Rev     space.TID
	Count   uint64
	State   lthash.State
	Stmt    *space.Statement // the author's last, or nil
	OpCount uint64           // ops stored
}

// OpPage is a page of an author's oplog; the ops of a repo are numbered from 0
// in the order in which they were applied here.
type OpPage struct {
	Author space.DID
	First  uint64
	Rows   []OpRow
}

// OpRow is an op as it was applied. A zero CID is a deletion.
type OpRow struct {
	Rev  space.TID
	Idx  int
	Path space.Path
	CID  space.CID
	Prev space.CID
}

// ControlRow is an entry of the control log.
type ControlRow struct {
	Seq uint64
	Raw []byte
}

// OutboxRow is a frame that still has to be published.
type OutboxRow struct {
	Seq   uint64
	Frame []byte
}

// HeldRow is a batch of the node's own that was acknowledged as local: it can
// be sealed and sent only when there is a certificate for it again. The body is
// the writer's, opaque.
type HeldRow struct {
	Seq  uint64
	Body []byte
}

// MaxObject is the size of the largest object.
const MaxObject = 256 << 10

// ObjectRow is ciphertext that is named by its SHA-256.
type ObjectRow struct {
	Hash [32]byte
	Data []byte
}

// KV is a setting of the node.
type KV struct {
	Key, Value []byte
}
