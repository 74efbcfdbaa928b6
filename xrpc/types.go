package xrpc

import (
	"context"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
)

// Spaces makes and shows spaces. All interfaces act as the node's owner; their
// errors are the sentinels of package space and of this package, wrapped.
type Spaces interface {
	// CreateSpace fails with space.ErrSpaceExists, ErrPetnameTaken or
	// space.ErrUnsupported.
	CreateSpace(ctx context.Context, s NewSpace) (SpaceInfo, error)
	// Space fails with space.ErrSpaceNotFound, for a space the owner was
	// removed from as for one that never was, or space.ErrSpaceDeleted.
	Space(ctx context.Context, id space.ID) (SpaceInfo, error)
	// Spaces lists the spaces the owner belongs to, in any order.
	Spaces(ctx context.Context) ([]SpaceInfo, error)
}

// Records reads and writes records.
type Records interface {
	// Write applies all writes as one batch with one rev, in order, each
	// seeing those before it, or none. space.ErrRecordExists: a Create of a
	// live path. space.ErrRecordNotFound: an Update, a Delete without
	// IfExists, or any write with a Swap, of a path without a live record.
	// space.ErrSwap: Swap or SwapCommit name another state.
	Write(ctx context.Context, id space.ID, writes []Write, o WriteOptions) (Written, error)
	// Record with author "" means that of the only author who has one, else
	// ErrAmbiguous.
	Record(ctx context.Context, id space.ID, author space.DID, path space.Path) (Record, error)
	// Records lists live records in ascending order of (author, collection,
	// rkey), descending with Reverse. The cursor is "" at the end; one it did
	// not issue fails with ErrCursor.
	Records(ctx context.Context, id space.ID, q RecordQuery) (recs []Record, cursor string, err error)
}

// Repos is the repository face of each author's records.
type Repos interface {
	// RepoState of a repo never written fails with space.ErrRepoNotFound.
	RepoState(ctx context.Context, id space.ID, author space.DID) (RepoState, error)
	// Oplog reads a page of applied ops. Of a repo never written it fails with
	// space.ErrRepoNotFound.
	Oplog(ctx context.Context, id space.ID, author space.DID, q OpsQuery) (*Oplog, error)
	// Repos lists the authors with at least one applied op, in any order.
	Repos(ctx context.Context, id space.ID) ([]RepoInfo, error)
}

// Node is the node itself.
type Node interface {
	Status(ctx context.Context) (Status, error)
}

// Links are the node's connections to others.
type Links interface {
	Peers(ctx context.Context) ([]Peer, error)
	// Connect dials a multiaddr that ends in /p2p/ID.
	Connect(ctx context.Context, addr string) (Peer, error)
	// Disconnect closes the connections to a peer, and leaves it to the peer or
	// to Connect to make new ones for some minutes: ErrPeerNotFound if there
	// are none.
	Disconnect(ctx context.Context, peerID string) error
}

// NewSpace is what CreateSpace needs to know.
type NewSpace struct {
	Type   space.NSID
	Key    space.RecordKey // "": the node draws a TID
	Name   string          // local petname, unique per home; "": none
	Policy space.Policy
	Relays []string
	OwnDID bool // a DID of its own, so that the authority can change
}

// SpaceInfo is a space as the owner sees it.
type SpaceInfo struct {
	ID                 space.ID
	SpaceID            [32]byte
	Authority, Creator space.DID
	Policy             space.Policy
	Level              space.Level // the owner's
	Epoch              uint64
	Name               string
	Rev                space.TID // the newest rev of any repo; 0: nothing written yet
	CreatedMs          int64     // unix milliseconds
	UpdatedMs          int64     // of the log's newest entry, unix milliseconds; 0: as created
	Frozen             bool      // its log forked: it takes no more
	UnverifiedHead     bool      // one node alone has shown how far its log goes
}

// Member is one row of the roster.
type Member struct {
	DID     space.DID
	Level   space.Level
	Via     string // how it came in, "" when it was added directly
	Keeper  bool
	AddedMs int64 // unix milliseconds

	Caps      []Cap // of a keeper
	Sequencer bool  // orders the log now
	Authority bool
	Public    bool // came by the public door

	// Link says where the space is, for who was just added: it opens no door.
	Link string
}

// InviteOptions limits an invite.
type InviteOptions struct {
	Level     space.Level
	MaxUses   uint32 // 0: unlimited
	ExpiresMs uint64 // unix milliseconds; 0: never
	Approval  bool   // somebody of the space must say yes to each newcomer
}

// Invite is a fresh invite. Link is a secret, shown once.
type Invite struct {
	ID        string // hex
	Link      string
	Level     space.Level
	MaxUses   uint32
	ExpiresMs uint64
	Approval  bool
}

// Joined says what a join gave and who gave it.
type Joined struct {
	ID        space.ID
	Level     space.Level
	Epoch     uint64
	Asked, By string // who was asked and who granted: DID or peer id
	Name      string
}

// Action is what a Write does.
type Action uint8

