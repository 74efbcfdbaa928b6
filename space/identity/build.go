package identity

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
)

// Created is an identity as one device holds it. The seed is not in it.
type Created struct {
	Log    [][]byte
	Device Device
	PUK    PUK
	DIDKey *atcrypto.PrivateKeyK256
	State  State
}

// New begins the log of a seed: genesis, bind-did to the seed's did:key, a
// device with every capability, and the first per-user key.
//
// The DID's signature is drawn by the K-256 library and the wraps by HPKE, so
// two calls agree on genesis alone.
func New(rand io.Reader, seed Seed, nowMillis int64) (Created, error) {
	raw, err := Genesis(seed)
	if err != nil {
		return Created{}, err
	}
	s, err := Verify([][]byte{raw})
	if err != nil {
		return Created{}, err
	}
	log := [][]byte{raw}
	key := DIDKey(seed)
	if raw, s, err = s.BindDID(seed, key, nowMillis); err != nil {
		return Created{}, err
	}
	return enrol(rand, seed, append(log, raw), s, PUK{}, nowMillis)
}

// Recover makes a new device for the seed whose log this is, and rotates the
// per-user key to it. The log must be whole: a device that extends a prefix
// forks its own identity. What needs no log comes from the seed alone: its
// Commitment, its DIDKey.
func Recover(rand io.Reader, seed Seed, log [][]byte, nowMillis int64) (Created, error) {
	s, err := Verify(log)
	if err != nil {
		return Created{}, fmt.Errorf("recover: %w", err)
	}
	if s.C != seed.Commitment() {
		return Created{}, fmt.Errorf("recover: %w: the log is another seed's", space.ErrForbidden)
	}
	var before PUK
	if s.PUK.Gen > 0 {
		if before, err = UnwrapPUK(seed, s); err != nil {
			return Created{}, fmt.Errorf("recover: %w", err)
		}
	}
	c, err := enrol(rand, seed, cloneLog(log), s, before, nowMillis)
	if err != nil {
		return Created{}, fmt.Errorf("recover: %w", err)
	}
	return c, nil
}

// enrol adds a new device and rotates the per-user key to it.
func enrol(rand io.Reader, seed Seed, log [][]byte, s State, before PUK, nowMillis int64) (Created, error) {
	dev, err := NewDevice(rand)
	if err != nil {
		return Created{}, err
	}
	added, s, err := s.AddDevice(seed, dev, CapsAll, nowMillis)
	if err != nil {
		return Created{}, err
	}
	rotated, puk, s, err := s.RotatePUK(rand, seed, before, nowMillis)
	if err != nil {
		return Created{}, err
	}
	return Created{Log: append(log, added, rotated), Device: dev, PUK: puk, DIDKey: DIDKey(seed), State: s}, nil
}

func cloneLog(log [][]byte) [][]byte {
	out := make([][]byte, len(log))
	for i := range log {
		out[i] = bytes.Clone(log[i])
	}
	return out
}

// Genesis is the first entry of the seed's log, the same bytes at every call.
func Genesis(seed Seed) ([]byte, error) {
	k := seed.keys()
	pub := k.sig.Public().(ed25519.PublicKey)
	body, err := space.Marshal(&genesisBody{Sig: [32]byte(pub), KEM: k.kem.PublicKey().Bytes()})
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	raw, err := encodeEntry(&entry{Ver: version, C: k.c, Kind: KindGenesis, Body: body, Signer: [32]byte(pub)}, k.sig)
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	return raw, nil
}

// BindDID makes the entry that binds the did:key of key, and the state after it.
func (s State) BindDID(seed Seed, key atcrypto.PrivateKey, nowMillis int64) ([]byte, State, error) {
	pub, err := key.PublicKey()
	if err != nil {
		return nil, State{}, fmt.Errorf("bind-did: %w", err)
	}
	did, err := space.ParseDID(pub.DIDKey())
	if err != nil {
		return nil, State{}, fmt.Errorf("bind-did: %w", err)
	}
	proof, err := key.HashAndSign(BindMessage(s.C, did))
	if err != nil {
		return nil, State{}, fmt.Errorf("bind-did: %w", err)
	}
	b := &bindBody{DID: did}
	copy(b.Proof[:], proof)
	return s.next(seed, KindBindDID, b, nowMillis)
}

