package space

import "errors"

// The sentinels of the domain. Packages wrap them with the step that failed;
// xrpc maps each to one name and status.
var (
	// ErrMalformed: bytes or text that could never be valid.
	ErrMalformed = errors.New("malformed")
	// ErrNotCanonical: a second encoding of a value that has one.
	ErrNotCanonical = errors.New("not canonically encoded")
	// ErrTooLarge: over a size, depth or count cap.
	ErrTooLarge = errors.New("too large")
	// ErrForged: a signature, MAC or seal that does not fit.
	ErrForged = errors.New("forged")
	// ErrNoKey: sealed under a key this node does not hold.
	ErrNoKey = errors.New("no key")
	// ErrSpaceNotFound: unknown here, or closed to the caller: they answer alike.
	ErrSpaceNotFound = errors.New("space not found")
	// ErrSpaceExists: a space of this name exists.
	ErrSpaceExists = errors.New("a space with this address already exists")
	// ErrRepoNotFound: the author never wrote here.
	ErrRepoNotFound = errors.New("repo not found")
	// ErrRecordNotFound: no live record at the path.
	ErrRecordNotFound = errors.New("record not found")
	// ErrRecordExists: create of a path that has a live record.
	ErrRecordExists = errors.New("record already exists")
	// ErrSwap: swapRecord or swapCommit named another state.
	ErrSwap = errors.New("swap mismatch")
	// ErrNotMember: the actor is not in the roster.
	ErrNotMember = errors.New("not a member of this space")
	// ErrForbidden: a member, but the act is above its level or capability.
	ErrForbidden = errors.New("not permitted")
	// ErrUnsupported: a policy or option that is not built: never accepted and ignored.
	ErrUnsupported = errors.New("unsupported")
	// ErrInvite: unknown, spent, expired or revoked; strangers are not told which.
	ErrInvite = errors.New("invite is not valid")
	// ErrNoSpaceLeft: the disk is full; reads go on, writes resume when there is room.
	ErrNoSpaceLeft = errors.New("the disk is full")
	// ErrUnavailable: cannot be done now; later it may.
	ErrUnavailable = errors.New("not available now")
	// ErrUnknownDID: no identity log of this DID is known here.
	ErrUnknownDID = errors.New("nobody is known here by this DID")
	// ErrMemberExists: who is to be added belongs to the roster already.
	ErrMemberExists = errors.New("already a member of this space")
	// ErrMemberNotFound: who is to be changed is not in the roster.
	ErrMemberNotFound = errors.New("member not found in this space")
	// ErrLastAuthority: the authority can be neither removed nor lowered, nor leave.
	ErrLastAuthority = errors.New("a space keeps its authority")
	// ErrInviteNotFound: no such invite, said only to whoever may list them.
	ErrInviteNotFound = errors.New("invite not found")
	// ErrRequestNotFound: nobody waits for an approval under this id.
	ErrRequestNotFound = errors.New("request not found")
	// ErrSpaceDeleted: its log ends with a tombstone.
	ErrSpaceDeleted = errors.New("the space was deleted")
	// ErrFrozen: the sequencer signed two entries for one place; the log takes no more.
	ErrFrozen = errors.New("the space is frozen: its log forked")
	// ErrNotSequencer: only the sequencer can commit this, and it does not answer.
	ErrNotSequencer = errors.New("the sequencer does not answer")
	// ErrDelegationCycle: the space would be a member of itself.
	ErrDelegationCycle = errors.New("a space cannot be a member of itself")
	// ErrDelegationDepth: more than eight spaces one within the other.
	ErrDelegationDepth = errors.New("too many spaces within each other")
	// ErrStaleDescriptor: a child space's descriptor that ran out or is older than the one known.
	ErrStaleDescriptor = errors.New("the descriptor of the space is stale")
)
