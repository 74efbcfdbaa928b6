package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/kithnet/kith/space"
)

// Choose is the log to go by where two logs of one person part. Both must
// verify. The answer is a function of the two alone, in any order, and it is
// one order over all logs: whoever has seen the same logs goes by the same.
//
// A log that goes on beats its own beginning. Of two that part, the one with
// the stronger entry behind the parting wins: of the identity key before of a
// device, then a revocation before anything else. If they are equal so far,
// the two entries at the parting are compared in the same way, and last by
// the lower hash.
func Choose(a, b [][]byte) [][]byte {
	at := parting(a, b)
	switch {
	case at == len(b):
		return a
	case at == len(a):
		return b
	}
	root := rootOf(a)
	for _, d := range []int{
		strongest(a[at:], root) - strongest(b[at:], root),
		strength(a[at], root) - strength(b[at], root),
	} {
		switch {
		case d > 0:
			return a
		case d < 0:
			return b
		}
	}
	ha, hb := sha256.Sum256(a[at]), sha256.Sum256(b[at])
	if bytes.Compare(ha[:], hb[:]) < 0 {
		return a
	}
	return b
}

// Follow is the log to go by for who knows one and is offered another of the
// same person, and what it says. The offered one must verify. Beside Choose it
// knows that a revoked device has no say any more: what such a device signs on
// a branch of its own counts only as far as the identity key stands behind it.
func Follow(known, offered [][]byte) ([][]byte, State, error) {
	st, err := Verify(offered)
	if err != nil {
		return nil, State{}, err
	}
	if len(known) == 0 {
		return offered, st, nil
	}
	have, err := Verify(known)
	if err != nil {
		return nil, State{}, fmt.Errorf("known log: %w", err)
	}
	if have.C != st.C {
		return nil, State{}, fmt.Errorf("identity log: %w: of another identity", ErrOrder)
	}
	kept := offered[:live(offered, parting(known, offered), have)]
	if best := Choose(known, kept); len(best) == len(known) && parting(best, known) == len(known) {
		return known, have, nil
	}
	if len(kept) < len(offered) {
		if st, err = Verify(kept); err != nil {
			return nil, State{}, err
		}
	}
	return kept, st, nil
}

// live is the length of the part of log that counts for who knows that the
// devices revoked in have were revoked: entries from at on, up to the first by
// such a device behind the last one of the identity key.
func live(log [][]byte, at int, have State) int {
	root := rootOf(log)
	backed := at
	for i := at; i < len(log); i++ {
		if strength(log[i], root) >= byIdentity {
			backed = i + 1
		}
	}
	for i := backed; i < len(log); i++ {
		if e, err := parseEntry(log[i]); err != nil || have.Revoked(DeviceID(e.Signer)) {
			return i
		}
	}
	return len(log)
}

// byIdentity is the least strength of an entry of the identity key.
const byIdentity = 2

// strength orders entries for one place of a log.
func strength(raw []byte, root [32]byte) int {
	e, err := parseEntry(raw)
	if err != nil {
		return -1
	}
	n := 0
	if e.Signer == root {
		n = byIdentity
	}
	if e.Kind == KindRevokeDevice {
		n++
	}
	return n
}

func strongest(branch [][]byte, root [32]byte) int {
	n := -1
	for _, raw := range branch {
		n = max(n, strength(raw, root))
	}
	return n
}

// rootOf is the identity key of a log, its first signer.
func rootOf(log [][]byte) [32]byte {
	if len(log) == 0 {
		return [32]byte{}
	}
	e, err := parseEntry(log[0])
	if err != nil {
		return [32]byte{}
	}
	return e.Signer
}

// parting is the number of entries that two logs have in common.
func parting(a, b [][]byte) int {
	i := 0
	for i < min(len(a), len(b)) && bytes.Equal(a[i], b[i]) {
		i++
	}
	return i
}

// Reissue makes again, behind the head of s, what by had said on a branch that
// lost: devices it added, devices it revoked. lost is that branch from the
// parting on, before the current per-user key. No entries: nothing to repeat.
func (s State) Reissue(rand io.Reader, by Key, lost [][]byte, before PUK, nowMillis int64) (entries [][]byte, puk PUK, next State, err error) {
	signer := [32]byte(by.signing().Public().(ed25519.PublicKey))
	next, puk = s, before
	added := false
	for _, raw := range lost {
		e, perr := parseEntry(raw)
		if perr != nil || e.Signer != signer {
			continue
		}
		var again []byte
		switch e.Kind {
		case KindAddDevice:
			again, next, err = next.again(by, e, nowMillis)
			added = added || again != nil
		case KindRevokeDevice:
			var b revokeBody
			if space.Unmarshal(e.Body, &b) != nil {
				continue
			}
			if _, live := next.Devices[b.Device]; live {
				again, puk, next, err = next.RevokeDevice(rand, by, b.Device, puk, nowMillis)
				added = false // the new key reaches them all
			}
		}
		if err != nil {
			return nil, PUK{}, State{}, fmt.Errorf("reissue: %w", err)
		}
		if again != nil {
			entries = append(entries, again)
		}
	}
	if added {
		var raw []byte
		if raw, puk, next, err = next.RotatePUK(rand, by, puk, nowMillis); err != nil {
			return nil, PUK{}, State{}, fmt.Errorf("reissue: %w", err)
		}
		entries = append(entries, raw)
	}
	return entries, puk, next, nil
}

// again repeats an add-device entry whose device is not in the log; nil if it
// is, or was revoked there.
func (s State) again(by Key, e *entry, nowMillis int64) ([]byte, State, error) {
	var b deviceBody
	if space.Unmarshal(e.Body, &b) != nil {
		return nil, s, nil
	}
	if _, live := s.Devices[b.Sig]; live || s.Revoked(b.Sig) {
		return nil, s, nil
	}
	return s.next(by, KindAddDevice, &b, nowMillis)
}
