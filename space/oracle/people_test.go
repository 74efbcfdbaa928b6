package oracle_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/oracle"
)

// person is somebody with devices, of whom the last per-user key of each
// generation is known to the world.
type person struct {
	name    string
	seed    [32]byte
	root    identity.Seed
	log     [][]byte
	state   identity.State
	devices []*device
	puks    []identity.PUK // by generation, from 1
	drew    [][]byte       // issuers of first epochs, which are sent to nobody
}

type device struct {
	identity.Device
	name    string
	revoked uint32 // the generation that came with its revocation; 0: live
}

// live is a device that acts for p.
func (p *person) live() *device {
	for _, d := range slices.Backward(p.devices) {
		if d.revoked == 0 {
			return d
		}
	}
	panic("a person without a device")
}

func (p *person) puk() identity.PUK { return p.puks[len(p.puks)-1] }

func (p *person) gen() uint32 { return uint32(len(p.puks)) }

// chance is a source of bytes that a seed decides.
func chance(seed uint64) *rand.ChaCha8 {
	var b [32]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	return rand.NewChaCha8(b)
}

var names = []string{"ann", "bob", "cai", "dee", "eve", "fay"}

// crowd is who a history begins with. Making an identity costs more than most
// histories; what happens to one afterwards happens to a copy.
var crowd = sync.OnceValue(func() []*person {
	rand := chance(1 << 63) // of no world
	var all []*person
	for _, name := range names {
		p := &person{name: name}
		rand.Read(p.seed[:])
		root, err := identity.NewSeed(bytes.NewReader(p.seed[:]))
		if err != nil {
			panic(err)
		}
		made, err := identity.New(rand, root, 1)
		if err != nil {
			panic(err)
		}
		p.root, p.log, p.state = root, made.Log, made.State
		p.puks = []identity.PUK{made.PUK}
		p.devices = []*device{{Device: made.Device, name: name + "/0"}}
		all = append(all, p)
	}
	return all
})

func (p *person) clone() *person {
	c := *p
	c.log, c.puks, c.devices = slices.Clip(p.log), slices.Clip(p.puks), nil
	for _, d := range p.devices {
		have := *d
		c.devices = append(c.devices, &have)
	}
	return &c
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// addDevice gives p one more device, and it the per-user key.
func (p *person) addDevice(rand *rand.ChaCha8) {
	d := &device{Device: must(identity.NewDevice(rand)), name: p.name + "/" + string(rune('0'+len(p.devices)))}
	by := p.live().Device
	raw, st, err := p.state.AddDevice(by, d.Device, identity.CapsAll, 1)
	p.log, p.state = append(p.log, must(raw, err)), st
	raw, puk, st, err := p.state.RotatePUK(rand, by, p.puk(), 1)
	p.log, p.state, p.puks = append(p.log, must(raw, err)), st, append(p.puks, puk)
	p.devices = append(p.devices, d)
}

// revokeDevice ends d; careless leaves the next per-user key to it all the same.
func (p *person) revokeDevice(rand *rand.ChaCha8, d *device, careless bool) {
	if careless {
		raw, puk, st, err := p.state.RotatePUK(rand, p.live().Device, p.puk(), 1)
		p.log, p.state, p.puks = append(p.log, must(raw, err)), st, append(p.puks, puk)
		d.revoked = p.gen()
		return
	}
	d.revoked = p.gen() + 1
	raw, puk, st, err := p.state.RevokeDevice(rand, p.live().Device, d.ID(), p.puk(), 1)
	p.log, p.state, p.puks = append(p.log, must(raw, err)), st, append(p.puks, puk)
}

// items are the ciphertexts in p's identity log. It notes whom they are for.
func (p *person) items(whose map[string][]byte) []*oracle.Item {
	kems := map[[32]byte][]byte{p.state.C: p.state.KEMPub}
	for _, d := range p.devices {
		kems[d.ID()] = d.KEMPublic()
	}
	items := oracle.IdentityLog(p.log)
	for _, it := range items {
		if it.HPKE {
			whose[string(it.Info)] = kems[[32]byte(it.Info[len(it.Info)-32:])]
		}
	}
	return items
}

// hold gives a what d holds: its own keys, nothing else. What it was sent it
// finds itself.
func (d *device) hold(a *oracle.Attacker) {
	b := d.Marshal()
	a.Hold(b[1:33], oracle.AsOther)
	a.Hold(b[33:65], oracle.AsKEM)
	a.Hold(b[65:97], oracle.AsOther)
}
