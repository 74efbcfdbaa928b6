package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/identity"
)

// Stranger is somebody on a roster whose node does not run.
type Stranger struct {
	C    identity.Commitment
	DID  space.DID
	Head [32]byte
	Log  [][]byte
}

// NewStranger makes one.
func NewStranger() (Stranger, error) {
	seed, err := identity.NewSeed(rand.Reader)
	if err != nil {
		return Stranger{}, err
	}
	made, err := identity.New(rand.Reader, seed, 1)
	return Stranger{made.State.C, made.State.DID, made.State.Head, made.Log}, err
}

// Plant makes a space of the first node's in which the other nodes and the
// strangers are members, as if they had joined one after the other, and gives
// each node the peers that come after it in the list.
func Plant(nodes []*Node, strangers []Stranger, peers int) (space.ID, error) {
	a := nodes[0]
	id := space.ID{Authority: a.self.did, Type: "com.example.forum", Key: "crowd"}
	now := time.Now()
	f, err := found(a.self, id, "crowd", space.DefaultPolicy(), nil, nil, now)
	if err != nil {
		return id, err
	}
	for _, n := range nodes[1:] {
		st := n.self.ownState()
		strangers = append(strangers, Stranger{st.C, st.DID, st.Head, n.self.ownLog()})
	}
	for i, s := range strangers {
		add := control.MemberAdd{Slot: uint32(i + 1), C: s.C, DID: s.DID, Level: space.LevelWrite, ILHead: s.Head}
		if err := f.commit(a.self, control.KindMemberAdd, add, now); err != nil {
			return id, fmt.Errorf("member %d: %w", i, err)
		}
		a.learn(s.C, s.Head, s.Log)
	}
	first, err := f.rec.Epochs[0].open(a.self.c)
	if err != nil {
		return id, err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(nodes))
	for i, n := range nodes {
		for k := range peers {
			if other := nodes[(i+1+k*k)%len(nodes)]; other != n {
				n.book.learn([32]byte(f.rec.Space), peer.AddrInfo{ID: other.host.ID(), Addrs: other.host.Addrs()})
			}
		}
		wg.Go(func() { errs[i] = f.plant(n, *first, n == a, now) })
	}
	wg.Wait()
	return id, errors.Join(errs...)
}

// plant puts the space into a home; the issuer goes to the founder alone.
func (f *founding) plant(n *Node, e epoch, founder bool, now time.Time) error {
	cred, err := certify(*e.iss, n.self, now)
	if err != nil {
		return err
	}
	e.cred = &cred
	if !founder {
		e.iss = nil
	}
	rec := f.rec
	rec.DEK, rec.Epochs = newDEK(), []epochRecord{e.record()}
	_, err = n.keep(rec, f.entries, nil)
	return err
}

// commit appends an entry of the founder's to a space that runs nowhere yet.
func (f *founding) commit(s *self, k control.Kind, body any, now time.Time) error {
	first, err := f.rec.Epochs[0].open(s.c)
	if err != nil {
		return err
	}
	keys := control.BuildKeys{Proposer: s.device.Sig(), Sequencer: s.device.Sig(), CK: first.keys.Control().Bytes()}
	e, err := control.Build(f.state, k, body, keys, now.UnixMilli(), rand.Reader)
	if err != nil {
		return err
	}
	if f.state, err = control.Apply(f.state, e); err != nil {
		return err
	}
	f.entries = append(slices.Clip(f.entries), e)
	return nil
}