// The actions.
const (
	ActionCreate Action = iota + 1 // the path must be free
	ActionPut                      // upsert
	ActionUpdate                   // the path must have a live record
	ActionDelete
)

// String is the action's name in JSON.
func (a Action) String() string {
	switch a {
	case ActionCreate:
		return "create"
	case ActionPut:
		return "put"
	case ActionUpdate:
		return "update"
	case ActionDelete:
		return "delete"
	}
	return "unknown"
}

// Write is one write of a batch.
type Write struct {
	Action   Action
	Path     space.Path   // Key "" on create: the node draws a TID
	Value    space.Record // nil on delete
	Swap     *space.CID   // the record's CID must be this one; nil: not asked
	IfExists bool         // delete of an absent record succeeds
}

// WriteOptions belong to the whole batch.
type WriteOptions struct {
	SwapCommit *string // nil: not asked; "": nothing written yet; else the repo's rev
}

// Written is the outcome of a batch. Records[i] belongs to writes[i], with a
// zero CID for a delete. Rev 0 means that nothing changed.
type Written struct {
	Rev     space.TID
	Records []RecordRef
}

// RecordRef names one version of a record.
type RecordRef struct {
	URI space.URI
	CID space.CID
}

// Record is a live record. Value is nil where values were not asked for.
type Record struct {
	URI   space.URI
	CID   space.CID
	Rev   space.TID
	Value space.Record
}

// RecordQuery selects records. Limit is 1 to 1,000.
type RecordQuery struct {
	Repo              space.DID  // "": every author
	Collection        space.NSID // "": every collection
	Limit             int
	Cursor            string
	Reverse, NoValues bool
}

// RepoState is one author's repository at its head. Commit is nil while the
// author has not stated one.
type RepoState struct {
	DID    space.DID
	Rev    space.TID
	Count  uint64
	Hash   [32]byte
	State  []byte // the 2,048 bytes of the set hash
	Commit *commit.Commit
}

// RepoInfo is one row of the list of repos.
type RepoInfo struct {
	DID  space.DID
	Rev  space.TID
	Hash [32]byte
	// Attribution says how sure the node is that the repo is the author's:
	// "verified" by a key of the author's, "vouched" by the space's issuer, or
	// "disputed": the issuer says so and the author's key does not.
	Attribution string
}

// OpsQuery selects ops after both Since (a rev) and Cursor ("rev/idx", already
// checked by OpsCursor). Limit is 1 to 1,000; with WholeRevs a page that is full
// has the rest of its last rev as well.
type OpsQuery struct {
	Since     space.TID
	Cursor    string
	Limit     int
	NoValues  bool
	WholeRevs bool
}

// RepoOp is one applied op. A zero CID is a delete, a zero Prev a create.
// Value is set only while the record still has exactly this CID.
type RepoOp struct {
	Rev       space.TID
	Idx       int
	Path      space.Path
	CID, Prev space.CID
	Value     space.Record
}

// OpsPage is a page of ops, ascending by (rev, idx): with a Cursor while there
// may be more (the page is full), with the State at the head, never both. A repo
// never written has neither. Pruned says that ops behind Since or Cursor are not
// kept any more: what comes does not lead from there to the head.
type OpsPage struct {
	Ops    []RepoOp
	Cursor string
	State  *RepoState
	Pruned bool
}

// Oplog is a page of ops whose values are not read yet. Whoever asked for it
// calls Close, once.
type Oplog struct {
	OpsPage
	// Values gives those of Ops[from:to] that RepoOp tells of, by their places in
	// Ops, in order. It is safe for concurrent use; nil: nobody wants values.
	Values func(from, to int, give func(i int, value space.Record)) error
	Close  func()
}

// Held is the page with its values as an Oplog.
func (p OpsPage) Held() *Oplog {
	values := func(from, to int, give func(int, space.Record)) error {
		for i := from; i < to; i++ {
			if v := p.Ops[i].Value; v != nil {
				give(i, v)
			}
		}
		return nil
	}
	return &Oplog{p, values, func() {}}
}

// Status is the one status structure: the CLI, the API and the page show it.
type Status struct {
	Version  string            `json:"version"`
	DID      space.DID         `json:"did"`
	PeerID   string            `json:"peerId"`
	Home     string            `json:"home,omitempty"`
	Listen   []string          `json:"listen"`
	Metrics  string            `json:"metrics,omitempty"` // URL; none unless asked for
	Peers    []Peer            `json:"peers"`
	Spaces   []SpaceStatus     `json:"spaces"`
	Relay    bool              `json:"relay"`
	Reach    string            `json:"reach,omitempty"` // public, private or unknown, as others found
	Keeper   bool              `json:"keeper"`
	Warnings []string          `json:"warnings,omitempty"`
	Counters map[string]uint64 `json:"counters,omitempty"`
}

