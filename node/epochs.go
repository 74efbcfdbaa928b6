package node

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// adopt takes the keys of the epoch that a control entry opens, if they are
// sealed to us and here. If not, the space goes on without them until somebody
// brings them: see lacks.
func (c *change) adopt(next *control.State, rot *control.Rotation) {
	a := c.a
	if _, in := a.standing(next); !in {
		return
	}
	e, err := a.unwrap(next, rot)
	if err != nil {
		a.log.Info("a new epoch whose keys are not here yet", "epoch", next.Epoch, "err", err)
		return
	}
	c.adopted = append(c.adopted, e)
}

// unwrap opens this member's wrap of an epoch and checks it against the log.
func (a *actor) unwrap(st *control.State, rot *control.Rotation) (*epoch, error) {
	if m, _ := st.Member(a.self.c); m.Level < space.LevelRead && a.sentBy(st) != ([32]byte{}) {
		return a.unwrapSent(st, rot)
	}
	w, err := a.wrapOf(st, rot, a.self.c)
	if err != nil {
		return nil, err
	}
	puk, err := a.self.pukOf(w.PUKGen)
	if err != nil {
		return nil, err
	}
	x := seal.WrapContext{SpaceID: a.sid, Epoch: rot.Epoch.N, C: a.self.c}
	keys, err := seal.Unwrap(puk, x, rot.Epoch.KID, w.Sealed)
	if err != nil {
		return nil, err
	}
	inner, err := openInner(a.sid, keys, rot.Epoch)
	if err != nil {
		return nil, err
	}
	issuer := inner.Issuer()
	e := &epoch{n: rot.Epoch.N, id: envelope.TopicOf(issuer), keys: keys}
	for _, w := range rot.Issuers {
		if w.C != a.self.c {
			continue
		}
		puk, err := a.self.pukOf(w.PUKGen)
		if err != nil {
			return nil, err
		}
		iss, err := seal.UnwrapIssuer(puk, x, issuer, w.Sealed)
		if err != nil {
			return nil, err
		}
		e.iss = &iss
	}
	return e, a.certifySelf(st, e)
}

// takeIssuer takes the issuer of the epoch in force that an entry hands to
// this member. Without it the member asks others as before.
func (c *change) takeIssuer(body any) {
	var box []byte
	switch b := body.(type) {
	case control.KeeperSet:
		if b.C == c.a.self.c {
			box = b.Issuer
		}
	case control.Transfer:
		if b.C == c.a.self.c {
			box = b.Issuer
		}
	}
	if len(box) == 0 {
		return
	}
	e, err := c.a.withIssuer(c.control(), box)
	if err != nil {
		c.a.log.Warn("the issuer that was handed on does not open", "err", err)
		return
	}
	c.adopted = append(c.adopted, e)
}

// withIssuer is the epoch in force with its issuer.
func (a *actor) withIssuer(st *control.State, box []byte) (*epoch, error) {
	if a.now == nil || a.now.n != st.Epoch {
		return nil, space.ErrNoKey
	}
	inner, err := a.inner(st, a.now)
	if err != nil {
		return nil, err
	}
	issuer := inner.Issuer()
	x := seal.WrapContext{SpaceID: a.sid, Epoch: a.now.n, C: a.self.c}
	for puk := a.self.ownPUK(); ; {
		iss, err := seal.UnwrapIssuer(puk, x, issuer, box)
		if err == nil {
			e := *a.now
			e.iss = &iss
			return &e, a.certifySelf(st, &e)
		}
		if puk, err = puk.Previous(a.self.ownState()); err != nil {
			return nil, err
		}
	}
}

// inner reads what the log says to those of an epoch alone.
func (a *actor) inner(st *control.State, e *epoch) (control.EpochInner, error) {
	at, ok := st.Opened(e.n)
	if !ok {
		return control.EpochInner{}, space.ErrUnavailable
	}
	raw, ok, err := a.rawControl(at.Seq)
	if err != nil || !ok {
		return control.EpochInner{}, errors.Join(err, space.ErrUnavailable)
	}
	entry, err := control.Parse(raw)
	if err == nil {
		err = entry.Open(bytesOf(a.lockedControlKey(e.n - 1)))
	}
	if err != nil {
		return control.EpochInner{}, err
	}
	body, ok := epochOf(entry)
	if !ok {
		return control.EpochInner{}, space.ErrMalformed
	}
	return openInner(a.sid, e.keys, body)
}

