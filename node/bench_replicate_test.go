package node_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// BenchmarkReplicate fills an empty node from a full one in the same process.
// kith bench replicate does it with two.
func BenchmarkReplicate(b *testing.B) {
	for _, batch := range []int{1, 200} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) { benchReplicate(b, 20_000, batch) })
	}
}

func benchNode(b *testing.B) *node.Node {
	home := b.TempDir()
	if _, _, err := node.Init(home, nil); err != nil {
		b.Fatal(err)
	}
	n, err := node.New(node.Config{Home: home, Listen: loopback, NoMDNS: true})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func benchReplicate(b *testing.B, records, batch int) {
	full := benchNode(b)
	defer full.Close()
	info, err := full.CreateSpace(b.Context(), xrpc.NewSpace{Type: "com.example.forum", Policy: space.DefaultPolicy()})
	if err != nil {
		b.Fatal(err)
	}
	rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":"com.example.forum.post","text":"%0210d"}`, 7))
	if err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for {
				first := int(next.Add(int64(batch))) - batch
				if first >= records {
					return
				}
				writes := make([]xrpc.Write, batch)
				for i := range writes {
					path := space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(fmt.Sprintf("k%d", first+i))}
					writes[i] = xrpc.Write{Action: xrpc.ActionPut, Path: path, Value: rec}
				}
				if _, err := full.Write(b.Context(), info.ID, writes, xrpc.WriteOptions{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		inv, err := full.Invite(b.Context(), info.ID, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
		if err != nil {
			b.Fatal(err)
		}
		n := benchNode(b)
		b.StartTimer()
		if _, err := n.Join(b.Context(), inv.Link); err != nil {
			b.Fatal(err)
		}
		for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
			st, err := n.Status(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if s := st.Spaces[0]; s.Records == uint64(records) && len(s.InSyncWith) > 0 {
				break
			}
		}
		b.StopTimer()
		if err := n.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
