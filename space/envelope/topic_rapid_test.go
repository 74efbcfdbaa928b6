package envelope

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// delivery is a run on its way to a replica.
type delivery struct {
	cert   *Certificate
	run    []Envelope
	forged bool
}

// cut splits a chain into runs that together hold all of it, some overlapping,
// each ending in a good signature.
func cut(r *rapid.T, c *chain) []delivery {
	var out []delivery
	for at := 0; at < len(c.run); {
		end := at + rapid.IntRange(1, len(c.run)-at).Draw(r, "length")
		for end < len(c.run) && !c.run[end-1].VerifySignature() {
			end++
		}
		from := at - min(at, rapid.IntRange(0, 3).Draw(r, "overlap"))
		d := delivery{run: c.run[from:end]}
		if from == 0 {
			d.cert = &c.cert
		}
		out = append(out, d)
		at = end
	}
	return out
}

// forge makes from true deliveries some that must not enter.
func forge(r *rapid.T, t *testing.T, genuine []delivery) []delivery {
	var out []delivery
	for _, d := range genuine {
		n := len(d.run)
		switch rapid.IntRange(0, 4).Draw(r, "forgery") {
		case 0: // the last signature is spoilt
			bad := append(slices.Clone(d.run[:n-1]), spoil(t, d.run[n-1]))
			out = append(out, delivery{d.cert, bad, true})
		case 1: // one inside is spoilt, so the next does not link
			if n > 1 {
				at := rapid.IntRange(0, n-2).Draw(r, "at")
				bad := slices.Clone(d.run)
				bad[at] = spoil(t, bad[at])
				out = append(out, delivery{d.cert, bad, true})
			}
		case 2: // one inside is missing
			if n > 2 {
				out = append(out, delivery{d.cert, slices.Delete(slices.Clone(d.run), 1, 2), true})
			}
		case 3: // spliced behind another chain's
			other := genuine[rapid.IntRange(0, len(genuine)-1).Draw(r, "other")]
			if other.run[0].Chain() != d.run[0].Chain() {
				out = append(out, delivery{d.cert, append(slices.Clone(d.run), other.run...), true})
			}
		case 4: // behind a certificate of one's own
			if d.cert != nil {
				own := newIssuer(0x77).certify(t, key(0x55), d.run[0].Chain(), 2, 1)
				out = append(out, delivery{&own, d.run, true})
			}
		}
	}
	return out
}

// Whatever the order, the cuts, the repeats and the forgeries among them, a
// replica ends with exactly the set of all authentic envelopes.
func TestTopicNaive(t *testing.T) {
	iss := newIssuer(0x33)
	var chains []*chain
	for i := range 4 {
		c := iss.chain(t, byte(0x50+i/2), byte(0x60+i))
		for j := range 8 + 5*i {
			if i == 3 && j%4 == 1 {
				c.addSpoiled(t)
			} else {
				c.grow(t, 1)
			}
		}
		chains = append(chains, c.grow(t, 1))
	}
	rapid.Check(t, func(r *rapid.T) {
		var all []delivery
		want := make(map[ID]bool)
		for _, c := range chains[:rapid.IntRange(1, len(chains)).Draw(r, "chains")] {
			all = append(all, cut(r, c)...)
			for id := range idsOf(c.run) {
				want[id] = true
			}
		}
		for _, d := range all {
			if rapid.Bool().Draw(r, "repeat") {
				all = append(all, d)
			}
		}
		all = append(all, forge(r, t, all)...)
		topic := NewTopic(iss.topic)
		order := make([]int, len(all))
		for i := range order {
			order[i] = i
		}
		for _, i := range rapid.Permutation(order).Draw(r, "order") {
			d := all[i]
			adv, err := topic.Check(d.cert, d.run)
			if err == nil {
				if d.forged {
					r.Fatalf("a forged run of %d entered", len(d.run))
				}
				topic.Commit(adv)
			} else if errors.Is(err, ErrFork) {
				r.Fatalf("%v", err)
			}
		}
		if topic.Count() != uint64(len(want)) || topic.Digest() != naive(want) {
			r.Fatalf("%d envelopes, want %d", topic.Count(), len(want))
		}
		if p := topic.pending; len(p.chains)+len(p.writers)+len(p.unknown) != 0 {
			r.Fatalf("%d chains still wait", len(p.chains))
		}
	})
}
