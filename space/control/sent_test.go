package control

import (
	"testing"

	"github.com/kithnet/kith/space"
)

// TestSent: how far the chains of those that a child sends count, through a
// child's whole time as a member.
func TestSent(t *testing.T) {
	l, child := founded(t), [32]byte{5}
	chain, other := [32]byte{1}, [32]byte{2}
	head := uint64(5)
	set := func(level space.Level, cuts ...Cut) {
		slot := l.s.NextSlot()
		d, known := l.s.Delegation(child)
		if known {
			slot = d.Slot
		}
		b := Delegation{Slot: slot, Child: child, Level: level}
		if level != space.LevelNone {
			head++
			d := testDescriptor(child, l.now)
			d.Head.Seq = head
			b.Descriptor = must(signedDescriptor(d).Encode())
		}
		if !known {
			l.add(KindDelegationSet, b)
			return
		}
		l.add(KindDelegationSet, l.rotated(KindDelegationSet, b, func(r *Rotation) { r.Epoch.Cuts = cuts }))
	}
	writes := func(want ...uint64) {
		t.Helper()
		for n := uint64(1); n <= l.s.Epoch+1; n++ {
			in := false
			for _, w := range want {
				in = in || w == n
			}
			if got := l.s.MayWriteVia(child, n); got != in {
				t.Errorf("epoch %d of %d: writes %v, want %v", n, l.s.Epoch, got, in)
			}
		}
	}
	bound := func(epoch uint64, chain [32]byte, want Bound) {
		t.Helper()
		if got := l.s.BoundVia(child, epoch, chain); got != want {
			t.Errorf("chain %x of epoch %d: %+v, want %+v", chain[:1], epoch, got, want)
		}
	}
	none := Bound{Bounded: true, None: true}

	writes()
	bound(1, chain, Bound{})
	set(space.LevelRead)
	writes()
	set(space.LevelWrite) // epoch 2
	writes(2)
	bound(1, chain, none)
	bound(2, chain, Bound{})
	set(space.LevelWrite, Cut{Chain: chain, Seq: 7, ID: [32]byte{9}}) // refreshed: epoch 3
	cut := Bound{Bounded: true, Seq: 7, ID: [32]byte{9}}
	writes(2, 3)
	bound(2, chain, cut)
	bound(2, other, none)
	bound(3, other, Bound{})
	set(space.LevelRead, Cut{Chain: other, Seq: 1, ID: [32]byte{8}}) // epoch 4
	writes(2, 3)
	bound(2, chain, cut) // the first one decides
	bound(3, chain, none)
	bound(3, other, Bound{Bounded: true, Seq: 1, ID: [32]byte{8}})
	set(space.LevelNone) // epoch 5
	writes(2, 3)
	bound(4, other, none)
	bound(5, other, Bound{})
	l.add(KindEpoch, l.rotation()) // epoch 6: about nobody
	bound(5, other, Bound{})
	set(space.LevelWrite) // again, in epoch 6
	writes(2, 3, 6)
	bound(6, chain, Bound{})
	bound(2, chain, cut)
	if l.s.MayWriteVia([32]byte{6}, 2) || l.s.BoundVia([32]byte{6}, 2, chain) != (Bound{}) {
		t.Error("a space that was never a member")
	}
}
