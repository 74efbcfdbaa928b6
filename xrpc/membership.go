package xrpc

import (
	"context"

	"github.com/kithnet/kith/space"
)

// The interfaces below are what a Server asks about who belongs to a space and
// what becomes of it. A Server whose field is nil answers that interface's
// methods with MethodNotImplemented. All of them act as the node's owner. Any
// method that names a space fails with space.ErrSpaceNotFound (unknown, or the
// owner was removed: alike), space.ErrSpaceDeleted, space.ErrFrozen,
// space.ErrForbidden (the owner's level or capability is too low),
// space.ErrNotSequencer or space.ErrUnavailable, beside what stands there.

// Roster is who belongs to a space.
type Roster interface {
	// Members lists the roster, the authority included, in any order, without
	// delegations.
	Members(ctx context.Context, id space.ID) ([]Member, error)
	// AddMember adds somebody whose identity log the node knows or can fetch:
	// space.ErrUnknownDID if not; space.ErrMemberExists at any level.
	AddMember(ctx context.Context, id space.ID, who space.DID, level space.Level) (Member, error)
	// SetLevel fails with space.ErrMemberNotFound or space.ErrLastAuthority.
	// The level that the member has already changes nothing.
	SetLevel(ctx context.Context, id space.ID, who space.DID, level space.Level) (Member, error)
	// RemoveMember removes and rotates in one step: space.ErrMemberNotFound,
	// space.ErrLastAuthority.
	RemoveMember(ctx context.Context, id space.ID, who space.DID) error
}

// Delegations are spaces as members of a space.
type Delegations interface {
	// Delegations lists the child spaces of id, in any order.
	Delegations(ctx context.Context, id space.ID) ([]Delegation, error)
	// Delegate adds a child space, or changes its level, or renews it. Only
	// space.LevelRead and space.LevelWrite. space.ErrDelegationCycle,
	// space.ErrDelegationDepth, space.ErrStaleDescriptor; for a child that the
	// owner cannot see space.ErrSpaceNotFound.
	Delegate(ctx context.Context, id, child space.ID, level space.Level) (Delegation, error)
	// Undelegate removes a child and rotates: space.ErrMemberNotFound.
	Undelegate(ctx context.Context, id, child space.ID) error
}

// Invites are the doors of a space.
type Invites interface {
	// Invite opens a door: space.ErrMalformed for one that has expired already.
	Invite(ctx context.Context, id space.ID, o InviteOptions) (Invite, error)
	// Invites lists all doors ever opened, in any order, without their links.
	Invites(ctx context.Context, id space.ID) ([]InviteInfo, error)
	// RevokeInvite closes a door of this space: space.ErrInviteNotFound. One
	// that is closed already stays so without an error.
	RevokeInvite(ctx context.Context, id space.ID, invite string) error
	// Join waits for the key until ctx ends. Once it ended, the join goes on
	// in the node; the error is then ErrStillWaiting or ctx's. A link that is
	// unknown, spent, expired or revoked fails with space.ErrInvite alone. An
	// owner who belongs to the space already uses nothing up: Joined.Asked is
	// "" then.
	Join(ctx context.Context, link string) (Joined, error)
}

// Approvals are the newcomers who came by an invite that needs a yes.
type Approvals interface {
	// Requests lists who waits, in any order.
	Requests(ctx context.Context, id space.ID) ([]Request, error)
	// Approve lets a newcomer in: space.ErrRequestNotFound; space.ErrInvite if
	// the invite has run out since.
	Approve(ctx context.Context, id space.ID, request string) (Member, error)
	// Deny forgets the request: space.ErrRequestNotFound.
	Deny(ctx context.Context, id space.ID, request string) error
}

// Keys are the epochs of a space.
type Keys interface {
	// Rotate opens a new epoch and returns its number.
	Rotate(ctx context.Context, id space.ID) (epoch uint64, err error)
	// SetRelays opens one that names other relays: multiaddrs with /p2p.
	SetRelays(ctx context.Context, id space.ID, relays []string) (epoch uint64, err error)
}

// Keepers are the members whose nodes do the authority's work for it.
type Keepers interface {
	// SetKeeper replaces the capabilities of a member; caps is not empty.
	// space.ErrMemberNotFound. A capability that is lost rotates.
	SetKeeper(ctx context.Context, id space.ID, who space.DID, caps []Cap) (Member, error)
	// RemoveKeeper takes all capabilities and rotates: space.ErrMemberNotFound
	// for who is no keeper, space.ErrLastAuthority.
	RemoveKeeper(ctx context.Context, id space.ID, who space.DID) error
	// AppointSequencer has a keeper with CapSequence, or the authority again,
	// order the log: space.ErrMemberNotFound, space.ErrForbidden.
	AppointSequencer(ctx context.Context, id space.ID, who space.DID) (Member, error)
}

