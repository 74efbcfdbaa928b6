package node

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
)

// fullSize reports whether the tests run at their full size.
func fullSize() bool {
	f := flag.Lookup("full")
	return f != nil && f.Value.String() == "true"
}

// crash ends a node at one of the steps of its disk and its key file: from
// there on nothing of it becomes durable, and what was is kept as a power cut
// would leave it.
type crash struct {
	n    *Node
	disk *storetest.Disk
	home string
	keep func(n int) int // of n bytes that were not synced, how many are there

	mu     sync.Mutex // guards what follows
	on     bool
	steps  int // so far
	at     int // the step that is the last; -1: none
	where  string
	dead   chan struct{} // closed when there is no more of it
	left   *storetest.Disk
	errors []error
}

var errPowerCut = errors.New("power cut")

// step counts one step and reports whether the node is dead.
func (x *crash) step(what string, inKeys bool) bool {
	x.mu.Lock()
	if !x.on || x.where != "" {
		defer x.mu.Unlock()
		return x.where != ""
	}
	x.steps++
	if x.at < 0 || x.steps <= x.at {
		x.mu.Unlock()
		return false
	}
	x.where = fmt.Sprintf("step %d (%s)", x.steps, what)
	x.mu.Unlock()
	x.disk.BreakAfter(0, syscall.EIO)
	if !inKeys {
		// A key file that is being written ends at its next step, or is whole.
		if _, err := x.n.keys.List(); err != nil {
			x.errors = append(x.errors, err)
		}
	}
	x.left = x.disk.Clone(x.keep)
	if err := copyHome(x.home, x.n.cfg.Home); err != nil {
		x.errors = append(x.errors, err)
	}
	close(x.dead)
	return true
}

// copyHome copies a home in use. A file that is about to take another's place
// may be gone when its turn comes: then it has, and the copy begins anew.
func copyHome(to, from string) error {
	for {
		err := os.CopyFS(to, os.DirFS(from))
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
}

func (x *crash) keyStep(what string) error {
	if x.step("key file: "+what, true) {
		return errPowerCut
	}
	return nil
}

// arm begins to count.
func (x *crash) arm(n *Node) {
	x.n = n
	n.keys.Interrupt(x.keyStep)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.on = true
}

func (x *crash) disarm() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.on = false
}

// died reports whether the step was reached.
func (x *crash) died() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.where != ""
}

// ensemble is what a story begins with, each time anew: homes and disks.
type ensemble struct {
	home map[string]string
	disk map[string]*storetest.Disk
	id   space.ID
}

// rehearse makes the homes of a story by letting nodes run once.
func rehearse(t *testing.T, names []string, build func(map[string]*Node, *ensemble)) *ensemble {
	t.Helper()
	e := &ensemble{home: map[string]string{}, disk: map[string]*storetest.Disk{}}
	nodes := map[string]*Node{}
	for _, name := range names {
		e.home[name], e.disk[name] = newHome(t), storetest.NewDisk()
		nodes[name] = boot(t, e.home[name], onDisk(e.disk[name]))
	}
	build(nodes, e)
	for _, n := range nodes {
		halt(t, n)
	}
	return e
}

// stage is one performance: the nodes of an ensemble, one of which dies.
type stage struct {
	t     *testing.T
	id    space.ID
	nodes map[string]*Node
	walls *walls
	crash *crash
	died  string // who is to die

	mu    sync.Mutex // guards acked
	acked map[string]map[string]string
}

// perform starts copies of all homes. victim dies at its step at.
func (e *ensemble) perform(t *testing.T, victim string, at int, keep func(int) int) *stage {
	t.Helper()
	s := &stage{
		t: t, id: e.id, nodes: map[string]*Node{}, walls: &walls{open: map[string]bool{}}, died: victim,
		acked: map[string]map[string]string{},
		crash: &crash{home: filepath.Join(t.TempDir(), "home"), at: at, keep: keep, dead: make(chan struct{})},
	}
	for _, name := range slices.Sorted(maps.Keys(e.home)) {
		home := filepath.Join(t.TempDir(), "home")
		if err := os.CopyFS(home, os.DirFS(e.home[name])); err != nil {
			t.Fatal(err)
		}
		disk := e.disk[name].Clone(func(n int) int { return n })
		if name == victim {
			s.crash.disk = disk
			disk.OnOp = func() { s.crash.step("disk", false) }
		}
		s.start(name, home, disk, "/ip4/127.0.0.1/tcp/0")
	}
	s.meet()
	return s
}

