package node_test

import (
	"context"
	"fmt"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// What TestKnowledge lets happen to devices, and to a space that is a member of
// the story's.

// spaces are those that are written in.
func (s *saga) spaces() []space.ID {
	if !s.born {
		return []space.ID{s.id}
	}
	return []space.ID{s.id, s.child}
}

// stepDevice lets the second device come, or be revoked.
func (s *saga) stepDevice(k int) {
	d := &s.second
	if d.owner == 0 || k < d.from {
		return
	}
	switch {
	case d.id == "" || k >= d.to-4 && !d.alone && s.lives(d.owner) < space.LevelRead:
		s.w.Heal()
		s.did = append(s.did, fmt.Sprintf("%d reads: %v", d.owner, s.letRead(d.owner)))
	}
	switch {
	case d.id == "":
		s.did = append(s.did, fmt.Sprintf("a second device of %d: %v", d.owner, s.enrol()))
	case k >= d.to-3 && !d.alone:
		// What happens from now on it does not hear, and what it writes nobody
		// hears; the network heals when it does.
		d.alone = true
		nodes := s.w.Nodes()
		s.w.Partition(nodes[:phone], nodes[phone:])
		s.did = append(s.did, "the second device is alone")
	case k >= d.to && !d.revoked:
		_, err := s.w.Node(d.owner).RevokeDevice(s.t.Context(), d.id)
		d.revoked = err == nil
		s.did = append(s.did, fmt.Sprintf("the second device is revoked: %v", err))
	}
}

// letRead sees to it that somebody reads the story.
func (s *saga) letRead(i int) error {
	ctx, cancel := s.soon()
	defer cancel()
	switch level := s.lives(i); {
	case level >= space.LevelRead:
		return nil
	case level == space.LevelReadSelf:
		_, err := s.w.Node(0).SetLevel(ctx, s.id, s.dids[i], space.LevelWrite)
		return err
	}
	inv, err := s.w.Node(0).Invite(ctx, s.id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err == nil {
		_, err = s.w.Node(i).Join(ctx, inv.Link)
	}
	return err
}

// enrol makes an empty home a device of its owner's.
func (s *saga) enrol() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	home := s.t.TempDir()
	shown, done := make(chan node.Offer, 1), make(chan error, 1)
	go func() {
		done <- node.EnrolTapped(ctx, s.w.Machine(home), s, func(o node.Offer) { shown <- o })
	}()
	var offer node.Offer
	select {
	case offer = <-shown:
	case err := <-done:
		return err
	}
	d, err := s.w.Node(s.second.owner).ApproveDevice(ctx, offer.Code, offer.Addrs[0])
	if err != nil {
		cancel()
		<-done
		return err
	}
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
	s.second.id = d.ID
	s.tap(s.w.Open(home))
	s.dids = append(s.dids, s.dids[s.second.owner])
	return nil
}

// bear makes the child, and lets the story's authority into it.
func (s *saga) bear() {
	if s.rand.IntN(2) == 0 {
		s.boss = sagaNodes - 2
	}
	info, err := s.w.Node(s.boss).CreateSpace(s.t.Context(), xrpc.NewSpace{Type: "com.example.forum", Key: "child", Name: "child", Policy: s.policy})
	if err != nil {
		s.t.Fatal(err)
	}
	s.born, s.child = true, info.ID
	if s.boss == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	inv, err := s.w.Node(s.boss).Invite(ctx, s.child, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err == nil {
		_, err = s.w.Node(0).Join(ctx, inv.Link)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// stepChild lets something happen to the child, or between it and the story.
func (s *saga) stepChild(i int) {
	boss := s.w.Node(s.boss)
	level, _ := s.levelIn(boss, s.child, i)
	pick := space.LevelReadSelf + space.Level(s.rand.IntN(3))
	ctx, cancel := s.soon()
	defer cancel()
	var what string
	var err error
	switch k := s.rand.IntN(10); {
	case k < 3:
		pick = space.LevelRead + space.Level(s.rand.IntN(2))
		what = fmt.Sprintf("the child is a member at %v", pick)
		_, err = s.w.Node(0).Delegate(ctx, s.id, s.child, pick)
	case k < 4:
		what = "the child is taken out"
		err = s.w.Node(0).Undelegate(ctx, s.id, s.child)
	case i == s.boss:
		return
	case level == space.LevelNone:
		what = fmt.Sprintf("add %d to the child at %v", i, pick)
		var inv xrpc.Invite
		if inv, err = boss.Invite(ctx, s.child, xrpc.InviteOptions{Level: pick, MaxUses: 1}); err == nil {
			_, err = s.w.Node(i).Join(ctx, inv.Link)
		}
	case k < 7:
		what = fmt.Sprintf("remove %d from the child", i)
		err = boss.RemoveMember(ctx, s.child, s.dids[i])
	case k < 9:
		what = fmt.Sprintf("level of %d in the child: %v", i, pick)
		_, err = boss.SetLevel(ctx, s.child, s.dids[i], pick)
	default:
		what = "rotate the child"
		_, err = boss.Rotate(ctx, s.child)
	}
	s.did = append(s.did, fmt.Sprintf("%s: %v", what, err))
}
