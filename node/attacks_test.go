package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// visitor is somebody who speaks the join protocol by hand.
type visitor struct {
	made   identity.Created
	seed   identity.Seed
	writer ed25519.PublicKey
}

func newVisitor(t *testing.T) *visitor {
	t.Helper()
	seed, err := identity.NewSeed(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made, err := identity.New(rand.Reader, seed, 1)
	if err != nil {
		t.Fatal(err)
	}
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{made, seed, pub}
}

// claims is what v says to a space; an empty invite: that it is a member.
func (v *visitor) claims(sid [32]byte, invite []byte) claim {
	dev := v.made.Device.ID()
	return claim{
		Ver: claimVersion, Space: sid[:], Invite: append([]byte{}, invite...), C: v.made.State.C[:], Log: v.made.Log,
		Device: dev[:], Writer: v.writer,
	}
}

// proves signs a claim as it stands, with v's device and the key of a link.
func (v *visitor) proves(c claim, ch challenge, link *control.Link) proof {
	sk := v.made.Device.Sig()
	if link == nil {
		m := seal.AdmitMessage([32]byte(c.Space), [32]byte(ch.Nonce), identity.DeviceID(ch.Keeper), identity.Commitment(c.C), identity.DeviceID(c.Device), [32]byte(c.Writer))
		sig := seal.SignAdmit(sk, m)
		return proof{Invite: []byte{}, Device: sig[:]}
	}
	m := seal.RedeemMessage([32]byte(c.Space), link.InviteID(), identity.Commitment(c.C), identity.DeviceID(c.Device), [32]byte(ch.Nonce), identity.DeviceID(ch.Keeper), [32]byte(c.Writer))
	inv, dev := seal.SignRedeem(link.InviteKey(), m), seal.SignRedeem(sk, m)
	return proof{Invite: inv[:], Device: dev[:]}
}

// asks runs one exchange with a keeper and returns its answer and the nonce.
func asks(t *testing.T, n *Node, c claim, prove func(challenge) proof) (verdict, [32]byte) {
	t.Helper()
	mine, theirs := net.Pipe()
	defer mine.Close()
	if err := mine.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer theirs.Close()
		_ = n.admit(t.Context(), theirs, seal.MaxWelcome)
	}()
	defer func() { <-ended }()
	var ch challenge
	var v verdict
	err := writeMsg(mine, c)
	if err == nil {
		err = readMsg(mine, maxSmall, &ch)
	}
	if err == nil {
		err = writeMsg(mine, prove(ch))
	}
	if err == nil {
		err = readMsg(mine, maxAnswer, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v, [32]byte(ch.Nonce)
}

// inviteOf opens a door and gives its link.
func inviteOf(t *testing.T, n *Node, id space.ID, o xrpc.InviteOptions) (xrpc.Invite, control.Link) {
	t.Helper()
	inv, err := n.Invite(t.Context(), id, o)
	if err != nil {
		t.Fatal(err)
	}
	link, err := control.ParseLink(inv.Link)
	if err != nil {
		t.Fatal(err)
	}
	return inv, link
}

// joins lets v in by a fresh invite.
func (v *visitor) joins(t *testing.T, n *Node, id space.ID) {
	t.Helper()
	_, link := inviteOf(t, n, id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	inv := link.InviteID()
	c := v.claims(link.SpaceID, inv[:])
	if got, _ := asks(t, n, c, func(ch challenge) proof { return v.proves(c, ch, &link) }); len(got.Welcome) == 0 {
		t.Fatalf("not admitted: %q", got.Reason)
	}
}

// wantRefused: the one refusal there is.
func wantRefused(t *testing.T, what string, v verdict) {
	t.Helper()
	if len(v.Welcome) != 0 || v.Reason != refused || v.Epoch != 0 {
		t.Errorf("%s: epoch %d, welcome of %d bytes, %q", what, v.Epoch, len(v.Welcome), v.Reason)
	}
}

// TestK1WhoIsLetIn: not a stranger, not under another's name, not with a
// revoked device, and not with the identity log of before.
func TestK1WhoIsLetIn(t *testing.T) {
	a, _, id := pairOf(t)
	sid := actorOf(t, a, id).sid
	member, stranger := newVisitor(t), newVisitor(t)
	member.joins(t, a, id)
	before := a.mustHead(t, id)

	c := stranger.claims(sid, nil)
	v, _ := asks(t, a, c, func(ch challenge) proof { return stranger.proves(c, ch, nil) })
	wantRefused(t, "a stranger", v)

	c = stranger.claims(sid, nil)
	c.C = member.made.State.C[:]
	v, _ = asks(t, a, c, func(ch challenge) proof { return stranger.proves(c, ch, nil) })
	wantRefused(t, "a stranger under a member's commitment", v)

	c.Log = member.made.Log
	v, _ = asks(t, a, c, func(ch challenge) proof { return stranger.proves(c, ch, nil) })
	wantRefused(t, "a stranger with a member's log and its own device", v)

	old := *member
	phone, err := identity.NewDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	added, st, err := member.made.State.AddDevice(member.made.Device, phone, identity.CapsAll, 2)
	if err != nil {
		t.Fatal(err)
	}
	revoked, puk, st, err := st.RevokeDevice(rand.Reader, phone, member.made.Device.ID(), member.made.PUK, 3)
	if err != nil {
		t.Fatal(err)
	}
	now := member.made
	now.Log, now.State, now.PUK, now.Device = append(append([][]byte{}, now.Log...), added, revoked), st, puk, phone
	fresh := &visitor{made: now, writer: member.writer}

	c = fresh.claims(sid, nil)
	if v, _ := asks(t, a, c, func(ch challenge) proof { return fresh.proves(c, ch, nil) }); len(v.Welcome) == 0 {
		t.Fatalf("the member with its new device: %q", v.Reason)
	}
	c = old.claims(sid, nil)
	v, _ = asks(t, a, c, func(ch challenge) proof { return old.proves(c, ch, nil) })
	wantRefused(t, "the old per-user key, with the log of before", v)

	c = fresh.claims(sid, nil)
	dev := old.made.Device.ID()
	c.Device = dev[:]
	v, _ = asks(t, a, c, func(ch challenge) proof { return old.proves(c, ch, nil) })
	wantRefused(t, "the revoked device, with the whole log", v)
	if after := a.mustHead(t, id); after.Seq > before.Seq+1 { // the revocation may have opened an epoch
		t.Errorf("the log went from %d to %d", before.Seq, after.Seq)
	}
}

func (n *Node) mustHead(t *testing.T, id space.ID) space.Head {
	return actorOf(t, n, id).control().Head
}

// TestK2AdmissionIsBound: an answer is good for one nonce, keeper, space and
// claim.
func TestK2AdmissionIsBound(t *testing.T) {
	a, b, id := pairOf(t)
	other, err := a.CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.forum", Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	_, link := inviteOf(t, a, id, xrpc.InviteOptions{Level: space.LevelWrite})
	inv := link.InviteID()
	v := newVisitor(t)
	good := v.claims(link.SpaceID, inv[:])
	var recorded proof
	first, nonce := asks(t, a, good, func(ch challenge) proof {
		recorded = v.proves(good, ch, &link)
		return recorded
	})
	if len(first.Welcome) == 0 {
		t.Fatalf("not admitted: %q", first.Reason)
	}
	head := a.mustHead(t, id)

	got, _ := asks(t, a, good, func(challenge) proof { return recorded })
	wantRefused(t, "the proof again", got)

	got, _ = asks(t, a, good, func(ch challenge) proof {
		me := b.self.device.ID()
		ch.Keeper = me[:]
		return v.proves(good, ch, &link)
	})
	wantRefused(t, "a proof for another keeper", got)

	elsewhere := good
	sid := actorOf(t, a, other.ID).sid
	elsewhere.Space = sid[:]
	got, _ = asks(t, a, elsewhere, func(ch challenge) proof { return v.proves(good, ch, &link) })
	wantRefused(t, "a proof for another space", got)

	swapped := good
	swapped.Writer = newVisitor(t).writer
	got, _ = asks(t, a, swapped, func(ch challenge) proof { return v.proves(good, ch, &link) })
	wantRefused(t, "a writer key put in on the way", got)

	thief := newVisitor(t)
	swapped = good
	swapped.Log, swapped.C = thief.made.Log, thief.made.State.C[:]
	got, _ = asks(t, a, swapped, func(ch challenge) proof { return v.proves(good, ch, &link) })
	wantRefused(t, "a per-user key put in on the way", got)

	x := seal.WelcomeContext{
		SpaceID: link.SpaceID, Epoch: first.Epoch, Keeper: a.self.device.ID(), C: v.made.State.C, Nonce: nonce, PUKGen: v.made.PUK.Gen(),
	}
	if _, err := seal.OpenWelcome(v.made.PUK, x, first.Welcome); err != nil {
		t.Fatal(err)
	}
	for what, wrong := range map[string]func(*seal.WelcomeContext){
		"space":  func(x *seal.WelcomeContext) { x.SpaceID = sid },
		"nonce":  func(x *seal.WelcomeContext) { x.Nonce[0]++ },
		"keeper": func(x *seal.WelcomeContext) { x.Keeper = b.self.device.ID() },
		"person": func(x *seal.WelcomeContext) { x.C = thief.made.State.C },
		"epoch":  func(x *seal.WelcomeContext) { x.Epoch++ },
	} {
		y := x
		wrong(&y)
		if _, err := seal.OpenWelcome(v.made.PUK, y, first.Welcome); err == nil {
			t.Errorf("the welcome opens under another %s", what)
		}
	}
	if _, err := seal.OpenWelcome(thief.made.PUK, x, first.Welcome); err == nil {
		t.Error("the welcome opens for a thief")
	}
	if a.mustHead(t, id) != head {
		t.Error("a refused claim moved the log")
	}
}

// TestK5LogReaderCannotRedeem: who reads the log, a keeper as well, knows the
// public half of an invite and cannot come in, or let others in, by it.
func TestK5LogReaderCannotRedeem(t *testing.T) {
	a, b, id := pairOf(t)
	_, link := inviteOf(t, a, id, xrpc.InviteOptions{Level: space.LevelWrite})
	inv := link.InviteID()
	known, ok := actorOf(t, a, id).control().Invite(inv)
	if !ok {
		t.Fatal("no such invite")
	}
	v := newVisitor(t)
	c := v.claims(link.SpaceID, inv[:])
	onB := actorOf(t, b, id)
	gk, err := onB.current().keys.Group()
	if err != nil {
		t.Fatal(err)
	}
	for what, seed := range map[string][]byte{
		"its own key": v.made.Device.Sig().Seed(), "the public half": known.Pub[:], "the invite's id": append(inv[:], inv[:]...),
		"the group key": gk.Marshal(), "the control key": gk.Control().Bytes(), "a keeper's device": a.self.device.Sig().Seed(),
		"derived from the public half": space.KDF(known.Pub[:], space.LabelInvite, nil, 32),
		"derived from the group key":   space.KDF(gk.Marshal(), space.LabelInvite, nil, 32),
	} {
		key := ed25519.NewKeyFromSeed(seed)
		if bytes.Equal(key.Public().(ed25519.PublicKey), known.Pub[:]) {
			t.Fatalf("%s is the invite's key", what)
		}
		got, _ := asks(t, a, c, func(ch challenge) proof {
			p := v.proves(c, ch, &link)
			m := seal.RedeemMessage(link.SpaceID, inv, v.made.State.C, v.made.Device.ID(), [32]byte(ch.Nonce), identity.DeviceID(ch.Keeper), [32]byte(c.Writer))
			sig := seal.SignRedeem(key, m)
			p.Invite = sig[:]
			return p
		})
		wantRefused(t, what, got)
	}
}

// TestK16OneRefusal: strangers hear one and the same word, whether there is
// such a space or not and whatever is wrong.
func TestK16OneRefusal(t *testing.T) {
	a, _, id := pairOf(t)
	v := newVisitor(t)
	_, live := inviteOf(t, a, id, xrpc.InviteOptions{Level: space.LevelWrite})
	revokedInv, revoked := inviteOf(t, a, id, xrpc.InviteOptions{Level: space.LevelWrite})
	if err := a.RevokeInvite(t.Context(), id, revokedInv.ID); err != nil {
		t.Fatal(err)
	}
	_, spent := inviteOf(t, a, id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	w := newVisitor(t)
	spentID := spent.InviteID()
	c := w.claims(spent.SpaceID, spentID[:])
	if got, _ := asks(t, a, c, func(ch challenge) proof { return w.proves(c, ch, &spent) }); len(got.Welcome) == 0 {
		t.Fatal("the first use failed")
	}
	soon := uint64(time.Now().Add(50 * time.Millisecond).UnixMilli())
	_, expired := inviteOf(t, a, id, xrpc.InviteOptions{Level: space.LevelWrite, ExpiresMs: soon})
	for time.Now().UnixMilli() <= int64(soon) {
		<-time.After(10 * time.Millisecond)
	}
	ghost := live
	rand.Read(ghost.SpaceID[:])
	guessed := live
	rand.Read(guessed.Secret[:])
	wrong := live
	wrong.Secret[0]++

	head := a.mustHead(t, id)
	for what, link := range map[string]control.Link{
		"no such space": ghost, "no such invite": guessed, "a revoked invite": revoked, "a spent invite": spent, "an expired invite": expired,
	} {
		for _, have := range []space.Head{{}, {Seq: 1 << 40, Hash: [32]byte{1}}, head} {
			inv := link.InviteID()
			c := v.claims(link.SpaceID, inv[:])
			c.Have = have
			got, _ := asks(t, a, c, func(ch challenge) proof { return v.proves(c, ch, &link) })
			wantRefused(t, fmt.Sprintf("%s, head %d", what, have.Seq), got)

			c = v.claims(link.SpaceID, nil)
			c.Have = have
			got, _ = asks(t, a, c, func(ch challenge) proof { return v.proves(c, ch, nil) })
			wantRefused(t, fmt.Sprintf("%s, as a member, head %d", what, have.Seq), got)
		}
	}
	inv := live.InviteID()
	c = v.claims(live.SpaceID, inv[:])
	got, _ := asks(t, a, c, func(ch challenge) proof { return v.proves(c, ch, &wrong) })
	wantRefused(t, "a wrong secret for a live invite", got)
	if a.mustHead(t, id) != head {
		t.Error("a refused claim moved the log")
	}
}

// TestK11PublicDoor: a flood of new identities fills the public door and no
// more than that; an hour later it opens again, other spaces never notice.
func TestK11PublicDoor(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		var d doors
		flooded, quiet := [32]byte{1}, [32]byte{2}
		in := 0
		for range 10_000 {
			if d.enter(flooded) == nil {
				in++
			}
			time.Sleep(6 * time.Millisecond) // 10,000 a minute
		}
		if in != publicPerHour {
			t.Errorf("%d came in within a minute, at most %d", in, publicPerHour)
		}
		if err := d.enter(quiet); err != nil {
			t.Errorf("another space: %v", err)
		}
		time.Sleep(time.Hour)
		if err := d.enter(flooded); err != nil {
			t.Errorf("an hour later: %v", err)
		}
	})
}

// TestK11InvitedDuringAFlood: who has an invite to a public space comes in
// while its public door is full.
func TestK11InvitedDuringAFlood(t *testing.T) {
	a, _, id := pairOf(t)
	x := actorOf(t, a, id)
	policy := space.DefaultPolicy()
	policy.Mint = space.MintPublic
	if _, err := a.UpdateSpace(t.Context(), id, xrpc.PolicyPatch{Mint: &policy.Mint}); err != nil {
		t.Fatal(err)
	}
	for a.doors.enter(x.sid) == nil {
	}
	v := newVisitor(t)
	c := v.claims(x.sid, nil)
	got, _ := asks(t, a, c, func(ch challenge) proof { return v.proves(c, ch, nil) })
	if len(got.Welcome) != 0 {
		t.Fatal("came in by a full door")
	}
	start := time.Now()
	v.joins(t, a, id)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("with an invite it took %v", took)
	}
}

// badWrap is a rotation whose wrap for one member holds another key than that
// of the log.
func badWrap(a *actor, victim identity.Commitment) amendment {
	return func(st *control.State) (control.Kind, any, []store.ObjectRow, error) {
		rot, err := a.rotate(st, control.KindEpoch, control.Rotation{}, nil)
		if err != nil {
			return 0, nil, nil, err
		}
		other, err := seal.NewGroupKey(rand.Reader)
		if err != nil {
			return 0, nil, nil, err
		}
		for i, w := range rot.body.Epoch.Wraps {
			if w.C != victim {
				continue
			}
			who, _ := a.out.identity(victim)
			x := seal.WrapContext{SpaceID: a.sid, Epoch: rot.body.Epoch.N, C: victim}
			if rot.body.Epoch.Wraps[i].Sealed, err = seal.Wrap(who.PUK, x, seal.Full(other)); err != nil {
				return 0, nil, nil, err
			}
		}
		return control.KindEpoch, *rot.body, rot.pages, nil
	}
}

// TestC5SplitKey: a member whose wrap holds another key than the log commits
// to does not take it: it asks who admits, and gets the epoch's.
func TestC5SplitKey(t *testing.T) {
	a, b, id := pairOf(t)
	onA, onB := actorOf(t, a, id), actorOf(t, b, id)
	if _, err := a.amend(t.Context(), onA, badWrap(onA, b.self.c)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		e := onB.current()
		if e.n == 2 {
			have, _ := e.keys.Group()
			want, _ := onA.current().keys.Group()
			if !have.Equal(want) {
				t.Fatal("two members hold two keys of one epoch")
			}
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("b is at epoch %d", e.n)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestC7AfterTheCut: what a removed member appends to its chain counts
// nowhere, not with a rev from before its removal either, nor in a chain that
// the cuts do not name; the nodes agree all the same.
func TestC7AfterTheCut(t *testing.T) {
	a, b, id := pairOf(t)
	onA, onB := actorOf(t, a, id), actorOf(t, b, id)
	f, unknown := newForger(t, onB.current()), newForger(t, onB.current())
	early := space.NextTID(time.Now().Add(-time.Hour).UnixMicro(), 1, 0)
	rev := space.NextTID(time.Now().UnixMicro(), 1, 0)
	known := []envelope.Envelope{
		f.hello(t, b.self.c, b.self.device.ID(), onB.control().Head),
		f.entry(t, b.self.c, batch(t, rev, "before")),
	}
	deliver := func(x *actor, f *forger, run []envelope.Envelope, cert bool) {
		t.Helper()
		in := &runIn{topic: f.e.id, run: run}
		if cert {
			in.cert = &f.cert
		}
		if n, err := x.deliver(t.Context(), in); err != nil || n != len(run) {
			t.Fatalf("accepted %d envelopes: %v", n, err)
		}
	}
	deliver(onA, f, known, true)
	if err := a.RemoveMember(t.Context(), id, b.self.did); err != nil {
		t.Fatal(err)
	}
	late := []envelope.Envelope{
		f.entry(t, b.self.c, batch(t, early, "backdated")),
		f.entry(t, b.self.c, batch(t, space.NextTID(time.Now().UnixMicro(), 1, rev), "late")),
	}
	hidden := []envelope.Envelope{
		unknown.hello(t, b.self.c, b.self.device.ID(), onB.control().Head),
		unknown.entry(t, b.self.c, batch(t, early, "hidden")),
	}
	deliver(onA, f, late, false)
	deliver(onA, unknown, hidden, true)
	if _, err := a.Record(t.Context(), id, b.self.did, space.Path{Collection: "com.example.forum.post", Key: "before"}); err != nil {
		t.Errorf("what was known before the removal: %v", err)
	}
	for _, key := range []space.RecordKey{"backdated", "late", "hidden"} {
		_, err := a.Record(t.Context(), id, b.self.did, space.Path{Collection: "com.example.forum.post", Key: key})
		if !errors.Is(err, space.ErrRecordNotFound) {
			t.Errorf("%s: %v", key, err)
		}
	}
}
