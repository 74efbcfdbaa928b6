package xrpc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kithnet/kith/space"
)

var (
	_ Roster      = (*fake)(nil)
	_ Delegations = (*fake)(nil)
	_ Invites     = (*fake)(nil)
	_ Approvals   = (*fake)(nil)
	_ Keys        = (*fake)(nil)
	_ Keepers     = (*fake)(nil)
	_ Admin       = (*fake)(nil)
	_ Transfers   = (*fake)(nil)
	_ Exits       = (*fake)(nil)
	_ Petnames    = (*fake)(nil)
	_ Devices     = (*fake)(nil)
	_ Backups     = (*fake)(nil)
	_ Relays      = (*fake)(nil)
)

// newcomer is known to the fake and a member of nothing.
const newcomer space.DID = "did:key:zQ3shnewcomer"

// child is a space that may become a member of home; loop has home in it.
var (
	child = space.ID{Authority: other, Type: "com.example.club", Key: "child"}
	loop  = space.ID{Authority: other, Type: "com.example.club", Key: "loop"}
)

const aDay = 86_400_000

// row finds a member of a space that is not deleted.
func (f *fake) row(id space.ID, did space.DID) (*fakeSpace, *Member, error) {
	s, err := f.alive(id)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(s.members, func(m Member) bool { return m.DID == did })
	if i < 0 {
		return s, nil, fmt.Errorf("member %s: %w", did, space.ErrMemberNotFound)
	}
	return s, &s.members[i], nil
}

func (f *fake) alive(id space.ID) (*fakeSpace, error) {
	s, err := f.space(id)
	if err == nil && s.deleted {
		err = fmt.Errorf("open space: %w", space.ErrSpaceDeleted)
	}
	return s, err
}

func (f *fake) AddMember(_ context.Context, id space.ID, did space.DID, level space.Level) (Member, error) {
	s, m, err := f.row(id, did)
	switch {
	case m != nil:
		return Member{}, fmt.Errorf("add member: %w", space.ErrMemberExists)
	case s == nil:
		return Member{}, err
	case did != newcomer:
		return Member{}, fmt.Errorf("add %s: %w", did, space.ErrUnknownDID)
	}
	s.members = append(s.members, Member{DID: did, Level: level, AddedMs: f.now / 1000})
	return s.members[len(s.members)-1], nil
}

func (f *fake) SetLevel(_ context.Context, id space.ID, did space.DID, level space.Level) (Member, error) {
	s, m, err := f.row(id, did)
	if err != nil {
		return Member{}, err
	}
	if did == s.info.Authority && level != m.Level {
		return Member{}, fmt.Errorf("set level: %w", space.ErrLastAuthority)
	}
	if level < m.Level {
		s.info.Epoch++
	}
	m.Level = level
	return *m, nil
}

func (f *fake) RemoveMember(_ context.Context, id space.ID, did space.DID) error {
	s, _, err := f.row(id, did)
	if err != nil {
		return err
	}
	if did == s.info.Authority {
		return fmt.Errorf("remove: %w", space.ErrLastAuthority)
	}
	s.members = slices.DeleteFunc(s.members, func(m Member) bool { return m.DID == did })
	s.info.Epoch++
	return nil
}

func (f *fake) Delegations(_ context.Context, id space.ID) ([]Delegation, error) {
	s, err := f.space(id)
	if err != nil {
		return nil, err
	}
	return s.children, nil
}

func (f *fake) Delegate(_ context.Context, id, kid space.ID, level space.Level) (Delegation, error) {
	s, err := f.alive(id)
	switch {
	case err != nil:
		return Delegation{}, err
	case level == space.LevelReadSelf:
		return Delegation{}, fmt.Errorf("delegate at %s: %w", level, space.ErrMalformed)
	case kid == id || kid == loop:
		return Delegation{}, fmt.Errorf("delegate: %w", space.ErrDelegationCycle)
	case kid != child:
		return Delegation{}, fmt.Errorf("delegate to %s: %w", kid, space.ErrSpaceNotFound)
	}
	d := Delegation{Child: kid, Level: level, AddedMs: f.now / 1000, RenewedMs: f.now/1000 + 5, Depth: 1}
	s.children = []Delegation{d}
	return d, nil
}

func (f *fake) Undelegate(_ context.Context, id, kid space.ID) error {
	s, err := f.alive(id)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(s.children, func(d Delegation) bool { return d.Child == kid }) {
		return fmt.Errorf("undelegate: %w", space.ErrMemberNotFound)
	}
	s.children = nil
	return nil
}

