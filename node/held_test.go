package node

import (
	"testing"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
)

// rise asks the actor which of some rows one chain can carry.
type rise struct {
	rows  []store.HeldRow
	reply chan risen
}

type risen struct {
	rows int
	ends bool // the chain was ended
	err  error
}

func (m rise) handle(a *actor) {
	rows, err := a.rising(m.rows)
	m.reply <- risen{len(rows), a.writer == nil, err}
}

// TestRising: a chain's revs only rise, others refuse what does not. Of held
// batches a chain takes those that rise; one that is further than the first of
// them is ended, any other goes on.
func TestRising(t *testing.T) {
	a, _, id := pairOf(t)
	act := actorOf(t, a, id)
	for _, tc := range []struct {
		name  string
		steps []int // revs, from that of the chain on
		want  risen
	}{
		{"newer", []int{1, 2, 3}, risen{rows: 3}},
		{"not rising among themselves", []int{1, 2, 2, 3}, risen{rows: 2}},
		{"falling", []int{2, 1}, risen{rows: 1}},
		{"the chain is there", []int{0, 1}, risen{rows: 2, ends: true}},
		{"the chain is further", []int{-1, 1}, risen{rows: 2, ends: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := putAll(a, id, tc.name, "key"); err != nil { // opens a chain, if none runs
				t.Fatal(err)
			}
			act.mu.RLock()
			at := act.repos[a.self.did].Rev()
			act.mu.RUnlock()
			m := rise{reply: make(chan risen, 1)}
			for i, step := range tc.steps {
				body, err := space.Batch{Rev: at + space.TID(step)<<20, Ops: []space.Op{{Path: testPath("k")}}}.Encode()
				if err != nil {
					t.Fatal(err)
				}
				m.rows = append(m.rows, store.HeldRow{Seq: uint64(i), Body: body})
			}
			got, err := ask(t.Context(), act, message(m), m.reply)
			if err != nil || got != tc.want {
				t.Errorf("%+v, want %+v; %v", got, tc.want, err)
			}
		})
	}
}
