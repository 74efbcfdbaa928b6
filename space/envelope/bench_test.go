package envelope

import (
	"fmt"
	"testing"
)

func BenchmarkParse(b *testing.B) {
	raw := vectorEnvelope(b).Bytes()
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// One signature per run against one per envelope, and with parsing and the
// set hash on top: what bulk sync pays for 256 entries.
func BenchmarkRun256(b *testing.B) {
	c := newIssuer(0x33).chain(b, 0x55, 0x44).grow(b, 256)
	head, run := c.run[0].Head(), c.run[1:]
	var raw []byte
	for _, e := range run {
		raw = append(raw, e.Bytes()...)
	}
	per := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/envelope")
	}
	b.Run("CheckRun", func(b *testing.B) {
		for b.Loop() {
			if err := CheckRun(&head, run); err != nil {
				b.Fatal(err)
			}
		}
		per(b)
	})
	b.Run("VerifyEach", func(b *testing.B) {
		for b.Loop() {
			for i := range run {
				if !run[i].VerifySignature() {
					b.Fatal("refused")
				}
			}
		}
		per(b)
	})
	b.Run("ParseAndTopic", func(b *testing.B) {
		topic := NewTopic(c.top)
		accept(b, topic, &c.cert, c.run[:1])
		for b.Loop() {
			run, err := ParseRun(raw)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := topic.Check(nil, run); err != nil {
				b.Fatal(err)
			}
		}
		per(b)
	})
}

func BenchmarkTopicOne(b *testing.B) {
	for _, chains := range []int{1, 1000} {
		b.Run(fmt.Sprintf("chains=%d", chains), func(b *testing.B) {
			iss := newIssuer(0x33)
			topic := NewTopic(iss.topic)
			for i := range chains - 1 {
				c := Chain{ID: ChainID{byte(i), byte(i >> 8)}, Length: 1}
				topic.chains[c.ID] = &c
			}
			c := iss.chain(b, 0x55, 0x44).grow(b, 1)
			accept(b, topic, &c.cert, c.run[:1])
			b.ReportAllocs()
			for b.Loop() {
				if _, err := topic.Check(nil, c.run[1:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