func (f *fake) Invites(_ context.Context, id space.ID) ([]InviteInfo, error) {
	s, err := f.space(id)
	if err != nil {
		return nil, err
	}
	return s.doors, nil
}

func (f *fake) RevokeInvite(_ context.Context, id space.ID, invite string) error {
	s, err := f.alive(id)
	if err != nil {
		return err
	}
	for i := range s.doors {
		if s.doors[i].ID == invite {
			s.doors[i].Revoked = true
			return nil
		}
	}
	return fmt.Errorf("revoke %s: %w", invite, space.ErrInviteNotFound)
}

func (f *fake) Requests(_ context.Context, id space.ID) ([]Request, error) {
	s, err := f.space(id)
	if err != nil {
		return nil, err
	}
	return s.waiting, nil
}

func (f *fake) request(id space.ID, request string) (*fakeSpace, Request, error) {
	s, err := f.alive(id)
	if err != nil {
		return nil, Request{}, err
	}
	i := slices.IndexFunc(s.waiting, func(r Request) bool { return r.ID == request })
	if i < 0 {
		return nil, Request{}, fmt.Errorf("request %s: %w", request, space.ErrRequestNotFound)
	}
	r := s.waiting[i]
	s.waiting = slices.Delete(s.waiting, i, i+1)
	return s, r, nil
}

func (f *fake) Approve(_ context.Context, id space.ID, request string) (Member, error) {
	s, r, err := f.request(id, request)
	if err != nil {
		return Member{}, err
	}
	m := Member{DID: r.DID, Level: r.Level, Via: "invite:" + r.Invite, AddedMs: f.now / 1000}
	s.members = append(s.members, m)
	return m, nil
}

func (f *fake) Deny(_ context.Context, id space.ID, request string) error {
	_, _, err := f.request(id, request)
	return err
}

func (f *fake) Rotate(_ context.Context, id space.ID) (uint64, error) {
	s, err := f.alive(id)
	if err != nil {
		return 0, err
	}
	s.info.Epoch++
	return s.info.Epoch, nil
}

func (f *fake) SetRelays(ctx context.Context, id space.ID, _ []string) (uint64, error) {
	return f.Rotate(ctx, id)
}

func (f *fake) SetKeeper(_ context.Context, id space.ID, did space.DID, caps []Cap) (Member, error) {
	_, m, err := f.row(id, did)
	if err != nil {
		return Member{}, err
	}
	m.Keeper, m.Caps = true, caps
	return *m, nil
}

func (f *fake) RemoveKeeper(_ context.Context, id space.ID, did space.DID) error {
	s, m, err := f.row(id, did)
	switch {
	case err != nil:
		return err
	case did == s.info.Authority:
		return fmt.Errorf("remove keeper: %w", space.ErrLastAuthority)
	case !m.Keeper:
		return fmt.Errorf("remove keeper: %w", space.ErrMemberNotFound)
	}
	m.Keeper, m.Caps = false, nil
	s.info.Epoch++
	return nil
}

func (f *fake) AppointSequencer(_ context.Context, id space.ID, did space.DID) (Member, error) {
	s, m, err := f.row(id, did)
	switch {
	case err != nil:
		return Member{}, err
	case did != s.info.Authority && !slices.Contains(m.Caps, CapSequence):
		return Member{}, fmt.Errorf("appoint %s: it may not sequence: %w", did, space.ErrForbidden)
	}
	for i := range s.members {
		s.members[i].Sequencer = false
	}
	m.Sequencer = true
	return *m, nil
}

func (f *fake) UpdateSpace(_ context.Context, id space.ID, u PolicyPatch) (SpaceInfo, error) {
	s, err := f.alive(id)
	if err != nil {
		return SpaceInfo{}, err
	}
	p, err := u.Apply(s.info.Policy)
	if err == nil {
		err = p.Validate()
	}
	if err != nil {
		return SpaceInfo{}, err
	}
	f.updates++
	s.info.Policy, s.info.UpdatedMs = p, s.info.CreatedMs+aDay
	return s.info, nil
}

func (f *fake) DeleteSpace(_ context.Context, id space.ID, reason string) error {
	s, err := f.alive(id)
	if err != nil {
		return err
	}
	s.deleted, f.reason = true, reason
	return nil
}

