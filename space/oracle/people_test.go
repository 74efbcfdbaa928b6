package oracle_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
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

// The identity log as an attacker reads it: see package identity.
type (
	logEntry struct {
		_      struct{} `cbor:",toarray"`
		Ver    uint64
		C      [32]byte
		Seq    uint64
		Prev   [32]byte
		Kind   uint8
		Body   []byte
		TimeMs int64
		Signer [32]byte
		Sig    [64]byte
	}
	pukBody struct {
		_     struct{} `cbor:",toarray"`
		Gen   uint32
		KEM   []byte
		DH    []byte
		Root  []byte
		Wraps []pukWrap
		Prev  []byte
	}
	pukWrap struct {
		_      struct{} `cbor:",toarray"`
		Device [32]byte
		Sealed []byte
	}
	revokeBody struct {
		_      struct{} `cbor:",toarray"`
		Device [32]byte
		PUK    pukBody
	}
)

// items are the ciphertexts in p's identity log.
func (p *person) items() []*item {
	var out []*item
	kems := map[[32]byte][]byte{}
	for _, d := range p.devices {
		kems[d.ID()] = d.KEMPublic()
	}
	for _, raw := range p.log {
		var e logEntry
		if err := space.Unmarshal(raw, &e); err != nil {
			panic(err)
		}
		var b pukBody
		switch identity.Kind(e.Kind) {
		case identity.KindPUK:
			if err := space.Unmarshal(e.Body, &b); err != nil {
				panic(err)
			}
		case identity.KindRevokeDevice:
			var r revokeBody
			if err := space.Unmarshal(e.Body, &r); err != nil {
				panic(err)
			}
			b = r.PUK
		default:
			continue
		}
		gen := binary.BigEndian.AppendUint32(nil, b.Gen)
		info := func(kind byte, id [32]byte) []byte {
			return space.LabelPUKWrap.Message(e.C[:], gen, []byte{kind}, id[:])
		}
		out = append(out, wrapped("", asSeed, p.state.KEMPub, info(0, e.C), b.Root, gives(asPUK)))
		for _, w := range b.Wraps {
			out = append(out, wrapped("", asKEM, kems[w.Device], info(1, w.Device), w.Sealed, gives(asPUK)))
		}
		if len(b.Prev) > 0 {
			out = append(out, boxed("", asPUK, derived(space.LabelPUKPrev), append(e.C[:], gen...), b.Prev, gives(asPUK)))
		}
	}
	return out
}

// hold gives a what d holds: its own keys, nothing else. What it was sent it
// finds itself.
func (d *device) hold(a *attacker) {
	b := d.Marshal()
	a.hold(b[1:33], asOther)
	a.hold(b[33:65], asKEM)
	a.hold(b[65:97], asOther)
}
