package control

import (
	"crypto/ed25519"
	"encoding/binary"
	"iter"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// Authority is whose space it is.
type Authority struct {
	C   identity.Commitment
	DID space.DID
}

// Member is one line of the roster.
type Member struct {
	Slot    uint32
	C       identity.Commitment
	DID     space.DID
	Level   space.Level
	ILHead  [32]byte // head of the identity log when admitted
	Invite  []byte   // id of the invite, nil when added by hand or let in by the public door
	AddedMs int64
	Epoch   uint64 // in force when admitted
	Public  bool   // came by the public door
	Gone    bool   // was a member: only Author tells of those
}

// InviteState is an invite and how often it was used.
type InviteState struct {
	Invite
	Uses    uint32
	AddedMs int64
	Revoked bool
}

// Live reports whether one more use is allowed at the given Unix milliseconds.
func (v InviteState) Live(nowMs int64) bool {
	return !v.Revoked && (v.MaxUses == 0 || v.Uses < v.MaxUses) && (v.ExpiresMs == 0 || nowMs < int64(v.ExpiresMs))
}

// DelegationState is a space that is a member, as its last descriptor says.
type DelegationState struct {
	Slot       uint32
	Child      [32]byte
	Level      space.Level
	Descriptor Descriptor
	AddedMs    int64
}

// State is what a log says after its last entry. It never changes: Apply
// returns another one, which shares with it what stayed the same. Fields and
// what they point to are for reading.
type State struct {
	SpaceID       [32]byte
	ID            space.ID
	Authority     Authority
	Creator       space.DID
	CreatedMs     int64
	AuthorityPub  ed25519.PublicKey
	AuthoritySlot uint32 // 0 until the space is handed over
	SequencerPub  ed25519.PublicKey
	SequencerSlot uint32
	Policy        space.Policy
	Head          space.Head
	Epoch         uint64 // 0: none yet, nothing can be written
	EpochKID      [32]byte
	Deleted       bool
	DeleteReason  string

	nextSlot    uint32
	bySlot      table[uint32, *Member]
	byC         table[string, uint32] // commitment bytes -> slot
	byDID       table[string, uint32]
	invites     table[string, *InviteState] // id bytes
	delegations table[uint32, *DelegationState]
	childSlots  table[string, uint32]      // child bytes -> slot
	people      table[string, *person]     // everybody who was ever in, by commitment
	senders     table[string, *person]     // spaces that are or were members, by child bytes
	epochs      table[uint64, epochStart]  // by number
	self        []span                     // when the policy let members of read_self write
	finals      table[string, Cut]         // chain bytes -> newest checkpointed or cut head
	checkpoints table[uint64, *Checkpoint] // newest of an epoch
	terms       table[uint64, term]        // by number
	powers      *powers                    // who may propose
	recent      *pastHead                  // the last heads, this one first
}

// Member finds a member by commitment.
func (s *State) Member(c identity.Commitment) (Member, bool) {
	return s.atSlot(s.byC.get(string(c[:])))
}

// MemberByDID finds a member by the DID bound to its commitment.
func (s *State) MemberByDID(d space.DID) (Member, bool) {
	return s.atSlot(s.byDID.get(string(d)))
}

// AtSlot finds the member at a slot.
func (s *State) AtSlot(slot uint32) (Member, bool) { return s.atSlot(slot, true) }

func (s *State) atSlot(slot uint32, ok bool) (Member, bool) {
	if !ok {
		return Member{}, false
	}
	m, ok := s.bySlot.get(slot)
	if !ok {
		return Member{}, false
	}
	return *m, true
}

// Members yields the roster in slot order, which is the order of admission.
func (s *State) Members() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		s.bySlot.scan(func(_ uint32, m *Member) bool { return yield(*m) })
	}
}

// Len is the number of members, delegations apart.
func (s *State) Len() int { return s.bySlot.m.Len() }

// NextSlot is the slot the next member-add or delegation must take.
func (s *State) NextSlot() uint32 { return s.nextSlot }