func (s *stage) start(name, home string, disk *storetest.Disk, listen string) {
	s.t.Helper()
	n := boot(s.t, home, onDisk(disk), func(c *Config) {
		c.Listen, c.Host = []string{listen}, []libp2p.Option{libp2p.ConnectionGater(s.walls)}
		if c.Log != nil {
			c.Log = c.Log.With("run", s.t.Name(), "who", name)
		}
	})
	s.nodes[name] = n
	s.walls.let(n)
}

// meet connects everybody with everybody.
func (s *stage) meet() {
	s.t.Helper()
	names := slices.Sorted(maps.Keys(s.nodes))
	for i, x := range names {
		for _, y := range names[:i] {
			soon(s.t, x+" and "+y+" meet", func() error {
				_, err := s.nodes[x].Connect(s.t.Context(), fullAddrs(s.nodes[y].host)[0])
				return err
			})
		}
	}
}

// arm lets the victim die from now on.
func (s *stage) arm() { s.crash.arm(s.nodes[s.died]) }

// over waits until the victim died, or done is content.
func (s *stage) over(what string, done func() error) {
	s.t.Helper()
	soon(s.t, what, func() error {
		if s.crash.died() {
			return nil
		}
		return done()
	})
}

// restart ends the victim, or what is left of it, and starts it again on what
// it left, at the address it had.
func (s *stage) restart() {
	s.t.Helper()
	s.crash.disarm()
	n := s.nodes[s.died]
	listen := slices.DeleteFunc(n.host.Network().ListenAddresses(), isCircuit)[0].String()
	home, disk := n.cfg.Home, s.crash.disk
	if s.crash.died() {
		<-s.crash.dead
		if err := errors.Join(s.crash.errors...); err != nil {
			s.t.Fatal(err)
		}
		n.Close() // it cannot write any more, and says so
		disk, home = s.crash.left, s.crash.home
	} else {
		halt(s.t, n)
		disk = disk.Clone(nil)
	}
	s.start(s.died, home, disk, listen)
	s.meet()
}

