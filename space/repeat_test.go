package space

import (
	"math/rand/v2"
	"testing"

	"github.com/kithnet/kith/sync/lthash"
)

// TestS8RepeatedRecord: one record is put 65,536 times and more, again and again
// as it stands, by two devices that say the same, and after deletions. It counts
// once; the set hash alone would lose it.
func TestS8RepeatedRecord(t *testing.T) {
	const wraps = 1 << 16
	path := Path{"com.example.forum.post", "one"}
	rec, err := RecordFromJSON([]byte(`{"text":"the same"}`))
	if err != nil {
		t.Fatal(err)
	}
	element := AppendElement(nil, path, rec.CID())
	var one, naive lthash.State
	one.Add(element)
	for range wraps {
		naive.Add(element)
	}
	if naive != (lthash.State{}) {
		t.Fatal("the hash does not wrap: the test shows nothing")
	}
	put := func(rev TID) Batch { return Batch{Rev: rev, Ops: []Op{{Path: path, Value: rec}}} }
	del := func(rev TID) Batch { return Batch{Rev: rev, Ops: []Op{{Path: path, Prev: rec.CID()}}} }
	rng := rand.New(rand.NewPCG(1, 2))
	for name, write := range map[string]func(i int) (Batch, Stamp){
		"replayed": func(int) (Batch, Stamp) { return put(7), Stamp{Rev: 7} },
		"again":    func(i int) (Batch, Stamp) { return put(TID(i + 1)), Stamp{Rev: TID(i + 1)} },
		"by two devices": func(i int) (Batch, Stamp) {
			return put(TID(i/2 + 1)), Stamp{Rev: TID(i/2 + 1), Device: [32]byte{byte(i % 2)}, Entry: [32]byte{byte(i)}}
		},
		"out of order": func(int) (Batch, Stamp) {
			rev := TID(rng.IntN(1000) + 1)
			return put(rev), Stamp{Rev: rev}
		},
		"after deletions": func(i int) (Batch, Stamp) {
			rev := TID(i + 1)
			if i%2 == 0 {
				return del(rev), Stamp{Rev: rev}
			}
			return put(rev), Stamp{Rev: rev}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRepo()
			for i := range 2 * wraps {
				s := r.Begin()
				s.Apply(write(i))
				s.Commit()
			}
			if state := r.State(); r.Count() != 1 || !state.Equal(&one) {
				t.Errorf("%d records, the state of one: %v", r.Count(), state.Equal(&one))
			}
			if err := r.Check(); err != nil {
				t.Error(err)
			}
			s := r.Begin() // and it can be deleted, to the last trace in the hash
			rev := TID(3 * wraps)
			s.Apply(del(rev), Stamp{Rev: rev})
			s.Apply(del(rev+1), Stamp{Rev: rev + 1})
			s.Commit()
			if r.Count() != 0 || r.State() != (lthash.State{}) {
				t.Errorf("deleted twice, %d records are left", r.Count())
			}
		})
	}
}
