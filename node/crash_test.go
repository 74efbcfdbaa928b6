package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kithnet/kith/internal/store/storetest"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

// cut is what a power cut leaves, and what had been promised by then.
type cut struct {
	disk  *storetest.Disk
	acked map[string]string // texts by key
	heads map[envelope.ChainID]uint64
}

// cutter cuts the power of a node, in a clone, at some of the operations of
// its disk.
type cutter struct {
	disk *storetest.Disk
	rng  *rand.Rand
	many int // one in how many operations

	mu    sync.Mutex // guards what follows
	on    bool
	acked map[string]string
	peer  *actor // the other member, whose chains are what was published
	cuts  []cut
}

func newCutter(many int) *cutter {
	c := &cutter{disk: storetest.NewDisk(), rng: rand.New(rand.NewPCG(1, 2)), many: many, acked: map[string]string{}}
	c.disk.OnOp = c.op
	return c
}

func (c *cutter) op() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.on || c.rng.IntN(c.many) != 0 {
		return
	}
	keep := func(n int) int { return c.rng.IntN(n + 1) }
	if c.rng.IntN(2) == 0 {
		keep = nil
	}
	// What was promised is noted before the clone, so that the clone owes it.
	at := cut{acked: maps.Clone(c.acked), heads: headsOf(c.peer)}
	at.disk = c.disk.Clone(keep)
	c.cuts = append(c.cuts, at)
}

func (c *cutter) ack(keys []string, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		c.acked[key] = text
	}
}

func headsOf(a *actor) map[envelope.ChainID]uint64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	heads := map[envelope.ChainID]uint64{}
	for ch := range a.now.topic.Chains() {
		heads[ch.ID] = ch.Head.Seq
	}
	return heads
}

// TestPowerCuts cuts the power at many operations of a member's disk while it
// writes, alone and many at once, and starts it again on what is left: what
// was acknowledged is there, no batch is there by halves, every digest is that
// of what it stands for, nothing was published that is not there, a chain is
// never resumed, and the other member gets it all.
func TestPowerCuts(t *testing.T) {
	c := newCutter(2)
	home := newHome(t)
	a, b := boot(t, home, onDisk(c.disk)), boot(t, newHome(t), onDisk(nil))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a, b, id)
	peer, err := b.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.peer, c.on = peer, true
	c.mu.Unlock()
	c.write(t, a, id)
	c.mu.Lock()
	c.on = false
	cuts := c.cuts
	c.mu.Unlock()
	halt(t, a)
	if len(cuts) < 32 {
		t.Fatalf("only %d cuts", len(cuts))
	}
	c.rng.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
	chains, own := headsOf(peer), devicesOf(t, peer)
	for i, cut := range cuts[:min(len(cuts), 64)] {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			n := boot(t, home, onDisk(cut.disk))
			cut.check(t, n, id, own)
			fresh(t, n, id, chains)
			if i%4 == 0 {
				if _, err := n.Connect(t.Context(), fullAddrs(b.host)[0]); err != nil {
					t.Fatal(err)
				}
				soon(t, "both hold the same", alike(n, b, id))
				sound(t, b, id)
			}
			halt(t, n)
		})
	}
}

