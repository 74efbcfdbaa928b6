package control

import (
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"iter"

	"github.com/tidwall/btree"

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
	Invite  []byte   // id of the invite, nil when added by hand
	AddedMs int64
}

// InviteState is an invite and how often it was used.
type InviteState struct {
	Invite
	Uses    uint32
	AddedMs int64
}

// Live reports whether one more use is allowed at the given Unix milliseconds.
func (v InviteState) Live(nowMs int64) bool {
	return (v.MaxUses == 0 || v.Uses < v.MaxUses) && (v.ExpiresMs == 0 || nowMs < int64(v.ExpiresMs))
}

// State is what a log says after its last entry. It never changes: Apply
// returns another one, which shares with it what stayed the same. Fields and
// what they point to are for reading.
type State struct {
	SpaceID      [32]byte
	ID           space.ID
	Authority    Authority
	Creator      space.DID
	CreatedMs    int64
	AuthorityPub ed25519.PublicKey
	SequencerPub ed25519.PublicKey
	Policy       space.Policy
	Head         space.Head
	Epoch        uint64 // 0: none yet, nothing can be written
	EpochKID     [32]byte

	nextSlot uint32
	bySlot   table[uint32, *Member]
	byC      table[string, uint32] // commitment bytes -> slot
	byDID    table[string, uint32]
	invites  table[string, *InviteState] // id bytes
}

// Member finds a member by commitment.
func (s *State) Member(c identity.Commitment) (Member, bool) {
	return s.atSlot(s.byC.get(string(c[:])))
}

// MemberByDID finds a member by the DID bound to its commitment.
func (s *State) MemberByDID(d space.DID) (Member, bool) {
	return s.atSlot(s.byDID.get(string(d)))
}

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

// Len is the number of members.
func (s *State) Len() int { return s.bySlot.m.Len() }

// NextSlot is the slot the next member-add must take.
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

// RosterRoot commits to who is in and at what level: Hash("roster", space id
// ‖ u32 count ‖ for each member in slot order: u32 slot ‖ C ‖ level ‖ u16
// length ‖ DID). It reads the whole roster; only epochs need it.
func (s *State) RosterRoot() [32]byte {
	b := make([]byte, 0, 4+s.Len()*80)
	b = binary.BigEndian.AppendUint32(b, uint32(s.Len()))
	for m := range s.Members() {
		b = binary.BigEndian.AppendUint32(b, m.Slot)
		b = append(b, m.C[:]...)
		b = append(b, byte(m.Level))
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.DID)))
		b = append(b, m.DID...)
	}
	return space.Hash(space.LabelRoster, s.SpaceID[:], b)
}

// table is a sorted map that changes by making another one; both share the
// nodes that stayed the same. The zero table is empty.
//
// btree.Map marks the nodes it may write in place with an owner id. Its own
// Copy writes a new id into the map it copies, so two goroutines could not
// take copies of one state. with therefore copies the struct (which leaves the
// original alone), writes to the copy, and then has Copy give it an id that
// none of its nodes bear: from there on nobody can write to them.
type table[K cmp.Ordered, V any] struct{ m btree.Map[K, V] }

func (t table[K, V]) with(k K, v V) table[K, V] {
	t.m.Set(k, v)
	t.m.Copy()
	return t
}

func (t *table[K, V]) get(k K) (V, bool) { return t.m.Get(k) }

func (t *table[K, V]) scan(f func(K, V) bool) { t.m.Scan(f) }