// certifySelf gives who may admit a certificate without asking anybody.
func (a *actor) certifySelf(st *control.State, e *epoch) error {
	if e.iss == nil || !st.MayWrite(a.self.c, e.n) {
		return nil
	}
	cred, err := certify(*e.iss, a.self, time.Now())
	if err == nil {
		e.cred = &cred
	}
	return err
}

var (
	// errNoPage: the wrap page that holds a reader's key is not here.
	errNoPage = fmt.Errorf("wrap page: %w", space.ErrNoKey)
	// errNoWrap: the epoch is not wrapped to somebody.
	errNoWrap = fmt.Errorf("no wrap: %w", space.ErrNoKey)
)

// wrapOf finds the wrap for a reader, inline or on its page.
func (a *actor) wrapOf(st *control.State, rot *control.Rotation, c identity.Commitment) (control.Wrap, error) {
	wraps := rot.Epoch.Wraps
	if len(wraps) == 0 {
		hash, ok := ownPage(st, rot, c)
		if !ok {
			return control.Wrap{}, space.ErrNotMember
		}
		box, err := a.page(hash)
		if err != nil {
			return control.Wrap{}, err
		}
		plain, err := seal.OpenObject(a.controlKey(rot.Epoch.N-1), a.sid, rot.Epoch.N, box)
		if err != nil {
			return control.Wrap{}, err
		}
		if wraps, err = control.DecodePage(plain); err != nil {
			return control.Wrap{}, err
		}
	}
	for _, w := range wraps {
		if w.C == c {
			return w, nil
		}
	}
	return control.Wrap{}, errNoWrap
}

// layOut has the pages of an entry that is being appended where page finds
// them.
func (a *actor) layOut(pages []store.ObjectRow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pages = pages
}

// page is a wrap page: one of the entry that is being appended, or kept.
func (a *actor) page(hash [32]byte) ([]byte, error) {
	for _, p := range a.pages {
		if p.Hash == hash {
			return p.Data, nil
		}
	}
	box, ok, err := a.store.Object(hash)
	if err == nil && !ok {
		err = errNoPage
	}
	return box, err
}

// ownPage is the page on which c's wrap stands.
func ownPage(st *control.State, rot *control.Rotation, c identity.Commitment) ([32]byte, bool) {
	i := 0
	for w := range st.Readers() {
		if w.C == c {
			page := i / control.PageSlots
			if page >= len(rot.Epoch.Pages) {
				return [32]byte{}, false
			}
			return rot.Epoch.Pages[page], true
		}
		i++
	}
	return [32]byte{}, false
}

// openInner reads the inner body of an epoch and checks that the fetch key it
// names is the one of our keys.
func openInner(sid [32]byte, keys seal.Keys, e control.Epoch) (control.EpochInner, error) {
	var none control.EpochInner
	raw, err := seal.OpenInner(keys.Control(), sid, e.N, e.Inner)
	if err != nil {
		return none, err
	}
	inner, err := control.DecodeEpochInner(raw)
	if err != nil {
		return none, err
	}
	if !keys.Fetch().Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(inner.FetchPub[:])) {
		return none, fmt.Errorf("epoch %d: the log names another fetch key: %w", e.N, space.ErrForged)
	}
	return inner, nil
}

// hold takes an epoch, new or with more keys than before, among those of the
// space. mu is held.
func (a *actor) hold(e *epoch) {
	if have := a.epochs[e.id]; have != nil {
		e.topic = have.topic
	} else {
		e.topic = envelope.NewTopic(e.id)
		a.watch(e.topic)
	}
	for id, other := range a.epochs {
		if other.n == e.n && id != e.id {
			delete(a.epochs, id) // of an entry that is none of the log's
		}
	}
	a.epochs[e.id] = e
	for _, ch := range a.chains {
		if ch.epoch.id == e.id {
			ch.epoch = e
		}
	}
	if a.now == nil || e.n >= a.now.n {
		a.now = e
	}
}

// turn goes over to what a moved control log says: the chain of an epoch that
// is over ends, the new topic is heard, what counts no more is taken back.
func (a *actor) turn(adopted []*epoch) {
	for _, e := range adopted {
		a.out.opened(a, e)
	}
	if len(adopted) > 0 {
		a.endChain()
	}
	if !a.takesPart() {
		a.out.departed(a)
	}
	if a.lacks() {
		a.out.need(a)
	}
}

// endChain gives up the running chain; the next write begins another.
func (a *actor) endChain() {
	if a.writer != nil {
		a.writer.Close()
		a.writer = nil
	}
}

// lacks reports whether keys or a certificate that are this member's due are
// not here.
func (a *actor) lacks() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.lacksKeys() || a.lacksCredential()
}