// write puts one record; what is acknowledged is owed from then on.
func (s *stage) write(who, key string) error {
	text := who + " says " + key
	if _, err := putAll(s.nodes[who], s.id, text, key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acked[who] == nil {
		s.acked[who] = map[string]string{}
	}
	s.acked[who][key] = text
	return nil
}

// must writes, however long it takes until that is possible.
func (s *stage) must(who, key string) {
	s.t.Helper()
	soon(s.t, who+" writes "+key, func() error { return s.write(who, key) })
}

// agree waits until those named hold the same, and all that was acknowledged.
func (s *stage) agree(names ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for who, texts := range s.acked {
		author := s.nodes[who].self.did
		for _, name := range names {
			for key, text := range texts {
				soon(s.t, fmt.Sprintf("%s has %q of %s", name, key, who), func() error {
					r, err := s.nodes[name].Record(s.t.Context(), s.id, author, testPath(key))
					if err != nil {
						return err
					}
					if b, _ := r.Value.JSON(); !strings.Contains(string(b), text) {
						return fmt.Errorf("it says %s", b)
					}
					return nil
				})
			}
		}
	}
	for _, name := range names[1:] {
		soon(s.t, names[0]+" and "+name+" hold the same", alike(s.nodes[names[0]], s.nodes[name], s.id))
	}
	for _, name := range names {
		sound(s.t, s.nodes[name], s.id)
		if n := s.nodes[name].stats.Disputed.Load() + s.nodes[name].stats.Refused.Load(); n > 0 {
			s.t.Errorf("%s suspects %d chains or entries of honest members", name, n)
		}
	}
}

// actor is the space at one node.
func (s *stage) actor(name string) *actor {
	s.t.Helper()
	a := s.nodes[name].anyByID(s.id)
	if a == nil {
		s.t.Fatalf("%s does not know the space", name)
	}
	return a
}

// roster checks that the log has exactly these members, each once, and this
// epoch; and that nobody holds keys of an epoch that the log does not have.
func (s *stage) roster(epoch uint64, names ...string) {
	s.t.Helper()
	for _, at := range names {
		st := s.actor(at).control()
		if st.Epoch != epoch {
			s.t.Errorf("%s is at epoch %d, want %d", at, st.Epoch, epoch)
		}
		var want, got []string
		for _, name := range names {
			want = append(want, string(s.nodes[name].self.did))
		}
		for m := range st.Members() {
			got = append(got, string(m.DID))
		}
		slices.Sort(want)
		slices.Sort(got)
		if got := slices.Compact(got); !slices.Equal(got, slices.Compact(want)) || st.Len() != len(got) {
			s.t.Errorf("%s has the members %v, want %v", at, got, want)
		}
		s.keysOf(at, epoch)
	}
}

// keysOf checks that a node has one set of keys for each epoch up to newest,
// in memory and in its key file, and that they are the log's.
func (s *stage) keysOf(name string, newest uint64) {
	s.t.Helper()
	n, a := s.nodes[name], s.actor(name)
	rec, err := n.readKeys(spaceKeyName(n.storeKey, a.sid))
	if err != nil {
		s.t.Fatal(err)
	}
	var kept []uint64
	for _, e := range rec.Epochs {
		kept = append(kept, e.N)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	var held []uint64
	for _, e := range a.epochs {
		held = append(held, e.n)
		if kid, ok := a.ctl.KID(e.n); !ok || e.keys.CheckKID(kid) != nil {
			s.t.Errorf("%s holds keys of epoch %d that are not the log's", name, e.n)
		}
	}
	slices.Sort(held)
	slices.Sort(kept)
	if len(held) == 0 || held[len(held)-1] != newest || !slices.Equal(held, kept) || len(slices.Compact(kept)) != len(held) {
		s.t.Errorf("%s holds the keys of epochs %v and keeps those of %v, want one each up to %d", name, held, kept, newest)
	}
}

// shutOut checks that somebody has no keys of an epoch, and nothing that is
// written in it.
func (s *stage) shutOut(name string, epoch uint64, secret string) {
	s.t.Helper()
	n, a := s.nodes[name], s.actor(name)
	rec, err := n.readKeys(spaceKeyName(n.storeKey, a.sid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range rec.Epochs {
		if e.N >= epoch {
			s.t.Errorf("%s has the keys of epoch %d", name, e.N)
		}
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, e := range a.epochs {
		if e.n >= epoch {
			s.t.Errorf("%s holds the keys of epoch %d", name, e.n)
		}
	}
	for did, r := range a.repos {
		if leaf, ok := r.Leaf(testPath(secret)); ok && !leaf.CID.IsZero() {
			s.t.Errorf("%s reads what %s wrote after it was shut out", name, did)
		}
	}
}

// walls let the nodes of one performance reach each other and nobody else:
// what their homes remember of addresses is of other performances.
type walls struct {
	mu   sync.Mutex // guards open
	open map[string]bool
}

var _ interface {
	InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool
} = (*walls)(nil)

func (w *walls) let(n *Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range n.host.Addrs() {
		w.open[a.String()] = true
	}
}

func (w *walls) InterceptAddrDial(_ peer.ID, a multiaddr.Multiaddr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[a.String()]
}

func (w *walls) InterceptPeerDial(peer.ID) bool              { return true }
func (w *walls) InterceptAccept(network.ConnMultiaddrs) bool { return true }
func (w *walls) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}
func (w *walls) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// story is one change of a space, told with a node that dies in the middle.
type story struct {
	cast    *ensemble
	victims []string
	act     func(*stage) // asks for the change; ends early when the victim died
	again   func(*stage) // after the restart: asks again where it did not come about
	end     func(*stage) // what must hold
}

// atOnce is how many performances run beside each other: they mostly wait.
const atOnce = 16

// everyStep tells the story once for every step at which a victim can die; at
// full size a hundred times for each victim, at steps and with disks drawn, and
// in short mode at a quarter of the steps.
func (y *story) everyStep(t *testing.T) {
	for _, victim := range y.victims {
		steps := 5 // unless only some of the runs are asked for
		t.Run(victim, func(t *testing.T) {
			steps = y.tell(t, victim, -1, nil).crash.steps
		})
		if steps < 5 {
			t.Fatalf("only %d steps of %s", steps, victim)
		}
		times := steps
		if fullSize() {
			times = 100
		}
		var wg sync.WaitGroup
		slots := make(chan struct{}, atOnce)
		for i := range times {
			if testing.Short() && i%4 != 0 {
				continue
			}
			at, keep := i, []func(int) int{nil, func(n int) int { return n }}[i%2]
			if fullSize() {
				rng := rand.New(rand.NewPCG(uint64(i), 7))
				at = rng.IntN(steps + 2)
				keep = func(n int) int { return rng.IntN(n + 1) }
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				t.Run(fmt.Sprintf("%s dies/%d", victim, i), func(t *testing.T) { y.tell(t, victim, at, keep) })
			})
		}
		wg.Wait()
	}
}

// tell tells it once.
func (y *story) tell(t *testing.T, victim string, at int, keep func(int) int) *stage {
	s := y.cast.perform(t, victim, at, keep)
	s.arm()
	y.act(s)
	s.crash.mu.Lock()
	where := s.crash.where
	s.crash.mu.Unlock()
	s.restart()
	y.again(s)
	y.end(s)
	if t.Failed() {
		t.Logf("%s died at %s", victim, where)
	}
	for _, n := range s.nodes {
		n.Close()
	}
	return s
}
