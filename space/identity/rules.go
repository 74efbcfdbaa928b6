package identity

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/kithnet/kith/space"
)

// genesis opens the log: [id_sig_pub, id_kem_pub], which C commits to.
func (s *State) genesis(e *entry, raw []byte) error {
	if e.Seq != 0 || e.Prev != ([32]byte{}) || e.Kind != KindGenesis {
		return fmt.Errorf("%w: a log begins with its genesis", ErrOrder)
	}
	var b genesisBody
	if err := space.Unmarshal(e.Body, &b); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	if e.TimeMs != 0 {
		return fmt.Errorf("genesis: %w: it has no time", space.ErrMalformed)
	}
	if err := space.CheckPublicKey(b.Sig[:]); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	if _, err := parseKEMPublic(b.KEM); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	if e.C != commitmentOf(b.Sig[:], b.KEM) {
		return fmt.Errorf("genesis: %w: its keys are not those of the commitment", space.ErrForged)
	}
	if e.Signer != b.Sig {
		return fmt.Errorf("genesis: %w: not signed by the identity key", space.ErrForbidden)
	}
	if !e.verified(raw) {
		return fmt.Errorf("genesis: %w: signature", space.ErrForged)
	}
	s.C, s.SigPub, s.KEMPub = e.C, ed25519.PublicKey(b.Sig[:]), b.KEM
	s.Devices, s.revoked = make(map[DeviceID]DeviceInfo), make(map[DeviceID]uint32)
	return nil
}

// bindDID takes the DID's proof; the entry's signature is the other direction.
// A later binding replaces an earlier one.
func (s *State) bindDID(e *entry) error {
	var b bindBody
	if err := space.Unmarshal(e.Body, &b); err != nil {
		return fmt.Errorf("bind-did: %w", err)
	}
	if !strings.HasPrefix(string(b.DID), "did:key:") {
		return fmt.Errorf("bind-did: %w: a DID other than did:key", space.ErrUnsupported)
	}
	key, err := atcrypto.ParsePublicDIDKey(string(b.DID))
	if err != nil {
		return fmt.Errorf("bind-did: %w: %w", space.ErrMalformed, err)
	}
	if key.DIDKey() != string(b.DID) {
		return fmt.Errorf("bind-did: %w: did:key", space.ErrNotCanonical)
	}
	if err := key.HashAndVerify(BindMessage(s.C, b.DID), b.Proof[:]); err != nil {
		return fmt.Errorf("bind-did: %w: the DID's key did not sign the commitment", space.ErrForged)
	}
	s.DID = b.DID
	return nil
}

// addDevice takes a key that proved its possession. A device that signs may
// hand on only capabilities it has.
func (s *State) addDevice(e *entry) error {
	var b deviceBody
	if err := space.Unmarshal(e.Body, &b); err != nil {
		return fmt.Errorf("add-device: %w", err)
	}
	if b.Caps == 0 || b.Caps&^CapsAll != 0 {
		return fmt.Errorf("add-device: %w: capabilities %#x", space.ErrUnsupported, uint32(b.Caps))
	}
	if signer, ok := s.Devices[e.Signer]; ok && b.Caps&^signer.Caps != 0 {
		return fmt.Errorf("add-device: %w: the signer lacks capabilities it hands on", space.ErrForbidden)
	}
	if err := space.CheckPublicKey(b.Sig[:]); err != nil {
		return fmt.Errorf("add-device: %w", err)
	}
	if _, err := parseKEMPublic(b.KEM); err != nil {
		return fmt.Errorf("add-device: %w", err)
	}
	if _, err := parseDHPublic(b.DH); err != nil {
		return fmt.Errorf("add-device: %w", err)
	}
	if !space.Verify(b.Sig[:], space.LabelDevicePop, b.Pop[:], popParts(s.C, &b)...) {
		return fmt.Errorf("add-device: %w: proof of possession", space.ErrForged)
	}
	if _, ok := s.Devices[b.Sig]; ok || s.Revoked(b.Sig) || [32]byte(b.Sig) == s.C || bytes.Equal(b.Sig[:], s.SigPub) {
		return fmt.Errorf("add-device: %w: the key is in the log already", space.ErrMalformed)
	}
	if len(s.Devices) >= MaxDevices {
		return fmt.Errorf("add-device: %w: at most %d live devices", space.ErrTooLarge, MaxDevices)
	}
	s.Devices[b.Sig] = DeviceInfo{KEM: b.KEM, DH: b.DH, Caps: b.Caps}
	return nil
}

