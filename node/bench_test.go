package node_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// BenchmarkWrite is one durable record at a time, and sixteen writers at once.
func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			home := b.TempDir()
			if _, _, err := node.Init(home, nil); err != nil {
				b.Fatal(err)
			}
			n, err := node.New(node.Config{Home: home, Listen: loopback, NoMDNS: true})
			if err != nil {
				b.Fatal(err)
			}
			defer n.Close()
			info, err := n.CreateSpace(b.Context(), xrpc.NewSpace{Type: "com.example.forum", Policy: space.DefaultPolicy()})
			if err != nil {
				b.Fatal(err)
			}
			rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":"com.example.forum.post","text":"%0256d"}`, 7))
			if err != nil {
				b.Fatal(err)
			}
			var seq atomic.Int64
			b.SetParallelism(writers)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					path := space.Path{Collection: "com.example.forum.post", Key: space.RecordKey(fmt.Sprintf("k%d", seq.Add(1)))}
					if _, err := n.Write(context.Background(), info.ID, []xrpc.Write{{Action: xrpc.ActionPut, Path: path, Value: rec}}, xrpc.WriteOptions{}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