// Admin is what only the authority may do with a space as a whole.
type Admin interface {
	// UpdateSpace changes the policy: space.ErrUnsupported, space.ErrMalformed
	// or space.ErrTooLarge as space.Policy.Validate of what comes out. A patch
	// that changes nothing writes nothing.
	UpdateSpace(ctx context.Context, id space.ID, p PolicyPatch) (SpaceInfo, error)
	// DeleteSpace writes the tombstone. A deleted space is deleted again
	// without an error.
	DeleteSpace(ctx context.Context, id space.ID, reason string) error
}

// Transfers are how a space with a DID of its own gets another authority. A
// node that has them makes such spaces too.
type Transfers interface {
	// Transfer hands a space with a DID of its own to another member, whose
	// AcceptTransfer must have come first, and waits for its signature until
	// ctx ends: space.ErrMemberNotFound, space.ErrUnsupported with the reason
	// for a space that lives under the authority's DID.
	Transfer(ctx context.Context, id space.ID, to space.DID) (SpaceInfo, error)
	// AcceptTransfer says that the owner would be this space's next authority.
	AcceptTransfer(ctx context.Context, id space.ID) error
}

// Petnames are the owner's own names for spaces: nobody else learns them but
// the owner's other devices.
type Petnames interface {
	// SetPetname gives a space this name, or with "" none: ErrPetnameTaken if
	// another space of the node has it.
	SetPetname(ctx context.Context, id space.ID, name string) error
}

// Exits are the ways out of a space for oneself.
type Exits interface {
	// Leave asks the space to take the owner off its roster, at once or when
	// a keeper is there, and stops taking part: space.ErrLastAuthority.
	Leave(ctx context.Context, id space.ID) error
	// Forget destroys this node's keys of the space and then its data. It
	// works for spaces that the owner left or was removed from too.
	Forget(ctx context.Context, id space.ID) error
}

// Devices are the machines of the node's owner.
type Devices interface {
	// Devices lists them, revoked ones included, in any order.
	Devices(ctx context.Context) ([]Device, error)
	// ApproveDevice makes the machine that showed the code a device of the
	// owner's. It is looked for on the local network, or at addr (a multiaddr
	// that ends in /p2p/ID; "": not known): space.ErrMalformed, space.ErrInvite
	// for a code that ran out, space.ErrUnavailable if no machine answers.
	ApproveDevice(ctx context.Context, code, addr string) (Device, error)
	// RevokeDevice shuts a device out and rotates the owner's keys:
	// ErrDeviceNotFound, ErrLastDevice.
	RevokeDevice(ctx context.Context, id string) (Device, error)
}

// Backups are copies of the node's home.
type Backups interface {
	// Backup writes all of the home, while it runs, into a new file of the
	// node's machine: space.ErrMalformed for a path that is not absolute or
	// exists already, space.ErrNoSpaceLeft. With the passphrase "" the
	// recovery words alone open it.
	Backup(ctx context.Context, file, passphrase string) (Backup, error)
}

// Cap is a capability of a keeper.
type Cap string

// The capabilities.
const (
	CapAdmit      Cap = "admit"      // let in newcomers with an invite, issue keys
	CapSequence   Cap = "sequence"   // order the log, once appointed
	CapCredential Cap = "credential" // issue credentials to apps
	CapServe      Cap = "serve"      // answer the HTTP API for members
)

// AllCaps are the capabilities in their order.
var AllCaps = []Cap{CapAdmit, CapSequence, CapCredential, CapServe}

// Delegation is a space that is a member of a space. Its members have the
// lower of Level and their own level there.
type Delegation struct {
	Child   space.ID
	Level   space.Level
	AddedMs int64 // unix milliseconds
	// RenewedMs is when the child last vouched for itself.
	RenewedMs int64
	Depth     int // levels of spaces below, the child included
}

// InviteInfo is a door as its space sees it.
type InviteInfo struct {
	ID        string // hex
	Level     space.Level
	Uses      uint32
	MaxUses   uint32 // 0: unlimited
	ExpiresMs uint64 // unix milliseconds; 0: never
	Approval  bool
	Revoked   bool
	CreatedBy space.DID
	CreatedMs int64 // unix milliseconds
}

// Request is a newcomer who waits for a yes.
type Request struct {
	ID      string // hex
	DID     space.DID
	Level   space.Level
	Invite  string // hex
	AskedMs int64  // unix milliseconds
}

// Backup is what a backup holds.
type Backup struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	Spaces int    `json:"spaces"`
	Rows   uint64 `json:"rows"`
	// BlobParts are the files of blobs, of 256 KiB at most.
	BlobParts uint64 `json:"blobParts"`
}

// Device is a machine of the owner's.
type Device struct {
	ID        string   `json:"id"` // hex
	Name      string   `json:"name,omitempty"`
	Caps      []string `json:"caps"`
	This      bool     `json:"this"` // the one that answers
	Revoked   bool     `json:"revoked"`
	AddedMs   int64    `json:"addedMs,omitempty"`   // unix milliseconds
	RevokedMs int64    `json:"revokedMs,omitempty"` // unix milliseconds
}
