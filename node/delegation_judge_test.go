package node

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

// household is one node with a parent and a child space of its own.
type household struct {
	n             *Node
	parent, child *actor
}

func newHousehold(t *testing.T, level space.Level) household {
	t.Helper()
	n := freshNode(t)
	h := household{n: n}
	for name, a := range map[string]**actor{"parent": &h.parent, "child": &h.child} {
		info, err := n.CreateSpace(t.Context(), xrpc.NewSpace{
			Type: "com.example.forum", Key: space.RecordKey(name), Name: name, Policy: space.DefaultPolicy(),
		})
		if err != nil {
			t.Fatal(err)
		}
		*a = n.bySpace(info.SpaceID)
	}
	if level != space.LevelNone {
		if _, err := n.Delegate(t.Context(), h.parent.id, h.child.id, level); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// word is a voucher as the child's sequencer signs it, changed.
func (h household) word(t *testing.T, signer ed25519.PrivateKey, nowMs int64, change func(*seal.DelegateVoucher)) []byte {
	t.Helper()
	v := seal.DelegateVoucher{
		Child: h.child.sid, Parent: h.parent.sid, C: identity.Commitment{7}, Level: space.LevelWrite, Epoch: h.child.control().Epoch,
	}
	change(&v)
	v, err := seal.SignDelegateVoucher(v, nowMs, signer)
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestC16ForgedChild: a child's sequencer that lies lets in whom it likes, as
// the child's own and at most at the child's level. It gains nobody a place in
// the roster, no other child's name, and goes with the child.
func TestC16ForgedChild(t *testing.T) {
	h := newHousehold(t, space.LevelRead)
	seq := h.n.self.device.Sig()
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	who, now := identity.Commitment{7}, time.Now().UnixMilli()
	same := func(*seal.DelegateVoucher) {}
	for name, c := range map[string]struct {
		word []byte
		want error
	}{
		"a stranger it vouches for":  {h.word(t, seq, now, same), nil},
		"another signer":             {h.word(t, other, now, same), space.ErrForged},
		"for another parent":         {h.word(t, seq, now, func(v *seal.DelegateVoucher) { v.Parent = [32]byte{3} }), space.ErrForged},
		"of another child":           {h.word(t, seq, now, func(v *seal.DelegateVoucher) { v.Child = [32]byte{3} }), space.ErrNotMember},
		"of somebody else":           {h.word(t, seq, now, func(v *seal.DelegateVoucher) { v.C = identity.Commitment{8} }), space.ErrStaleDescriptor},
		"that has ended":             {h.word(t, seq, now-seal.VoucherLifeMs, same), space.ErrForbidden},
		"that lives too long":        {h.word(t, seq, now+seal.VoucherLifeMs, same), space.ErrForbidden},
		"nothing, by a non-member":   {nil, space.ErrNotMember},
		"nothing that can be parsed": {[]byte{1}, space.ErrMalformed},
	} {
		level, via, err := levelOf(h.parent.control(), who, c.word, now)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (level != space.LevelRead || via != h.child.sid) {
			t.Errorf("%s: level %v by way of %x", name, level, via)
		}
	}

	// A descriptor with whatever roster root changes nothing in the parent's roster.
	d, err := h.child.descriptor()
	if err != nil {
		t.Fatal(err)
	}
	d.RosterRoot = [32]byte{66}
	d.Depth, d.Descendants = 1, [][32]byte{{4}} // so that there is something to refresh
	if d, err = d.Sign(seq); err != nil {
		t.Fatal(err)
	}
	before := h.parent.control()
	st, err := h.n.amend(t.Context(), h.parent, h.parent.delegate(d, func(*control.State) space.Level { return space.LevelRead }))
	if err != nil {
		t.Fatal(err)
	}
	if st.Len() != before.Len() || st.ReaderCount() != before.ReaderCount() || st.Epoch != before.Epoch+1 {
		t.Errorf("%d members, %d readers, epoch %d", st.Len(), st.ReaderCount(), st.Epoch)
	}
	if _, known := st.Delegation(h.child.sid); !known {
		t.Error("the log does not name the child")
	}

	// Cut: nothing that the child says counts any more.
	good := h.word(t, seq, now, same)
	if err := h.n.Undelegate(t.Context(), h.parent.id, h.child.id); err != nil {
		t.Fatal(err)
	}
	if _, _, err := levelOf(h.parent.control(), who, good, now); !errors.Is(err, space.ErrNotMember) {
		t.Errorf("after the child was taken out: %v", err)
	}
}

// TestOldVoucher: once a parent knows a child's new epoch, the word of the old
// one counts no more, for the child may have let its bearer go.
func TestOldVoucher(t *testing.T) {
	h := newHousehold(t, space.LevelWrite)
	now := time.Now().UnixMilli()
	old := h.word(t, h.n.self.device.Sig(), now, func(*seal.DelegateVoucher) {})
	if _, err := h.n.Rotate(t.Context(), h.child.id); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		d, ok := h.parent.control().Delegation(h.child.sid)
		return ok && d.Descriptor.Epoch == 2
	})
	if _, _, err := levelOf(h.parent.control(), identity.Commitment{7}, old, now); !errors.Is(err, space.ErrStaleDescriptor) {
		t.Errorf("a voucher of the epoch before: %v", err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("it does not happen")
		case <-tick.C:
		}
	}
}

// TestBelieveDescriptor: what a child's node answers is held against the clock,
// the sequencer that is known and how far the log is known to have come.
func TestBelieveDescriptor(t *testing.T) {
	h := newHousehold(t, space.LevelNone)
	good, err := h.child.descriptor()
	if err != nil {
		t.Fatal(err)
	}
	seq := h.n.self.device.Sig()
	evil := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	head := h.child.control().Head
	later := head
	later.Seq++
	weak := bytes.Clone(good.Delegate)
	clear(weak[len(weak)-32:])
	ask := func(d control.Descriptor, signer ed25519.PrivateKey, head space.Head) error {
		d, err := d.Sign(signer)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		body, err := space.Marshal(descriptorAnswer{Descriptor: raw, Addrs: []string{}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.n.believeDescriptor(answered{body: body}, h.child.sid, [32]byte(seq.Public().(ed25519.PublicKey)), head)
		return err
	}
	with := func(change func(*control.Descriptor)) control.Descriptor {
		d := good
		change(&d)
		return d
	}
	for name, c := range map[string]struct{ got, want error }{
		"good":              {ask(good, seq, head), nil},
		"ten minutes old":   {ask(with(func(d *control.Descriptor) { d.NotAfterMs -= control.DescriptorLifeMs }), seq, head), space.ErrStaleDescriptor},
		"for an hour":       {ask(with(func(d *control.Descriptor) { d.NotAfterMs += 3_600_000 }), seq, head), space.ErrMalformed},
		"older than known":  {ask(good, seq, later), space.ErrStaleDescriptor},
		"another space":     {ask(with(func(d *control.Descriptor) { d.Space = [32]byte{1} }), seq, head), space.ErrForged},
		"another sequencer": {ask(with(func(d *control.Descriptor) { d.Sequencer = [32]byte(evil.Public().(ed25519.PublicKey)) }), evil, head), space.ErrForged},
		"another's hand":    {ask(good, evil, head), space.ErrForged},
		"a weak key":        {ask(with(func(d *control.Descriptor) { d.Delegate = weak }), seq, head), space.ErrMalformed},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v", name, c.got)
		}
	}
}

// TestMoved: what of a child a parent acts on.
func TestMoved(t *testing.T) {
	old := control.Descriptor{Epoch: 1, Keepers: [][32]byte{{1}}, Depth: 1, Descendants: [][32]byte{{2}}, RosterRoot: [32]byte{3}}
	for name, c := range map[string]struct {
		change func(*control.Descriptor)
		want   bool
	}{
		"nothing":       {func(*control.Descriptor) {}, false},
		"a newcomer":    {func(d *control.Descriptor) { d.RosterRoot, d.Head.Seq, d.NotAfterMs = [32]byte{4}, 9, 9 }, false},
		"an epoch":      {func(d *control.Descriptor) { d.Epoch++ }, true},
		"a sequencer":   {func(d *control.Descriptor) { d.Sequencer = [32]byte{9} }, true},
		"a keeper":      {func(d *control.Descriptor) { d.Keepers = nil }, true},
		"its depth":     {func(d *control.Descriptor) { d.Depth++ }, true},
		"what is below": {func(d *control.Descriptor) { d.Descendants = [][32]byte{{5}} }, true},
	} {
		fresh := old
		c.change(&fresh)
		if got := moved(old, fresh); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestAuthorOf: the log says which children send writers, a hello's own
// identity log who they are.
func TestAuthorOf(t *testing.T) {
	h := newHousehold(t, space.LevelWrite)
	st, me := h.parent.control(), h.n.self
	sent := seal.Hello{C: me.c, Via: h.child.sid, IdentityLog: me.ownLog()}
	with := func(change func(*seal.Hello)) seal.Hello {
		x := sent
		change(&x)
		return x
	}
	for name, c := range map[string]struct {
		h           seal.Hello
		epoch       uint64
		known, void bool
	}{
		"sent":                {sent, 1, true, false},
		"a member":            {with(func(x *seal.Hello) { x.Via = [32]byte{} }), 1, true, false},
		"no member":           {with(func(x *seal.Hello) { x.Via, x.C = [32]byte{}, identity.Commitment{9} }), 1, false, false},
		"by an unknown child": {with(func(x *seal.Hello) { x.Via = [32]byte{9} }), 1, false, false},
		"in a later epoch":    {sent, 2, false, false},
		"no log":              {with(func(x *seal.Hello) { x.IdentityLog = nil }), 1, true, true},
		"part of a log":       {with(func(x *seal.Hello) { x.IdentityLog = x.IdentityLog[1:] }), 1, true, true},
		"without a DID":       {with(func(x *seal.Hello) { x.IdentityLog = x.IdentityLog[:1] }), 1, true, true},
		"another's log":       {with(func(x *seal.Hello) { x.C = identity.Commitment{9} }), 1, true, true},
	} {
		m, known, void := authorOf(st, c.epoch, c.h)
		if known != c.known || void != c.void {
			t.Errorf("%s: known %v, void %v", name, known, void)
		}
		if known && !void && (m.C != me.c || m.DID != me.did) {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// TestDescribe: who may ask for a child's descriptor, and so make a space its
// parent.
func TestDescribe(t *testing.T) {
	h := newHousehold(t, space.LevelNone)
	me := h.n.self.ownState()
	stranger, keeper := identity.State{C: identity.Commitment{7}}, [32]byte{5}
	body := func(parent byte, devices ...[32]byte) []byte {
		b, err := space.Marshal(parentRecord{
			Parent: bytes.Repeat([]byte{parent}, 32), URI: h.parent.id.AT(), Devices: append([][32]byte{}, devices...), Addrs: []string{},
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ask := func(who identity.State, dev [32]byte, b []byte) error {
		_, err := h.n.describe(h.child, question{Device: dev[:], Body: b}, who)
		return err
	}
	dev := h.n.self.device.ID()
	if err := ask(stranger, keeper, body(1, keeper)); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("a stranger: %v", err)
	}
	if err := ask(me, dev, body(1, keeper)); err != nil {
		t.Errorf("a member: %v", err)
	}
	if err := ask(stranger, keeper, body(1, keeper)); err != nil {
		t.Errorf("the parent's keeper: %v", err)
	}
	if err := ask(stranger, [32]byte{6}, body(1, [32]byte{6})); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("another device: %v", err)
	}
	if err := ask(stranger, keeper, body(2, keeper)); !errors.Is(err, space.ErrForbidden) {
		t.Errorf("the keeper of one parent for another: %v", err)
	}
	self, err := space.Marshal(parentRecord{Parent: h.child.sid[:], URI: h.parent.id.AT(), Devices: [][32]byte{}, Addrs: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(me, dev, self); !errors.Is(err, space.ErrDelegationCycle) {
		t.Errorf("a space as its own parent: %v", err)
	}
	for i := byte(2); i < 100; i++ {
		if err = ask(me, dev, body(i)); err != nil {
			break
		}
	}
	if known, _ := h.n.parents(h.child.sid); !errors.Is(err, space.ErrTooLarge) || len(known) != maxParents {
		t.Errorf("%d parents, then %v", len(known), err)
	}
	if known, _ := h.n.parents(h.parent.sid); len(known) != 0 {
		t.Errorf("parents of another space: %v", known)
	}
}

// TestAnswerSigned: an answer is taken from the device that signed it alone,
// and a refusal tells no more than that.
func TestAnswerSigned(t *testing.T) {
	h := newHousehold(t, space.LevelNone)
	for name, c := range map[string]struct {
		space  [32]byte
		change func(*answer)
		want   error
	}{
		"good":                {h.child.sid, func(*answer) {}, nil},
		"an unknown space":    {[32]byte{1}, func(*answer) {}, errNotAnswered},
		"changed on the way":  {h.child.sid, func(a *answer) { a.Body = append(bytes.Clone(a.Body), 0) }, space.ErrForged},
		"signed by nobody":    {h.child.sid, func(a *answer) { a.Sig = []byte{} }, errNotAnswered},
		"signed by another":   {h.child.sid, func(a *answer) { a.Sig[3] ^= 1 }, space.ErrForged},
		"refused, with words": {h.child.sid, func(a *answer) { a.Reason = "because" }, errNotAnswered},
	} {
		ours, theirs := pipe()
		done := make(chan error, 1)
		go func() { done <- h.n.respond(theirs, "") }()
		ours.change = c.change
		_, err := inquire(ours, h.n.self, askParents, c.space, []byte{})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		<-done
	}
}

// FuzzDelegateMessages reads bytes from a stranger as every message of a
// delegation stream.
func FuzzDelegateMessages(f *testing.F) {
	for _, v := range []any{
		question{
			Ver: 1, Kind: askVoucher, Space: make([]byte, 32), C: make([]byte, 32), Log: [][]byte{{1}}, Device: make([]byte, 32), Body: []byte{1},
		},
		questionProof{Sig: make([]byte, 64)},
		answer{Reason: refused, Body: []byte{}, Sig: []byte{}},
		parentRecord{Parent: make([]byte, 32), URI: "at://did:web:a.example/space/com.example.forum/self", Devices: [][32]byte{{1}}, Addrs: []string{"/ip4/192.0.2.1/tcp/1"}},
		voucherBody{Parent: make([]byte, 32), By: []byte{}},
		welcomeBody{Writer: make([]byte, 32), Voucher: []byte{1}},
		welcomeAnswer{Epoch: 1, Welcome: []byte{1}},
		descriptorAnswer{Descriptor: []byte{1}, Addrs: []string{}},
	} {
		b, err := space.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		var q question
		if back(t, in, &q) {
			if _, err := q.check(); err == nil && q.Kind != nudge {
				t.Fatal("a question with a log that nobody signed was believed")
			}
		}
		var r parentRecord
		if back(t, in, &r) && r.check() == nil && (len(r.Parent) != 32 || len(r.Devices) > maxParentDevices || len(r.Addrs) > seal.MaxAddrs) {
			t.Fatalf("%+v passes", r)
		}
		back(t, in, &questionProof{})
		back(t, in, &answer{})
		back(t, in, &voucherBody{})
		back(t, in, &welcomeBody{})
		back(t, in, &welcomeAnswer{})
		back(t, in, &descriptorAnswer{})
	})
}

// end is one end of a stream whose answers may be changed on the way.
type end struct {
	io.Reader
	io.Writer
	change func(*answer)
	read   int
	left   bytes.Buffer
}

func pipe() (ours *end, theirs io.ReadWriter) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return &end{Reader: r1, Writer: w2}, struct {
		io.Reader
		io.Writer
	}{r2, w1}
}

// Read gives whole messages: the first is the challenge, the second the answer.
func (e *end) Read(b []byte) (int, error) {
	if e.left.Len() == 0 {
		e.read++
		raw, err := readFrame(e.Reader, maxAnswer)
		if err != nil {
			return 0, err
		}
		var a answer
		if e.read == 2 && space.Unmarshal(raw, &a) == nil {
			e.change(&a)
			if raw, err = space.Marshal(a); err != nil {
				return 0, err
			}
		}
		if err := writeFrame(&e.left, raw); err != nil {
			return 0, err
		}
	}
	return e.left.Read(b)
}