// write writes one after the other and many at once; the keys of a trio are
// always written together.
func (c *cutter) write(t *testing.T, n *Node, id space.ID) {
	put := func(text string, keys ...string) {
		if _, err := putAll(n, id, text, keys...); err != nil {
			t.Error(err)
			return
		}
		c.ack(keys, text)
	}
	for i := range 12 {
		put(fmt.Sprint("single ", i), fmt.Sprint("single-", i))
		put(fmt.Sprintf("%04d", i), "trio-a", "trio-b", "trio-c")
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 4 {
				put("many", fmt.Sprintf("many-%d-%d", w, i), fmt.Sprintf("many-%d-%d-too", w, i))
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		put(fmt.Sprintf("%04d", 12+i), "trio-a", "trio-b", "trio-c")
	}
}

// check tests a node on what the cut left; own names the devices of chains.
func (at cut) check(t *testing.T, n *Node, id space.ID, own map[envelope.ChainID]identity.DeviceID) {
	t.Helper()
	for key, text := range at.acked {
		got := textOf(t, n, id, key)
		if strings.HasPrefix(key, "trio") {
			if have, _ := strconv.Atoi(got); got == "" || fmt.Sprintf("%04d", have) < text {
				t.Errorf("%s says %q, %q was acknowledged", key, got, text)
			}
		} else if got != text {
			t.Errorf("%s says %q, %q was acknowledged", key, got, text)
		}
	}
	whole(t, n, id, "trio-a", "trio-b", "trio-c")
	for w := range 8 {
		for i := range 4 {
			whole(t, n, id, fmt.Sprintf("many-%d-%d", w, i), fmt.Sprintf("many-%d-%d-too", w, i))
		}
	}
	sound(t, n, id)
	a, err := n.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	have := headsOf(a)
	for chain, seq := range at.heads {
		if own[chain] == n.self.device.ID() && (have[chain] < seq || have[chain] == 0) {
			t.Errorf("chain %.4x was published up to %d and is here up to %d", chain, seq, have[chain])
		}
	}
}

// fresh checks that the next write opens a chain that nobody has seen.
func fresh(t *testing.T, n *Node, id space.ID, seen map[envelope.ChainID]uint64) {
	t.Helper()
	a, err := n.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := putAll(n, id, "after the cut", "after"); err != nil {
		t.Fatal(err)
	}
	chain := inside(t, a, func() envelope.ChainID { return a.writer.Chain() })
	if _, again := seen[chain]; again {
		t.Errorf("chain %.4x exists already", chain)
	}
	seen[chain] = 0
}

// inside asks an actor for something that its goroutine alone may look at.
func inside[T any](t *testing.T, a *actor, f func() T) T {
	t.Helper()
	reply := make(chan T, 1)
	v, err := ask(t.Context(), a, look(func() { reply <- f() }), reply)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type look func()

func (f look) handle(*actor) { f() }

// devicesOf are the devices that write the chains of a space.
func devicesOf(t *testing.T, a *actor) map[envelope.ChainID]identity.DeviceID {
	t.Helper()
	return inside(t, a, func() map[envelope.ChainID]identity.DeviceID {
		devices := map[envelope.ChainID]identity.DeviceID{}
		for id, ch := range a.chains {
			devices[id] = ch.device
		}
		return devices
	})
}

func textOf(t *testing.T, n *Node, id space.ID, key string) string {
	t.Helper()
	r, err := n.Record(t.Context(), id, "", testPath(key))
	if err != nil {
		t.Errorf("%s: %v", key, err)
		return ""
	}
	b, err := r.Value.JSON()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), `"text":"`)
	text, _, _ := strings.Cut(rest, `"`)
	return text
}

// moment is a home in the middle of something, as a crash leaves it.
type moment struct {
	home string
	disk *storetest.Disk
	keys int // key records of spaces in it
}

// watch copies home before every operation of its disk while f runs.
func watch(t *testing.T, w *watched, home string, f func()) []moment {
	t.Helper()
	var all []moment
	w.set(func() {
		m := moment{home: t.TempDir(), disk: w.disk.Clone(nil)}
		err := os.CopyFS(m.home, os.DirFS(home))
		for errors.Is(err, fs.ErrNotExist) { // a key file was renamed under the copy
			m.home = t.TempDir()
			err = os.CopyFS(m.home, os.DirFS(home))
		}
		if err != nil {
			t.Error(err)
		}
		found, _ := filepath.Glob(filepath.Join(m.home, keysDir, spaceKeyPrefix+"*"))
		m.keys = len(found)
		all = append(all, m)
	})
	f()
	w.set(nil)
	return all
}

// watched is a disk with a hook that can be changed.
type watched struct {
	disk *storetest.Disk
	mu   sync.Mutex // guards what follows; held while the hook runs
	hook func()
}

func newWatched() *watched {
	w := &watched{disk: storetest.NewDisk()}
	w.disk.OnOp = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.hook != nil {
			w.hook()
		}
	}
	return w
}

func (w *watched) set(hook func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = hook
}

// records counts the key records of spaces in a home; no marker may be left.
func records(t *testing.T, n *Node) (records int) {
	t.Helper()
	names, err := n.keys.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, spaceKeyPrefix) {
			records++
		}
		if strings.HasPrefix(name, markerPrefix) {
			t.Errorf("a marker is left: %s", name)
		}
	}
	return records
}