func (f *fake) Transfer(ctx context.Context, id space.ID, to space.DID) (SpaceInfo, error) {
	s, _, err := f.row(id, to)
	if err != nil {
		return SpaceInfo{}, err
	}
	if s.info.ID.Authority == s.info.Authority {
		return SpaceInfo{}, fmt.Errorf("transfer: the space lives under its authority's DID: %w", space.ErrUnsupported)
	}
	if !s.accepted {
		<-ctx.Done()
		return SpaceInfo{}, ctx.Err()
	}
	s.info.Authority = to
	return s.info, nil
}

func (f *fake) AcceptTransfer(_ context.Context, id space.ID) error {
	s, err := f.alive(id)
	if err == nil {
		s.accepted = true
	}
	return err
}

func (f *fake) Leave(_ context.Context, id space.ID) error {
	s, err := f.alive(id)
	if err != nil {
		return err
	}
	if s.info.Authority == owner {
		return fmt.Errorf("leave: %w", space.ErrLastAuthority)
	}
	s.info.Level = space.LevelNone
	return nil
}

func (f *fake) SetPetname(_ context.Context, id space.ID, name string) error {
	s, err := f.space(id)
	if err == nil && name == "taken" {
		err = ErrPetnameTaken
	}
	if err == nil {
		s.info.Name = name
	}
	return err
}

func (f *fake) Forget(_ context.Context, id space.ID) error {
	_, err := f.space(id)
	if err == nil {
		delete(f.spaces, id)
	}
	return err
}

func (f *fake) Devices(context.Context) ([]Device, error) { return f.devices, f.gate() }

func (f *fake) ApproveDevice(_ context.Context, code, addr string) (Device, error) {
	if err := f.gate(); err != nil {
		return Device{}, err
	}
	if !strings.HasPrefix(code, "kith:d#") {
		return Device{}, fmt.Errorf("code: %w", space.ErrMalformed)
	}
	if code != "kith:d#code" {
		return Device{}, fmt.Errorf("code: %w", space.ErrInvite)
	}
	d := Device{ID: "bb02", Name: "phone" + addr, Caps: []string{"write"}, AddedMs: f.now / 1000}
	f.devices = append(f.devices, d)
	return d, nil
}

func (f *fake) RevokeDevice(_ context.Context, id string) (Device, error) {
	if err := f.gate(); err != nil {
		return Device{}, err
	}
	for i := range f.devices {
		switch d := &f.devices[i]; {
		case d.ID != id:
		case d.This:
			return Device{}, fmt.Errorf("revoke: %w", ErrLastDevice)
		default:
			d.Revoked, d.RevokedMs = true, f.now/1000
			return *d, nil
		}
	}
	return Device{}, fmt.Errorf("revoke %s: %w", id, ErrDeviceNotFound)
}

func (f *fake) Backup(_ context.Context, file, passphrase string) (Backup, error) {
	if err := f.gate(); err != nil {
		return Backup{}, err
	}
	if !strings.HasPrefix(file, "/") {
		return Backup{}, fmt.Errorf("backup: %q is not an absolute path: %w", file, space.ErrMalformed)
	}
	return Backup{File: file, Bytes: int64(len(passphrase)), Spaces: len(f.spaces), Rows: 7, BlobParts: 2}, nil
}

func (f *fake) RelayRole(context.Context) (RelayRole, error) {
	return RelayRole{
		Relay: true, PeerID: "12D3relay", Addrs: []string{"/ip4/127.0.0.1/tcp/1/p2p/12D3relay"}, Open: true, Topics: 1, Held: 9, MaxBytes: 10, Failing: "x",
		Leases: []RelayLease{{Topic: "aa01", Held: 9, Bytes: 10, ExpiresAt: f.now, Envelopes: 1, Received: 9}},
	}, f.gate()
}

func (f *fake) LeaseRelay(_ context.Context, id space.ID, relay, code string) (RelayStatus, error) {
	switch {
	case f.spaces[id] == nil:
		return RelayStatus{}, space.ErrSpaceNotFound
	case relay != "12D3relay":
		return RelayStatus{}, ErrPeerNotFound
	case code != "sesame":
		return RelayStatus{}, fmt.Errorf("the relay refused: %w", space.ErrForbidden)
	}
	return RelayStatus{PeerID: relay, Addrs: []string{}, Connected: true, LeaseExpires: f.now, Bytes: 10, Used: 9}, f.gate()
}