// rotate takes a puk entry.
func (s *State) rotate(e *entry) error {
	var b pukBody
	if err := space.Unmarshal(e.Body, &b); err != nil {
		return fmt.Errorf("puk: %w", err)
	}
	return s.setPUK(&b)
}

// revokeDevice ends a device and takes the next generation, wrapped to those
// that remain: there is no moment in which a device is revoked and can open
// what others seal. The device itself may not sign it: it would know the key.
func (s *State) revokeDevice(e *entry) error {
	var b revokeBody
	if err := space.Unmarshal(e.Body, &b); err != nil {
		return fmt.Errorf("revoke-device: %w", err)
	}
	if _, live := s.Devices[b.Device]; !live {
		return fmt.Errorf("revoke-device: %w: %x… is no live device", space.ErrMalformed, b.Device[:4])
	}
	if b.Device == DeviceID(e.Signer) {
		return fmt.Errorf("revoke-device: %w: a device does not revoke itself", space.ErrForbidden)
	}
	delete(s.Devices, b.Device)
	if err := s.setPUK(&b.PUK); err != nil {
		return fmt.Errorf("revoke-device: %w", err)
	}
	s.revoked[b.Device] = b.PUK.Gen
	s.fresh = b.PUK.Gen
	return nil
}

// setPUK takes the next generation, wrapped to the seed and to exactly the
// live devices.
func (s *State) setPUK(b *pukBody) error {
	if b.Gen != s.PUK.Gen+1 {
		return fmt.Errorf("puk: %w: generation %d after %d", space.ErrMalformed, b.Gen, s.PUK.Gen)
	}
	if _, err := parseKEMPublic(b.KEM); err != nil {
		return fmt.Errorf("puk: %w", err)
	}
	if _, err := parseDHPublic(b.DH); err != nil {
		return fmt.Errorf("puk: %w", err)
	}
	if bytes.Equal(b.KEM, s.PUK.KEM) || bytes.Equal(b.DH, s.PUK.DH) {
		return fmt.Errorf("puk: %w: the key of the generation before", space.ErrMalformed)
	}
	if first := b.Gen == 1; first != (b.Prev == nil) || !first && len(b.Prev) != prevSize {
		return fmt.Errorf("puk: %w: seal of the generation before", space.ErrMalformed)
	}
	wraps, err := s.checkWraps(b)
	if err != nil {
		return fmt.Errorf("puk: %w", err)
	}
	s.PUK = PUKPublic{Gen: b.Gen, KEM: b.KEM, DH: b.DH}
	s.rootWrap, s.wraps = b.Root, wraps
	s.generations = append(s.generations, generation{public: s.PUK, prev: b.Prev})
	return nil
}

func (s *State) checkWraps(b *pukBody) (map[DeviceID][]byte, error) {
	if len(b.Root) != wrapSize {
		return nil, fmt.Errorf("%w: wrap to the identity key is %d bytes, want %d", space.ErrMalformed, len(b.Root), wrapSize)
	}
	if len(s.Devices) == 0 || len(b.Wraps) != len(s.Devices) {
		return nil, fmt.Errorf("%w: %d wraps for %d live devices", space.ErrMalformed, len(b.Wraps), len(s.Devices))
	}
	wraps := make(map[DeviceID][]byte, len(b.Wraps))
	for i := range b.Wraps {
		w := &b.Wraps[i]
		if i > 0 && bytes.Compare(b.Wraps[i-1].Device[:], w.Device[:]) >= 0 {
			return nil, fmt.Errorf("%w: wraps out of order", space.ErrNotCanonical)
		}
		if _, live := s.Devices[w.Device]; !live {
			return nil, fmt.Errorf("%w: wrap to %x…, which is no live device", space.ErrForbidden, w.Device[:4])
		}
		if len(w.Sealed) != wrapSize {
			return nil, fmt.Errorf("%w: wrap of %d bytes, want %d", space.ErrMalformed, len(w.Sealed), wrapSize)
		}
		wraps[w.Device] = w.Sealed
	}
	return wraps, nil
}