// Invite finds an invite, live or not.
func (s *State) Invite(id [16]byte) (InviteState, bool) {
	v, ok := s.invites.get(string(id[:]))
	if !ok {
		return InviteState{}, false
	}
	return *v, true
}

// Invites yields the invites in order of id, live or not.
func (s *State) Invites() iter.Seq[InviteState] {
	return func(yield func(InviteState) bool) {
		s.invites.scan(func(_ string, v *InviteState) bool { return yield(*v) })
	}
}

// Delegation finds the space child among the members.
func (s *State) Delegation(child [32]byte) (DelegationState, bool) {
	slot, ok := s.childSlots.get(string(child[:]))
	if !ok {
		return DelegationState{}, false
	}
	d, ok := s.delegations.get(slot)
	if !ok {
		return DelegationState{}, false
	}
	return *d, true
}

// Delegations yields the spaces that are members, in slot order.
func (s *State) Delegations() iter.Seq[DelegationState] {
	return func(yield func(DelegationState) bool) {
		s.delegations.scan(func(_ uint32, d *DelegationState) bool { return yield(*d) })
	}
}

// Reader is one to whom an epoch's keys are wrapped: a member, or a space that
// is one, whose C is its space id.
type Reader struct {
	Slot       uint32
	C          identity.Commitment
	Level      space.Level
	Delegation bool
	Child      [32]byte // the space, of a delegation
}

// Readers yields members and delegations in slot order: the order of wraps.
func (s *State) Readers() iter.Seq[Reader] {
	return func(yield func(Reader) bool) {
		next, stop := iter.Pull(s.Delegations())
		defer stop()
		d, more := next()
		for m := range s.Members() {
			for ; more && d.Slot < m.Slot; d, more = next() {
				if !yield(d.reader()) {
					return
				}
			}
			if !yield(Reader{Slot: m.Slot, C: m.C, Level: m.Level}) {
				return
			}
		}
		for ; more; d, more = next() {
			if !yield(d.reader()) {
				return
			}
		}
	}
}

func (d DelegationState) reader() Reader {
	return Reader{Slot: d.Slot, C: d.Child, Level: d.Level, Delegation: true, Child: d.Child}
}

// ReaderCount is the number of Readers.
func (s *State) ReaderCount() int { return s.bySlot.m.Len() + s.delegations.m.Len() }

// Checkpoint is the newest checkpoint of an epoch's topic.
func (s *State) Checkpoint(epoch uint64) (Checkpoint, bool) {
	c, ok := s.checkpoints.get(epoch)
	if !ok {
		return Checkpoint{}, false
	}
	return *c, true
}

// KID is the commitment to the group key of an epoch.
func (s *State) KID(epoch uint64) ([32]byte, bool) {
	x, ok := s.epochs.get(epoch)
	return x.kid, ok
}

// Opened is the head that the log had with the entry that opened an epoch.
func (s *State) Opened(epoch uint64) (space.Head, bool) {
	x, ok := s.epochs.get(epoch)
	return x.head, ok
}

// RosterRoot commits to who is in and at what level: Hash("roster", space id
// ‖ u32 count ‖ for each member in slot order: u32 slot ‖ C ‖ level ‖ u16
// length ‖ DID), and where spaces are members, behind that: u32 count ‖ for
// each in slot order: u32 slot ‖ child ‖ level. It reads the whole roster;
// only epochs need it.
func (s *State) RosterRoot() [32]byte {
	b := make([]byte, 0, 4+s.Len()*104)
	b = binary.BigEndian.AppendUint32(b, uint32(s.Len()))
	s.bySlot.scan(func(_ uint32, m *Member) bool {
		b = binary.BigEndian.AppendUint32(b, m.Slot)
		b = append(b, m.C[:]...)
		b = append(b, byte(m.Level))
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.DID)))
		b = append(b, m.DID...)
		return true
	})
	if n := s.delegations.m.Len(); n > 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
		s.delegations.scan(func(_ uint32, d *DelegationState) bool {
			b = binary.BigEndian.AppendUint32(b, d.Slot)
			b = append(append(b, d.Child[:]...), byte(d.Level))
			return true
		})
	}
	return space.Hash(space.LabelRoster, s.SpaceID[:], b)
}
