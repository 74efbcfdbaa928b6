package gossip

import (
	"bytes"
	"testing"

	"github.com/kithnet/kith/space/envelope"
)

// proof is the frame with the proof that a replica holding c makes of a branch.
func proof(t testing.TB, c, branch *chain, at int) []byte {
	t.Helper()
	r := newReplica(c.topic).hold(t, c, len(c.run)-1)
	adv, _ := r.topic.Check(nil, branch.run[at:])
	if adv.Fork == nil {
		t.Fatal("no fork")
	}
	b, err := envelope.Frame{Fork: adv.Fork}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A proof is passed on by whoever did not know, cuts the chain back, and ends
// there.
func TestJudgeProof(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 9)
	branch := c.fork(4).grow(t, 3, 'b')
	frame := proof(t, c, branch, 5)
	for name, held := range map[string]int{"unknown": -1, "below": 2, "at": 5, "beyond": 9} {
		t.Run(name, func(t *testing.T) {
			court := newCourt(t, Limits{})
			if held >= 0 {
				court.replica.hold(t, c, held)
			}
			bad := bytes.Clone(frame)
			bad[len(bad)-1] ^= 1
			court.expect(mal, bad, Reject, Forged, 0)
			cert := bytes.Clone(frame)
			cert[2+envelope.CertificateSize-1] ^= 1
			court.expect(mal, cert, Reject, Forged, 0)
			got := court.expect(alice, frame, Accept, Proof, 1)
			court.apply(got)
			if n := court.replica.count(); n != uint64(min(held+1, 5)) {
				t.Errorf("%d envelopes stand", n)
			}
			court.expect(alice, frame, Ignore, Duplicate, 0)
			court.expect(alice, proof(t, c, c.fork(6).grow(t, 1, 'd'), 7), Ignore, Duplicate, 0)
			after := Forked
			if held < 0 {
				after = Parked
			}
			court.expect(alice, c.frame(t, 5, 6), Ignore, after, 0)
			court.expect(alice, branch.frame(t, 5, 6), Ignore, after, 0)
			lower := court.expect(alice, proof(t, c, c.fork(1).grow(t, 1, 'd'), 2), Accept, Proof, 1)
			court.apply(lower)
			if n := court.replica.count(); n != uint64(min(held+1, 2)) {
				t.Errorf("%d envelopes stand below the lower fork", n)
			}
		})
	}
	if got := NewJudge(Limits{}).Judge(alice, c.topic, nil, frame, start); got.Reason != NotServed {
		t.Errorf("%+v", got)
	}
	early := member
	early.notAfter = uint64(start.Add(maxAhead).Unix()) + 9
	ahead := newChain(t, early, 0x46).grow(t, 3)
	newCourt(t, Limits{}).expect(alice, proof(t, ahead, ahead.fork(1).grow(t, 1, 'b'), 2), Ignore, EarlyIssue, 0)
}

// What is remembered of a branch that was cut says nothing about the chain, and
// its writer pays for proofs.
func TestJudgeProofForgets(t *testing.T) {
	c := newChain(t, member, 0x44).grow(t, 12)
	branch := c.fork(4).grow(t, 3, 'b')
	court := newCourt(t, Limits{Classes: [4]float64{1, 1, 1, 1}})
	court.apply(court.expect(alice, c.frame(t, 0, 2), Accept, Fresh, 1))
	court.expect(alice, c.frame(t, 3, 6), Accept, Fresh, 1) // remembered, not applied yet
	court.apply(court.expect(alice, proof(t, c, branch, 5), Accept, Proof, 1))
	court.apply(court.expect(alice, c.frame(t, 3, 3), Accept, Fresh, 1))
	if n := court.replica.count(); n != 4 {
		t.Errorf("%d envelopes, want 4", n)
	}
	court.expect(alice, proof(t, c, c.fork(2).grow(t, 1, 'd'), 3), Accept, Proof, 1)
	court.expect(alice, proof(t, c, c.fork(1).grow(t, 1, 'd'), 2), Ignore, OverQuota, 0)
}
