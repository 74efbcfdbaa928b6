package control

import (
	"fmt"
	"testing"

	"github.com/kithnet/kith/space"
)

// testDescriptor is of a space that stands below and has nothing below itself.
func testDescriptor(child [32]byte, nowMs int64) Descriptor {
	return signedDescriptor(Descriptor{
		Space: child, URI: fmt.Sprintf("at://did:web:c%x.example/space/com.example.forum/self", child[:4]), Epoch: 1,
		Delegate: []byte("delegate key of epoch 1"), Head: space.Head{Seq: 5, Hash: [32]byte{5}},
		NotAfterMs: uint64(nowMs + DescriptorLifeMs),
	})
}

func signedDescriptor(d Descriptor) Descriptor {
	k := fixedKey(fmt.Sprintf("sequencer %x", d.Space))
	d.Sequencer = pub(k)
	return must(d.Sign(k))
}

var _ = testing.Short