// AddDevice makes the entry that enrols dev, and the state after it. by is the
// seed or a live device with CapEnroll. The per-user key does not reach dev
// before the next RotatePUK.
func (s State) AddDevice(by Key, dev Device, caps Caps, nowMillis int64) ([]byte, State, error) {
	b := &deviceBody{Sig: dev.ID(), KEM: dev.KEMPublic(), DH: dev.DH().PublicKey().Bytes(), Caps: caps}
	copy(b.Pop[:], space.Sign(dev.Sig(), space.LabelDevicePop, popParts(s.C, b)...))
	return s.next(by, KindAddDevice, b, nowMillis)
}

// RotatePUK makes the entry of the next per-user key, wrapped to every live
// device and the seed, and the state after it. before is the current one, zero
// if there is none; the entry seals it under the new one.
func (s State) RotatePUK(rand io.Reader, by Key, before PUK, nowMillis int64) ([]byte, PUK, State, error) {
	if s.PUK.Gen > 0 && (before.IsZero() || !before.Public().Equal(s.PUK)) {
		return nil, PUK{}, State{}, fmt.Errorf("puk: %w: not the current generation, %d", space.ErrNoKey, s.PUK.Gen)
	}
	p, err := newPUK(rand, s.PUK.Gen+1)
	if err != nil {
		return nil, PUK{}, State{}, err
	}
	b, err := s.pukBody(rand, p, before)
	if err != nil {
		return nil, PUK{}, State{}, err
	}
	raw, next, err := s.next(by, KindPUK, b, nowMillis)
	if err != nil {
		return nil, PUK{}, State{}, err
	}
	return raw, p, next, nil
}

// RevokeDevice makes the one entry that ends a device and brings the next
// per-user key, wrapped to the devices that remain and to the seed, and the
// state after it. by is the seed or another device with CapEnroll; before is
// the current key. The last device cannot be revoked: recover first.
func (s State) RevokeDevice(rand io.Reader, by Key, dev DeviceID, before PUK, nowMillis int64) ([]byte, PUK, State, error) {
	if s.PUK.Gen == 0 || before.IsZero() || !before.Public().Equal(s.PUK) {
		return nil, PUK{}, State{}, fmt.Errorf("revoke-device: %w: not the current generation, %d", space.ErrNoKey, s.PUK.Gen)
	}
	if _, live := s.Devices[dev]; !live {
		return nil, PUK{}, State{}, fmt.Errorf("revoke-device: %w: %x… is no live device", space.ErrMalformed, dev[:4])
	}
	p, err := newPUK(rand, s.PUK.Gen+1)
	if err != nil {
		return nil, PUK{}, State{}, err
	}
	rest := s.clone()
	delete(rest.Devices, dev)
	b, err := rest.pukBody(rand, p, before)
	if err != nil {
		return nil, PUK{}, State{}, err
	}
	raw, next, err := s.next(by, KindRevokeDevice, &revokeBody{Device: dev, PUK: *b}, nowMillis)
	if err != nil {
		return nil, PUK{}, State{}, err
	}
	return raw, p, next, nil
}

func (s State) pukBody(rand io.Reader, p, before PUK) (*pukBody, error) {
	pub := p.Public()
	b := &pukBody{Gen: pub.Gen, KEM: pub.KEM, DH: pub.DH}
	var err error
	if s.PUK.Gen > 0 {
		if b.Prev, err = p.sealPrevious(rand, s.C, before); err != nil {
			return nil, err
		}
	}
	if b.Root, err = p.wrapTo(s.C, recipient{root: true, id: s.C}, s.KEMPub); err != nil {
		return nil, err
	}
	for _, id := range sortedDevices(s.Devices) {
		sealed, err := p.wrapTo(s.C, recipient{id: id}, s.Devices[id].KEM)
		if err != nil {
			return nil, err
		}
		b.Wraps = append(b.Wraps, pukWrap{Device: id, Sealed: sealed})
	}
	return b, nil
}

// next signs the entry after the head and applies it, so that nothing leaves
// here that another node would refuse.
func (s State) next(by Key, kind Kind, body any, nowMillis int64) ([]byte, State, error) {
	b, err := space.Marshal(body)
	if err != nil {
		return nil, State{}, err
	}
	key := by.signing()
	raw, err := encodeEntry(&entry{
		Ver: version, C: s.C, Seq: s.Seq + 1, Prev: s.Head, Kind: kind, Body: b,
		TimeMs: nowMillis, Signer: [32]byte(key.Public().(ed25519.PublicKey)),
	}, key)
	if err != nil {
		return nil, State{}, err
	}
	next, err := s.Apply(raw)
	if err != nil {
		return nil, State{}, err
	}
	return raw, next, nil
}
