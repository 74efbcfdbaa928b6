package node

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/sync/reconcile"
)

// encounter is of two nodes that both want to talk about one topic. Each looks whether
// there is a stream, opens one of its own if not, and hears of the other's.
type encounter struct {
	ids   [2]peer.ID
	conns [2]network.Conn // that of each one's stream
	talks [2]talks
	live  [2][2]*reconcile.Live // by side, by opener
	step  [2]int
	wants [2]bool // found none
	open  [2]bool // by opener: it was announced and nobody ended it
}

func (m *encounter) talk(side int) talk { return talk{peer: m.ids[1-side]} }

// advance takes the next step of one side's stream.
func (m *encounter) advance(x int) {
	y := 1 - x
	switch m.step[x]++; m.step[x] {
	case 1:
		m.wants[x] = m.talks[x].of(m.talk(x)) == nil
	case 2:
		m.open[x] = m.wants[x] && m.talks[x].offer(m.talk(x), m.live[x][x], m.ids[x], m.conns[x]) == nil
	case 3:
		if !m.open[x] {
			return
		}
		loser, ok := m.talks[y].admit(m.talk(y), m.live[y][x], m.conns[x])
		if !ok {
			m.open[x] = false
		}
		if loser != nil {
			m.open[y] = m.open[y] && loser != m.live[y][y]
		}
	}
}

// TestStreamsOpenedAtOnce: in whatever order two sides open streams and hear of
// them, one goes on. Two would both move everything.
func TestStreamsOpenedAtOnce(t *testing.T) {
	for order := range 1 << 6 {
		for _, ids := range [][2]peer.ID{{"a", "b"}, {"b", "a"}} {
			for _, conns := range []int{1, 2} {
				m := encounter{ids: ids}
				for x := range 2 {
					m.conns[x] = &struct{ network.Conn }{}
					m.live[x] = [2]*reconcile.Live{new(reconcile.Live), new(reconcile.Live)}
				}
				if conns == 1 {
					m.conns[1] = m.conns[0]
				}
				for i := range 6 {
					x := order >> i & 1
					if m.step[x] == 3 {
						x = 1 - x // each order of three and three comes up
					}
					m.advance(x)
				}
				if m.open[0] == m.open[1] {
					t.Errorf("order %06b, ids %v, %d connections: streams %v", order, ids, conns, m.open)
				}
				for x := range 2 {
					for y := range 2 {
						if !m.open[y] {
							m.talks[x].ended(m.talk(x), m.live[x][y])
						}
					}
					l := m.talks[x].of(m.talk(x))
					if conns == 1 && l != m.live[x][0] && l != m.live[x][1] {
						t.Errorf("order %06b, ids %v: side %d has forgotten the stream", order, ids, x)
					}
				}
			}
		}
	}
}