// TestCrashWhileCreating: a space is there after a restart or never was.
func TestCrashWhileCreating(t *testing.T) {
	w, home := newWatched(), newHome(t)
	n := boot(t, home, onDisk(w.disk))
	moments := watch(t, w, home, func() {
		if _, err := newSpace(n, "club"); err != nil {
			t.Error(err)
		}
	})
	halt(t, n)
	ghosts := 0
	for _, m := range moments {
		n := boot(t, m.home, onDisk(m.disk))
		spaces, err := n.Spaces(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := records(t, n); got != len(spaces) {
			t.Errorf("%d key records, %d spaces", got, len(spaces))
		}
		ghosts += m.keys - len(spaces)
		if len(spaces) == 0 {
			id, err := newSpace(n, "club")
			if err != nil {
				t.Fatal(err)
			}
			spaces = append(spaces, xrpc.SpaceInfo{ID: id})
		}
		if _, err := putAll(n, spaces[0].ID, "text", "key"); err != nil {
			t.Error(err)
		}
		sound(t, n, spaces[0].ID)
		halt(t, n)
	}
	if ghosts == 0 {
		t.Error("no crash between the keys and the log")
	}
}

// TestCrashWhileJoining: so it is with a space that is joined, and the same
// link joins it after all.
func TestCrashWhileJoining(t *testing.T) {
	w, home := newWatched(), newHome(t)
	a, b := boot(t, newHome(t), onDisk(nil)), boot(t, home, onDisk(w.disk))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	moments := watch(t, w, home, func() {
		if _, err := b.Join(t.Context(), inv.Link); err != nil {
			t.Error(err)
		}
	})
	halt(t, b)
	ghosts := 0
	for _, m := range moments {
		n := boot(t, m.home, onDisk(m.disk))
		spaces := n.all()
		if got := records(t, n); got != len(spaces) {
			t.Errorf("%d key records, %d spaces", got, len(spaces))
		}
		ghosts += m.keys - len(spaces)
		if len(spaces) == 0 {
			_, err = n.Join(t.Context(), inv.Link)
		} else {
			_, err = n.Connect(t.Context(), fullAddrs(a.host)[0])
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := putAll(n, id, "text", "key"); err != nil {
			t.Error(err)
		}
		soon(t, "both hold the same", alike(a, n, id))
		sound(t, n, id)
		halt(t, n)
	}
	if ghosts == 0 {
		t.Error("no crash between the keys and the log")
	}
}

// TestLostStore: the keys of a space outlive its rows. Only what was never
// finished is removed.
func TestLostStore(t *testing.T) {
	disk, home := storetest.NewDisk(), newHome(t)
	n := boot(t, home, onDisk(disk))
	id, err := newSpace(n, "club")
	if err != nil {
		t.Fatal(err)
	}
	key := spaceKeyName(n.storeKey, n.spaceIDs()[0])
	// As a crash just before the marker went leaves it.
	if err := n.keys.Put(markerPrefix+strings.TrimPrefix(key, spaceKeyPrefix), nil); err != nil {
		t.Fatal(err)
	}
	halt(t, n)
	n = boot(t, home, onDisk(disk))
	if got := records(t, n); got != 1 || len(n.all()) != 1 {
		t.Fatalf("with a marker left: %d key records, %d spaces", got, len(n.all()))
	}
	halt(t, n)
	n = boot(t, home, onDisk(storetest.NewDisk()))
	if got := records(t, n); got != 1 || len(n.all()) != 0 {
		t.Fatalf("without the store: %d key records, %d spaces", got, len(n.all()))
	}
	halt(t, n)
	n = boot(t, home, onDisk(disk))
	if _, err := putAll(n, id, "text", "key"); err != nil {
		t.Error(err)
	}
}

// TestDamage flips bytes in the files of a member's stopped node. It starts
// again and has all of it once it met the other member, or says what is wrong.
func TestDamage(t *testing.T) {
	homeA, homeB := newHome(t), newHome(t)
	a, b := boot(t, homeA), boot(t, homeB)
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	admitTo(t, a, b, id)
	long := strings.Repeat("x", 3000)
	for i := range 12 {
		for _, n := range []*Node{a, b} {
			if _, err := putAll(n, id, fmt.Sprint(i, long), fmt.Sprint("key-", i, "-a"), fmt.Sprint("key-", i, "-b")); err != nil {
				t.Fatal(err)
			}
		}
	}
	soon(t, "both hold the same", alike(a, b, id))
	halt(t, b)
	t.Run("member", func(t *testing.T) { damage(t, homeB, a, id) })
	b = boot(t, homeB)
	halt(t, a)
	t.Run("authority", func(t *testing.T) { damage(t, homeA, b, id) })
}

// damage flips bytes in copies of a home; other is the node of the other
// member.
func damage(t *testing.T, home string, other *Node, id space.ID) {
	rng := rand.New(rand.NewPCG(3, 4))
	healed, recovered := 0, 0
	for range 12 {
		hurt := t.TempDir()
		if err := os.CopyFS(hurt, os.DirFS(home)); err != nil {
			t.Fatal(err)
		}
		what := flip(t, filepath.Join(hurt, storeDir), rng)
		n, err := tryBoot(t, hurt)
		if err != nil {
			if !strings.Contains(err.Error(), "store") {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if n.store.Recovered() {
			recovered++
		}
		if _, err := n.byID(id); err != nil {
			if got := records(t, n); got != 1 || n.stats.Unopened.Load() != 1 || !n.store.Recovered() {
				t.Errorf("%s: the space is gone without a word; %d key records", what, got)
			}
			halt(t, n)
			continue
		}
		if _, err := n.Connect(t.Context(), fullAddrs(other.host)[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := putAll(n, id, what, "after"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		soon(t, what, alike(n, other, id))
		sound(t, n, id)
		sound(t, other, id)
		sequences(t, n, id)
		healed++
		halt(t, n)
	}
	t.Logf("%d stores were repaired, %d nodes healed", recovered, healed)
	if recovered < 4 || healed < 4 {
		t.Errorf("of 12: %d stores were repaired, %d nodes healed", recovered, healed)
	}
}

// flip changes a few bytes of a file of a store and says where.
func flip(t *testing.T, dir string, rng *rand.Rand) string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"FORMAT", "db/CURRENT", "db/MANIFEST-*", "db/*.log", "db/*.log", "db/*.log", "db/*.log", "db/*.ldb"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	name := files[rng.IntN(len(files))]
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	if len(b) > 0 {
		at = rng.IntN(len(b))
		for i := at; i < min(at+4, len(b)); i++ {
			b[i] ^= byte(1 + rng.IntN(255))
		}
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s damaged at %d of %d", filepath.Base(name), at, len(b))
}

// sequences checks that the authority's node, having heard from a member,
// appends to the control log again.
func sequences(t *testing.T, n *Node, id space.ID) {
	t.Helper()
	a, err := n.byID(id)
	if err != nil {
		t.Fatal(err)
	}
	if a.current().iss == nil {
		return
	}
	soon(t, "the control log moves", func() error {
		_, err := n.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
		return err
	})
}

// TestRepairedAuthorityWaits: a node whose log may have lost its end does not
// append to the control log until a member's node has shown what it has.
// Records are written meanwhile.
func TestRepairedAuthorityWaits(t *testing.T) {
	w, home := newWatched(), newHome(t)
	a, b := boot(t, home, onDisk(w.disk)), boot(t, newHome(t), onDisk(nil))
	id, err := newSpace(a, "club")
	if err != nil {
		t.Fatal(err)
	}
	inv, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		t.Fatal(err)
	}
	var torn *storetest.Disk // from before b came
	w.set(func() {
		whole := 0
		d := w.disk.Clone(func(n int) int { whole = max(whole, n); return n / 2 })
		if whole > 0 {
			torn = d
		}
	})
	if _, err := putAll(a, id, "text", "key"); err != nil {
		t.Fatal(err)
	}
	w.set(nil)
	if _, err := b.Join(t.Context(), inv.Link); err != nil {
		t.Fatal(err)
	}
	soon(t, "both hold the same", alike(a, b, id))
	halt(t, a)
	a = boot(t, home, onDisk(torn))
	if !a.store.Recovered() {
		t.Fatal("a torn log is no damage")
	}
	invite := func() error {
		_, err := a.Invite(t.Context(), id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
		return err
	}
	if err := invite(); !errors.Is(err, space.ErrUnavailable) {
		t.Errorf("invite before anybody came: %v", err)
	}
	if _, err := putAll(a, id, "text", "key"); err != nil {
		t.Error(err)
	}
	if _, err := a.Connect(t.Context(), fullAddrs(b.host)[0]); err != nil {
		t.Fatal(err)
	}
	soon(t, "both hold the same again", alike(a, b, id))
	soon(t, "invite", invite)
	soon(t, "both know of it", alike(a, b, id))
}
