package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/seal"
)

// A rotation is drawn by whoever proposes it, outside of the actor: ten
// thousand wraps take seconds. It fits one state of the log; if the log has
// moved when it is committed, it is drawn again.

// rotation is the body of a new epoch, and the pages it names.
type rotation struct {
	body  *control.Rotation
	pages []store.ObjectRow
}

// rotate draws the keys of the epoch after st and wraps them to everybody who
// reads once the entry of that kind is applied. ended are members whose chains
// end though they stay; those who are removed or lowered end anyway.
func (a *actor) rotate(st *control.State, kind control.Kind, body any, ended []identity.Commitment) (*rotation, error) {
	relays, err := a.relays(st)
	if err != nil {
		return nil, fmt.Errorf("rotate: the relays of epoch %d: %w", st.Epoch, err)
	}
	return a.rotateTo(st, kind, body, ended, relays)
}

// rotateTo is rotate to an epoch that names these relays.
func (a *actor) rotateTo(st *control.State, kind control.Kind, body any, ended []identity.Commitment, relays []string) (*rotation, error) {
	next, err := control.Preview(st, kind, body)
	if err != nil {
		return nil, err
	}
	gk, err := seal.NewGroupKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	iss, err := seal.NewIssuer(rand.Reader)
	if err != nil {
		return nil, err
	}
	n := st.Epoch + 1
	rot := &rotation{body: &control.Rotation{Ended: ended}}
	rot.body.Epoch = control.Epoch{N: n, KID: gk.KID(), RosterRoot: next.RosterRoot()}
	if rot.body.Epoch.Inner, err = a.sealInner(st, n, gk, iss, relays); err != nil {
		return nil, err
	}
	a.out.acquaint(a, strangers(next, a.out))
	wraps, err := a.wrapAll(next, n, seal.Full(gk))
	if err != nil {
		return nil, err
	}
	if len(wraps) <= control.MaxInlineWraps {
		rot.body.Epoch.Wraps = wraps
	} else if rot.pages, err = a.sealPages(n, wraps); err != nil {
		return nil, err
	}
	for _, p := range rot.pages {
		rot.body.Epoch.Pages = append(rot.body.Epoch.Pages, p.Hash)
	}
	if rot.body.Issuers, err = a.wrapIssuer(next, n, iss); err != nil {
		return nil, err
	}
	rot.body.Epoch.Cuts, err = a.cuts(ends(st, next, ended), endsVia(body))
	return rot, err
}

// ends are the members whose chains a rotation ends: those who are gone or may
// not write any more, and those named.
func ends(st, next *control.State, named []identity.Commitment) map[identity.Commitment]bool {
	out := map[identity.Commitment]bool{}
	for _, c := range named {
		out[c] = true
	}
	for m := range st.Members() {
		if after, in := next.Member(m.C); !in || after.Level < m.Level {
			out[m.C] = true
		}
	}
	return out
}

// sealInner is what only those of the new epoch may read.
func (a *actor) sealInner(st *control.State, n uint64, gk seal.GroupKey, iss seal.Issuer, relays []string) ([]byte, error) {
	before := a.lockedControlKey(n - 1)
	if before.IsZero() {
		return nil, fmt.Errorf("rotate: the keys of epoch %d: %w", n-1, space.ErrNoKey)
	}
	inner := control.EpochInner{
		IssuerPub: [32]byte(iss.Public()), FetchPub: [32]byte(gk.Fetch().Public().(ed25519.PublicKey)),
		Relays: relays,
	}
	desc := describeTopic(iss, gk.Fetch().Public().(ed25519.PublicKey), time.Now())
	inner.Descriptor = desc[:]
	var err error
	if inner.CtlLink, err = seal.LinkControl(rand.Reader, gk.Control(), before, a.sid, n); err != nil {
		return nil, err
	}
	if st.Policy.History == space.HistoryFull {
		if old, keyErr := a.current().keys.Group(); keyErr == nil {
			if inner.PrevLink, err = seal.LinkGroup(rand.Reader, gk, old, a.sid, n); err != nil {
				return nil, err
			}
		}
	}
	b, err := inner.Encode()
	if err != nil {
		return nil, err
	}
	return seal.SealInner(rand.Reader, gk.Control(), a.sid, n, b)
}

// wrapAll wraps an epoch's keys to every reader, each in the amount of its
// level, on all cores.
func (a *actor) wrapAll(next *control.State, n uint64, keys seal.Keys) ([]control.Wrap, error) {
	readers := slices.Collect(next.Readers())
	wraps := make([]control.Wrap, len(readers))
	errs := make([]error, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	var taken atomic.Int64 // a core that is busy with something else takes fewer
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(taken.Add(1)) - 1
				if i >= len(readers) {
					return
				}
				wraps[i], errs[w] = a.wrapOne(next, readers[i], n, keys)
			}
		})
	}
	wg.Wait()
	return wraps, errors.Join(errs...)
}

