package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

var _ xrpc.Transfers = (*Node)(nil)

// ownDID is the DID of a space that is nobody's: a key made for it, which
// signs once, for its first authority. A did:key cannot be pointed elsewhere;
// who the authority is afterwards the log says.
type ownDID struct {
	key   *atcrypto.PrivateKeyK256
	did   space.DID
	proof [64]byte
}

func drawDID(authority identity.Commitment) (*ownDID, error) {
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		return nil, fmt.Errorf("draw a DID for the space: %w", err)
	}
	pub, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("draw a DID for the space: %w", err)
	}
	d := &ownDID{key: key, did: space.DID(pub.DIDKey())}
	d.proof, err = control.SignSpaceDID(key, d.did, authority)
	return d, err
}

// didKeyPrefix stands in the key file before the key of a space's own DID. It
// signs what the space says in its own name.
const didKeyPrefix = "did-"

func (n *Node) keepDID(sid [32]byte, d *ownDID) error {
	name := didKeyPrefix + strings.TrimPrefix(spaceKeyName(n.storeKey, sid), spaceKeyPrefix)
	return diskError(n.keys.Put(name, d.key.Bytes()))
}

// willingMeta marks a space of which the owner would be the next authority.
const willingMeta = "willing"

// AcceptTransfer says that the owner would be this space's next authority. The
// present one's node asks for the signature.
func (n *Node) AcceptTransfer(ctx context.Context, id space.ID) error {
	a, err := n.byID(id)
	if err != nil {
		return err
	}
	if a.id.Authority == a.control().Authority.DID {
		return fmt.Errorf("accept %s: %w", id, errNotItsOwn)
	}
	m := &setMeta{name: willingMeta, value: []byte{1}, reply: make(chan error, 1)}
	err, sendErr := ask(ctx, a, m, m.reply)
	return errors.Join(err, sendErr)
}

// errNotItsOwn: the address of the space is its authority's.
var errNotItsOwn = fmt.Errorf("the space lives under its authority's own DID, which nobody can hand over; create it with --own-did: %w", space.ErrUnsupported)

// setMeta changes a setting of the space.
type setMeta struct {
	name  string
	value []byte
	reply chan error // buffered
}

func (m *setMeta) handle(a *actor) {
	m.reply <- diskError(a.store.Commit(store.Own, &store.Batch{Meta: map[string][]byte{m.name: m.value}}))
}

// acceptance is what the next authority's node answers to an offer.
type acceptance struct {
	_      struct{} `cbor:",toarray"`
	Log    [][]byte
	Device []byte
	Sig    []byte
}

// accept signs for the owner's part of a transfer, if the owner is willing.
func (n *Node) accept(a *actor, to []byte) ([]byte, error) {
	_, willing, err := a.store.Meta(willingMeta)
	if err != nil || !willing || string(to) != string(n.self.c[:]) {
		return nil, errors.Join(err, space.ErrNotSequencer)
	}
	st := a.control()
	m, in := st.Member(n.self.c)
	if !in {
		return nil, space.ErrNotMember
	}
	sig := control.SignTransfer(n.self.device.Sig(), a.sid, st.Authority.C, m.C, m.Slot)
	dev := n.self.device.ID()
	return space.Marshal(acceptance{Log: n.self.ownLog(), Device: dev[:], Sig: sig[:]})
}

// Transfer makes another member the authority.
func (n *Node) Transfer(ctx context.Context, id space.ID, to space.DID) (xrpc.SpaceInfo, error) {
	a, err := n.byID(id)
	if err != nil {
		return xrpc.SpaceInfo{}, err
	}
	st := a.control()
	m, in := st.MemberByDID(to)
	switch {
	case st.Authority.C != n.self.c:
		return xrpc.SpaceInfo{}, fmt.Errorf("transfer %s: %w", id, space.ErrForbidden)
	case a.id.Authority == st.Authority.DID:
		return xrpc.SpaceInfo{}, fmt.Errorf("transfer %s: %w", id, errNotItsOwn)
	case !in:
		return xrpc.SpaceInfo{}, fmt.Errorf("transfer %s to %s: %w", id, to, space.ErrMemberNotFound)
	}
	yes, err := n.offer(ctx, a, m)
	if err != nil {
		return xrpc.SpaceInfo{}, fmt.Errorf("transfer %s to %s: nobody of theirs accepts; they say so with: kith space accept: %w", id, to, err)
	}
	who, err := identity.Verify(yes.Log)
	if err != nil {
		return xrpc.SpaceInfo{}, fmt.Errorf("transfer %s to %s: %w", id, to, err)
	}
	_, err = n.amend(ctx, a, named(to, func(st *control.State, m control.Member) (control.Kind, any, []store.ObjectRow, error) {
		body := control.Transfer{
			Slot: m.Slot, C: m.C, DID: m.DID, IdentityLog: yes.Log, Device: [32]byte(yes.Device), Accept: [64]byte(yes.Sig),
		}
		copy(body.AuthorityPub[:], who.SigPub)
		if old, _ := st.Keeper(m.Slot); !old.Caps.Has(control.CapAdmit) {
			e := a.current()
			if e.iss == nil {
				return 0, nil, nil, fmt.Errorf("hand on the issuer: %w", space.ErrNoKey)
			}
			w, err := a.wrapIssuerTo(m, e.n, *e.iss)
			if err != nil {
				return 0, nil, nil, err
			}
			body.Issuer = w.Sealed
		}
		return control.KindTransfer, body, nil, nil
	}))
	if err != nil {
		return xrpc.SpaceInfo{}, fmt.Errorf("transfer %s to %s: %w", id, to, err)
	}
	return a.info(), nil
}

// offer asks the next authority's nodes for their signature.
func (n *Node) offer(ctx context.Context, a *actor, m control.Member) (acceptance, error) {
	var yes acceptance
	req := proposeRequest{Have: a.control().Head.Seq, Offer: m.C[:]}
	v, err := n.askAround(ctx, a, a.current(), req.filled())
	if err != nil {
		return yes, err
	}
	if err := space.Unmarshal(v.Accept, &yes); err != nil {
		return yes, err
	}
	if len(yes.Device) != ed25519.PublicKeySize || len(yes.Sig) != ed25519.SignatureSize {
		return yes, space.ErrMalformed
	}
	return yes, nil
}
