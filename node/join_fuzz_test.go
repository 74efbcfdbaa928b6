package node

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/kithnet/kith/space"
)

// FuzzJoinMessages reads bytes from a stranger as every message of the join
// protocol: what is accepted encodes back to the same bytes, and a claim is
// judged without a panic whatever it says.
func FuzzJoinMessages(f *testing.F) {
	for _, v := range []any{
		claim{
			Ver: 1, Space: make([]byte, 32), Invite: make([]byte, 16), C: make([]byte, 32), Log: [][]byte{{1}},
			Device: make([]byte, 32), Writer: bytes.Repeat([]byte{3}, 32),
		},
		challenge{Nonce: make([]byte, 32), Keeper: make([]byte, 32)},
		proof{Invite: []byte{}, Device: make([]byte, 64)},
		verdict{Epoch: 1, Welcome: []byte{}, Reason: refused},
	} {
		b, err := space.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		var c claim
		if back(t, in, &c) {
			if _, err := c.check(); err == nil {
				t.Fatal("a claim with a log that nobody signed was believed")
			}
		}
		back(t, in, &challenge{})
		back(t, in, &proof{})
		back(t, in, &verdict{})
	})
}

// back reads v from in and, if that works, compares what v encodes to.
func back[T any](t *testing.T, in []byte, v *T) bool {
	if readMsg(bytes.NewReader(in), maxClaim, v) != nil {
		return false
	}
	var out bytes.Buffer
	if err := writeMsg(&out, *v); err != nil {
		t.Fatalf("read and not written again: %v", err)
	}
	if !bytes.HasPrefix(in, out.Bytes()) {
		t.Fatalf("a second encoding of %T was accepted", *v)
	}
	return true
}