// lacksKeys: a member without the keys of the epoch in force, or with those of
// a lower level than it has now. mu is held.
func (a *actor) lacksKeys() bool {
	level, in := a.standing(a.ctl)
	if !in || a.ctl.Deleted {
		return false
	}
	if a.now == nil || a.now.n < a.ctl.Epoch {
		return true
	}
	if level < space.LevelRead {
		return false
	}
	// Raised from reading itself: the keys it has now, and those of the epochs
	// in which it was raised already, are its due.
	for _, e := range a.epochs {
		due := e == a.now || a.ctl.LevelIn(a.self.c, e.n) >= space.LevelRead
		if _, err := e.keys.Group(); due && err != nil {
			return true
		}
	}
	return false
}

// lacksCredential: a member that may write without a certificate that lasts.
// mu is held.
func (a *actor) lacksCredential() bool {
	if a.ctl.Deleted || a.now == nil || a.now.n < a.ctl.Epoch || !a.writes() {
		return false
	}
	return a.now.cred == nil || time.Until(time.Unix(int64(a.now.cred.NotAfter()), 0)) < renewBefore
}

// writes reports whether this member may write as the log stands.
func (a *actor) writes() bool {
	level, _ := a.standing(a.ctl)
	m, _ := a.ctl.Member(a.self.c) // who is sent at read_self does not write
	return level >= space.LevelWrite || m.Level == space.LevelReadSelf && a.ctl.Policy.SelfWrites()
}

// controlKey is the key of the control log while epoch n lasts; zero if it is
// not here.
func (a *actor) controlKey(n uint64) seal.ControlKey {
	for _, e := range a.epochs {
		if e.n == n {
			return e.keys.Control()
		}
	}
	return a.closed[n]
}

// bodyKey is what opens the body of an entry that follows s; nil where the key
// is not here, or not needed.
func (c *change) bodyKey(s *control.State, e *control.Entry) []byte {
	for _, x := range c.adopted {
		if s != nil && x.n == s.Epoch {
			return x.keys.Control().Bytes()
		}
	}
	return c.a.keyAfter(s, e)
}

func bytesOf(k seal.ControlKey) []byte {
	if k.IsZero() {
		return nil
	}
	return k.Bytes()
}

// descending yields the epochs of the space from the newest on.
func (a *actor) descending() []*epoch {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.SortedFunc(maps.Values(a.epochs), func(x, y *epoch) int { return int(y.n) - int(x.n) })
}

// members yields the commitments of the roster: whose author keys a hello may
// be sealed under.
func members(st *control.State) iter.Seq[identity.Commitment] {
	return func(yield func(identity.Commitment) bool) {
		for m := range st.Members() {
			if m.Level == space.LevelReadSelf && !yield(m.C) {
				return
			}
		}
	}
}

// newKeys is a welcome to a space that is here already, checked against what
// is here of its log.
type newKeys struct {
	joined *joined
	reply  chan error // buffered
}

// handle takes the keys first: with them the entries can be read.
func (m *newKeys) handle(a *actor) {
	for _, e := range m.joined.epochs {
		if have := a.epochs[e.id]; have != nil && e.iss == nil {
			e.iss = have.iss // a welcome brings none
		}
	}
	err := a.takeKeys(m.joined.closed, m.joined.epochs...)
	if err == nil {
		var raws [][]byte
		for _, e := range m.joined.entries {
			raws = append(raws, e.Raw())
		}
		err = a.ingestControl(raws)
	}
	m.reply <- err
}

// takeKeys keeps new keys and reads with them what was closed until now.
func (a *actor) takeKeys(closed []closedRecord, epochs ...*epoch) error {
	if err := a.out.keepEpochs(a, closed, epochs...); err != nil {
		return diskError(err)
	}
	a.mu.Lock()
	if err := a.close(closed); err != nil {
		a.log.Error("take control keys", "err", err) // checked when they were made
	}
	for _, e := range epochs {
		a.hold(e)
	}
	a.mu.Unlock()
	var errs []error
	for _, e := range epochs {
		errs = append(errs, a.reread(e))
	}
	a.turn(epochs)
	a.retry()
	a.release()
	a.flushOutbox()
	return errors.Join(errs...)
}

// reread begins the chains of an epoch anew that lower keys had passed over.
func (a *actor) reread(e *epoch) error {
	c := a.begin()
	for head := range e.topic.Chains() {
		ch := a.chainOf(e, head)
		ch.reader = nil
		if ch.author == "" && ch.next > 0 {
			c.applied[ch] = position{}
		}
	}
	if len(c.applied) == 0 {
		return nil
	}
	return c.commit(store.Own)
}
