package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/seal"
)

// founding is a space that exists nowhere yet: its first two control entries
// and the keys they speak of.
type founding struct {
	rec     spaceRecord
	entries []*control.Entry
	state   *control.State
}

// found makes the genesis and the first epoch of a space of s's own. Nothing
// is stored; randomness is drawn here.
func found(s *self, id space.ID, name string, policy space.Policy, own *ownDID, relays []string, now time.Time) (*founding, error) {
	sign := control.BuildKeys{Proposer: s.device.Sig(), Sequencer: s.device.Sig()}
	body := control.Genesis{
		URI: id.AT(), SpaceDID: id.Authority, AuthorityC: s.c, AuthorityDID: s.did, CreatorDID: s.did,
		IdentityLog: s.ownLog(), AuthorityPub: [32]byte(s.ownState().SigPub), SequencerPub: s.device.ID(), Policy: policy,
	}
	if own != nil {
		body.SpaceProof = &own.proof
	}
	genesis, err := control.BuildGenesis(body, sign, now.UnixMilli(), rand.Reader)
	if err != nil {
		return nil, err
	}
	state, err := control.Apply(nil, genesis)
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
	first, err := firstEpoch(s, state, gk, iss, relays, now)
	if err != nil {
		return nil, err
	}
	epoch1, err := control.Build(state, control.KindEpoch, first, sign, now.UnixMilli(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if state, err = control.Apply(state, epoch1); err != nil {
		return nil, err
	}
	cred, err := certify(iss, s, now)
	if err != nil {
		return nil, err
	}
	e := &epoch{n: 1, id: iss.Topic(), keys: seal.Full(gk), iss: &iss, cred: &cred}
	return &founding{
		rec:     spaceRecord{ID: id, Space: state.SpaceID[:], Name: name, DEK: newDEK(), Epochs: []epochRecord{e.record()}},
		entries: []*control.Entry{genesis, epoch1}, state: state,
	}, nil
}

// firstEpoch is the body of the entry that makes a space writable: its outer
// part in clear, the key wrapped to the founder alone.
func firstEpoch(s *self, state *control.State, gk seal.GroupKey, iss seal.Issuer, relays []string, now time.Time) (control.Epoch, error) {
	puk := s.ownState().PUK
	wrap, err := seal.Wrap(puk, seal.WrapContext{SpaceID: state.SpaceID, Epoch: 1, C: s.c}, seal.Full(gk))
	if err != nil {
		return control.Epoch{}, err
	}
	fetch := gk.Fetch().Public().(ed25519.PublicKey)
	desc := describeTopic(iss, fetch, now)
	inner, err := control.EpochInner{
		IssuerPub: [32]byte(iss.Public()), FetchPub: [32]byte(fetch), Relays: relays, Descriptor: desc[:],
	}.Encode()
	if err != nil {
		return control.Epoch{}, err
	}
	box, err := seal.SealInner(rand.Reader, gk.Control(), state.SpaceID, 1, inner)
	if err != nil {
		return control.Epoch{}, err
	}
	return control.Epoch{
		N: 1, KID: gk.KID(), RosterRoot: state.RosterRoot(), Inner: box,
		Wraps: []control.Wrap{{Slot: 0, C: s.c, PUKGen: puk.Gen, Sealed: wrap}},
	}, nil
}

// The quota classes: members write at most 1,000 envelopes a second, those whom
// nobody let in one.
const (
	memberClass = 2
	publicClass = 0
)

// certify gives the issuer's own device a writer key.
func certify(iss seal.Issuer, s *self, now time.Time) (seal.Credential, error) {
	w, err := seal.NewWriterKey(rand.Reader)
	if err != nil {
		return seal.Credential{}, err
	}
	return seal.Credential{
		Grant:   iss.Grant(w.Public(), memberClass, uint64(now.Add(certLife).Unix())),
		Voucher: iss.Vouch(w.Public(), s.c), Writer: w,
	}, nil
}

// announce puts the founding entries into the founder's own chain, as
// everything the control log ever says travels.
type announce struct {
	entries []*control.Entry
	reply   chan error
}

func (m *announce) handle(a *actor) {
	c := a.begin()
	err := a.broken
	for _, e := range m.entries {
		if err != nil {
			break
		}
		err = a.sealControl(c, e)
	}
	if err == nil {
		err = a.commitOwn(c)
	}
	m.reply <- err
	a.flushOutbox()
}

// sealControl makes an entry of the log an envelope of our own chain.
func (a *actor) sealControl(c *change, e *control.Entry) error {
	if err := a.openChain(c); err != nil {
		return err
	}
	envs, err := a.writer.Seal(rand.Reader, envelope.Control, e.Raw())
	if err != nil {
		return fmt.Errorf("seal control entry: %w", err)
	}
	c.sealed = append(c.sealed, envs...)
	return nil
}
