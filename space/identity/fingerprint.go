package identity

import "github.com/kithnet/kith/space"

// fingerprintAlphabet is Crockford's base32: no I, L, O or U.
const fingerprintAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// fingerprintBytes of C are shown: 160 bits, a multiple of a group's 20.
const fingerprintBytes = 20

// Fingerprint is C for people to compare: eight groups of four characters over
// the first 160 bits and a ninth that checks them, as K7QF-2MXA-….
func Fingerprint(c Commitment) string {
	sum := space.Hash(space.LabelIDCheck, c[:fingerprintBytes])
	// Three bytes give the 20 bits of the last group and four that fall off.
	b := append(append([]byte(nil), c[:fingerprintBytes]...), sum[:3]...)
	out := make([]byte, 0, 44)
	for i := range 36 {
		if i > 0 && i%4 == 0 {
			out = append(out, '-')
		}
		out = append(out, fingerprintAlphabet[bits5(b, 5*i)])
	}
	return string(out)
}

// bits5 reads five bits from bit offset at, most significant first.
func bits5(b []byte, at int) byte {
	v := uint16(b[at/8]) << 8
	if at/8+1 < len(b) {
		v |= uint16(b[at/8+1])
	}
	return byte(v>>(11-at%8)) & 31
}