func (a *actor) wrapOne(next *control.State, r control.Reader, n uint64, keys seal.Keys) (control.Wrap, error) {
	if r.Delegation {
		return a.wrapChild(next, r, n, keys)
	}
	who, ok := a.out.identity(r.C)
	if !ok {
		return control.Wrap{}, fmt.Errorf("wrap to member %s: no identity log of it here: %w", fingerprint(r.C), space.ErrUnavailable)
	}
	if r.Level == space.LevelReadSelf {
		var err error
		if keys, err = keys.Self(r.C); err != nil {
			return control.Wrap{}, err
		}
	}
	sealed, err := seal.Wrap(who.PUK, seal.WrapContext{SpaceID: a.sid, Epoch: n, C: r.C}, keys)
	return control.Wrap{Slot: r.Slot, C: r.C, PUKGen: who.PUK.Gen, Sealed: sealed}, err
}

// sealPages puts wraps on pages, sealed under the key of the epoch that ends.
func (a *actor) sealPages(n uint64, wraps []control.Wrap) ([]store.ObjectRow, error) {
	ck := a.lockedControlKey(n - 1)
	var pages []store.ObjectRow
	for page := range slices.Chunk(wraps, control.PageSlots) {
		plain, err := control.EncodePage(page)
		if err != nil {
			return nil, err
		}
		box, err := seal.SealObject(rand.Reader, ck, a.sid, n, plain)
		if err != nil {
			return nil, err
		}
		pages = append(pages, store.ObjectRow{Hash: seal.ObjectName(box), Data: box})
	}
	return pages, nil
}

// wrapIssuer wraps the new issuer to everybody who may admit.
func (a *actor) wrapIssuer(next *control.State, n uint64, iss seal.Issuer) ([]control.Wrap, error) {
	var out []control.Wrap
	for m := range next.Admitters() {
		w, err := a.wrapIssuerTo(m, n, iss)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

func (a *actor) wrapIssuerTo(m control.Member, n uint64, iss seal.Issuer) (control.Wrap, error) {
	who, ok := a.out.identity(m.C)
	if !ok {
		return control.Wrap{}, fmt.Errorf("wrap to keeper %s: no identity log of it here: %w", m.DID, space.ErrUnavailable)
	}
	sealed, err := seal.WrapIssuer(who.PUK, seal.WrapContext{SpaceID: a.sid, Epoch: n, C: m.C}, iss)
	return control.Wrap{Slot: m.Slot, C: m.C, PUKGen: who.PUK.Gen, Sealed: sealed}, err
}

// cuts are the last envelopes that count of all chains of some members.
func (a *actor) cuts(of map[identity.Commitment]bool, via map[[32]byte]bool) ([]control.Cut, error) {
	if len(of)+len(via) == 0 {
		return nil, nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	var out []control.Cut
	for _, ch := range a.chains {
		if !of[ch.c] && !via[ch.via] {
			continue
		}
		if ch.via != ([32]byte{}) && boundOf(a.ctl, &ch.position, ch.epoch.n, ch.id).Bounded {
			continue // the first rotation about a child decides
		}
		if head, ok := ch.epoch.topic.Chain(ch.id); ok && head.Length > 0 {
			out = append(out, control.Cut{Chain: ch.id, Seq: head.Head.Seq, ID: head.Head.ID})
		}
	}
	if len(out) > control.MaxCuts {
		return nil, fmt.Errorf("cut %d chains, at most %d: %w", len(out), control.MaxCuts, space.ErrTooLarge)
	}
	slices.SortFunc(out, func(x, y control.Cut) int { return bytes.Compare(x.Chain[:], y.Chain[:]) })
	return out, nil
}

// wrapChild wraps the group key to a space that is a member: to the key that
// its descriptor names.
func (a *actor) wrapChild(next *control.State, r control.Reader, n uint64, keys seal.Keys) (control.Wrap, error) {
	d, ok := next.Delegation(r.Child)
	if !ok {
		return control.Wrap{}, fmt.Errorf("wrap to space %s: %w", fingerprint(r.Child), space.ErrMalformed)
	}
	gk, err := keys.Group()
	if err != nil {
		return control.Wrap{}, err
	}
	x := seal.DelegateContext{Parent: a.sid, Epoch: n, Child: r.Child, ChildEpoch: d.Descriptor.Epoch}
	sealed, err := seal.WrapDelegate(d.Descriptor.Delegate, x, gk)
	return control.Wrap{
		Slot: r.Slot, C: identity.Commitment(r.Child), PUKGen: uint32(d.Descriptor.Epoch), Sealed: sealed,
	}, err
}

// strangers are the members whose identity log is not here: another keeper let
// them in, and they have not written yet.
func strangers(st *control.State, d directory) (out []control.Member) {
	for m := range st.Members() {
		if _, known := d.identity(m.C); !known {
			out = append(out, m)
		}
	}
	return out
}
