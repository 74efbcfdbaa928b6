package local

import (
	"testing"
)

// TestFixture: the two replicas of the benchmark differ in what it says, and
// writing it makes them the same.
func TestFixture(t *testing.T) {
	for _, c := range []struct {
		pattern string
		diff    int
	}{{"recent", 0}, {"recent", 1}, {"recent", 1500}, {"scattered", 100}, {"scattered", 1500}, {"recent", 3000}, {"scattered", 3000}} {
		p, err := newFixture(3000, c.diff, c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		part, err := p.replica(false)
		if err != nil {
			t.Fatal(err)
		}
		q, err := newFixture(3000, c.diff, c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := q.replica(true)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := part.Summary()
		b, _ := whole.Summary()
		if b.Count != 3000 || a.Count != uint64(3000-c.diff) {
			t.Errorf("%v: %d and %d", c, a.Count, b.Count)
		}
		if err := part.write(); err != nil {
			t.Fatal(err)
		}
		if a, _ = part.Summary(); a != b {
			t.Errorf("%v: not the same once written: %d, %d", c, a.Count, b.Count)
		}
	}
	if _, err := newFixture(100, 101, "recent"); err == nil {
		t.Error("more missing than there is")
	}
}