// SpaceStatus is one space within Status. Digest is SHA-256 over the ascending
// (epoch, count, digest) triples, in hex.
type SpaceStatus struct {
	URI     string `json:"uri"`
	Name    string `json:"name,omitempty"`
	Role    string `json:"role"`
	Epoch   uint64 `json:"epoch"`
	Records uint64 `json:"records"`
	Entries uint64 `json:"entries"`
	Behind  uint64 `json:"behind"`
	Digest  string `json:"digest"`
	// BehindBy says where Behind comes from: the largest that peers told and
	// what waits here, added up.
	BehindBy   []Lag      `json:"behindBy,omitempty"`
	InSyncWith []SyncPeer `json:"inSyncWith"`
	// Rounds are the last reconciliations, one for each peer.
	Rounds []Round `json:"rounds,omitempty"`
	// Relays are those that the epoch in force names.
	Relays []RelayStatus `json:"relays,omitempty"`
	// Forks is how many writer chains signed two histories and end before.
	Forks uint64 `json:"forks,omitempty"`
	// Refused is how many entries and chains were refused since the start.
	Refused uint64 `json:"refused,omitempty"`
	// Mismatches are authors and peers whose word does not fit what is here.
	Mismatches []Mismatch `json:"mismatches,omitempty"`
	// Frozen: the control log forked, and nothing is written until it is ended.
	Frozen bool `json:"frozen,omitempty"`
	// UnverifiedHead: one node alone has shown how far the control log goes.
	UnverifiedHead bool `json:"unverifiedHead,omitempty"`
	// Damaged: the store lost entries, and no peer has said yet that all is back.
	Damaged   bool   `json:"damaged,omitempty"`
	LastError string `json:"lastError,omitempty"`
}

// RelayStatus is a relay of a space as this member sees it.
type RelayStatus struct {
	PeerID       string   `json:"peerId"`
	Addrs        []string `json:"addrs"`
	Connected    bool     `json:"connected"`
	LeaseExpires int64    `json:"leaseExpires,omitempty"` // Unix milliseconds; 0: no lease
	Bytes        uint64   `json:"bytes,omitempty"`
	Used         uint64   `json:"used,omitempty"`
	// Signed is how many entries of the epoch in force its last receipt counts.
	Signed    uint64   `json:"signed,omitempty"`
	SignedAt  int64    `json:"signedAt,omitempty"` // Unix milliseconds
	HoldsAll  bool     `json:"holdsAll,omitempty"` // the receipt is of the set held here now
	LastError string   `json:"lastError,omitempty"`
	Caught    []string `json:"caught,omitempty"` // what it signed and did not keep
}

// SyncPeer is a peer that shows the digest held here now: since when and when
// last, in Unix milliseconds.
type SyncPeer struct {
	PeerID string `json:"peerId"`
	Since  int64  `json:"since"`
	At     int64  `json:"at"`
	Digest string `json:"digest"`
	Count  uint64 `json:"count"`
}

// Lag is a reason to know that entries are missing here.
type Lag struct {
	Entries uint64 `json:"entries"`
	// Why: LagChains, chains are known to go on; LagWaiting, entries are here
	// and wait for keys, for the control log or for their time; LagPeer, the
	// peer From held more at At.
	Why  string `json:"why"`
	From string `json:"from,omitempty"`
	At   int64  `json:"at,omitempty"`
}

// The reasons of a Lag.
const (
	LagChains  = "chains"
	LagWaiting = "waiting"
	LagPeer    = "peer"
)

// Round is the last reconciliation with a peer, of the epoch in force.
type Round struct {
	PeerID    string `json:"peerId"`
	At        int64  `json:"at"` // Unix milliseconds
	Equal     bool   `json:"equal"`
	Count     uint64 `json:"count"`     // entries here
	PeerCount uint64 `json:"peerCount"` // as the peer stated
	Error     string `json:"error,omitempty"`
}

// Mismatch is a word that does not fit. Of kind MismatchRecords an author states
// other records than its entries make, as Stated against Ours; of kind
// MismatchView the node PeerID claimed Ours.Count entries before its owner's own
// entry said that it held Stated.Count.
type Mismatch struct {
	Kind   string    `json:"kind"`
	DID    space.DID `json:"did"`
	PeerID string    `json:"peerId,omitempty"`
	Ours   RepoHead  `json:"ours"`
	Stated RepoHead  `json:"stated"`
	Since  int64     `json:"since"` // Unix milliseconds
}

// The kinds of a Mismatch.
const (
	MismatchRecords = "records"
	MismatchView    = "view"
)

// RepoHead is what a repo is, or is said to be.
type RepoHead struct {
	Rev   string `json:"rev,omitempty"`
	Count uint64 `json:"count"`
	Hash  string `json:"hash,omitempty"`
}

// Peer is a connected libp2p peer.
type Peer struct {
	PeerID string   `json:"peerId"`
	Addrs  []string `json:"addrs"`
	Direct bool     `json:"direct"`
	// Version is of its kith, as it says; empty: it does not.
	Version string `json:"version,omitempty"`
	Since   int64  `json:"since,omitempty"` // unix milliseconds
}
