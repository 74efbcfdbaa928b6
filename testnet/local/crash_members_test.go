package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

var full = flag.Bool("full", false, "kill 50 nodes in the middle of each change of membership, not 2")

// killing is a space of real processes, one of which is killed in the middle of
// each change.
type killing struct {
	*cast
	t     *testing.T
	id    space.ID
	in    []string // who belongs to it, the authority first
	rng   *rand.Rand
	acked map[space.URI]bool
	wrote int
}

// TestKilledWhileMembershipChanges kills nodes with SIGKILL while somebody is
// admitted, an epoch opened, a device revoked and somebody removed: the node
// that orders the log and, in turn, one that adopts. Afterwards there is one
// entry in the roster for everybody who is in, one epoch for each change that
// opens one, and every acknowledged write at every node.
func TestKilledWhileMembershipChanges(t *testing.T) {
	rounds := 1
	if *full {
		rounds = 25
	}
	c, err := newCast(built(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.leave() })
	k := &killing{cast: c, t: t, rng: rand.New(rand.NewPCG(3, 5)), in: []string{"ada", "ben"}, acked: map[space.URI]bool{}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(3*rounds)*time.Minute)
	defer cancel()
	if _, err := c.enter(ctx, k.in...); err != nil {
		t.Fatal(err)
	}
	info, err := k.node("ada").CreateSpace(ctx, xrpc.NewSpace{Type: forumType, Name: "club", Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	k.id = info.ID
	if _, err := k.node("ben").JoinWait(ctx, k.invite(ctx), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	for i := range rounds {
		for _, victim := range []string{"ada", "ben"} {
			k.admission(ctx, victim, fmt.Sprintf("%s%d", victim[:1], i))
			k.rotation(ctx, victim)
			k.revocation(ctx, victim, fmt.Sprintf("phone-%s%d", victim[:1], i))
			k.removal(ctx, victim)
		}
	}
}

func (k *killing) node(name string) *node {
	all := k.all()
	return all[slices.IndexFunc(all, func(n *node) bool { return n.name == name })]
}

func (k *killing) invite(ctx context.Context) string {
	k.t.Helper()
	inv, err := k.node("ada").Invite(ctx, k.id, xrpc.InviteOptions{Level: space.LevelWrite, MaxUses: 1})
	if err != nil {
		k.t.Fatal(err)
	}
	return inv.Link
}

// write lets a node write; only what is answered is owed.
func (k *killing) write(ctx context.Context, who string) error {
	k.wrote++
	path, rec, err := note("note", k.wrote, "number")
	if err != nil {
		return err
	}
	n := k.node(who)
	if _, err := n.PutRecord(ctx, k.id, path, rec, nil); err != nil {
		return err
	}
	k.acked[space.URI{Space: k.id, Author: n.DID, Path: path}] = true
	return nil
}

// dies asks for a change and kills victim a moment later; then it is back, and
// the change is asked for again unless it has come about.
func (k *killing) dies(ctx context.Context, victim string, change func() error, done func() error) {
	k.t.Helper()
	n := k.node(victim)
	for range 3 {
		if err := k.write(ctx, victim); err != nil {
			k.t.Fatal(err)
		}
	}
	answer := make(chan error, 1)
	go func() { answer <- change() }()
	<-time.After(time.Duration(k.rng.IntN(12_000)) * time.Microsecond) // where it hits is left to chance
	n.kill()
	first := <-answer
	if _, err := k.again(ctx, n); err != nil {
		k.t.Fatal(err)
	}
	start := time.Now()
	defer func() { k.t.Logf("%s: %v until it has come about", victim, time.Since(start)) }()
	err := until(ctx, func() error {
		if err := done(); err == nil {
			return nil
		}
		if err := change(); err != nil {
			return err
		}
		return done()
	})
	if err != nil {
		k.t.Fatalf("%s was killed, the change answered %v; after its restart: %v", victim, first, err)
	}
}

// admission ends with one line in the roster for the newcomer.
func (k *killing) admission(ctx context.Context, victim, name string) {
	k.t.Helper()
	started, err := k.enter(ctx, name)
	if err != nil {
		k.t.Fatal(err)
	}
	link := k.invite(ctx)
	epoch := k.epoch(ctx, "ada")
	change := func() error {
		// The link says where the authority was; its new address is told.
		if _, err := started[0].Connect(ctx, k.node("ada").Listen[0]); err != nil {
			return err
		}
		_, err := started[0].JoinWait(ctx, link, time.Second)
		return err
	}
	k.dies(ctx, victim, change, func() error {
		_, err := started[0].Space(ctx, k.id)
		return err
	})
	k.in = append(k.in, name)
	k.agree(ctx, epoch)
}

// rotation ends one epoch later.
func (k *killing) rotation(ctx context.Context, victim string) {
	k.t.Helper()
	epoch := k.epoch(ctx, "ada")
	k.dies(ctx, victim, func() error {
		if k.reached(ctx, epoch+1) == nil {
			return nil
		}
		_, err := k.node("ada").Rotate(ctx, k.id)
		return err
	}, func() error { return k.reached(ctx, epoch+1) })
	k.agree(ctx, epoch+1)
}

// removal ends one epoch later, without the last who came.
func (k *killing) removal(ctx context.Context, victim string) {
	k.t.Helper()
	epoch := k.epoch(ctx, "ada")
	gone := k.node(k.in[len(k.in)-1])
	change := func() error { return k.node("ada").RemoveMember(ctx, k.id, gone.DID) }
	k.dies(ctx, victim, change, func() error { return k.reached(ctx, epoch+1) })
	k.in = k.in[:len(k.in)-1]
	k.agree(ctx, epoch+1)
	if err := gone.stop(); err != nil {
		k.t.Error(err)
	}
}

// revocation ends one epoch later, with the device shut out.
func (k *killing) revocation(ctx context.Context, victim, name string) {
	k.t.Helper()
	device := k.enrol(ctx, name)
	epoch := k.epoch(ctx, "ada")
	change := func() error {
		_, err := k.node("ada").RevokeDevice(ctx, device)
		return err
	}
	k.dies(ctx, victim, change, func() error {
		all, err := k.node("ada").Devices(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(d xrpc.Device) bool { return d.ID == device && d.Revoked }) {
			return errors.New("the device is not revoked")
		}
		return k.reached(ctx, epoch+1)
	})
	k.agree(ctx, epoch+1)
}

// enrol makes a new machine a device of the authority's owner.
func (k *killing) enrol(ctx context.Context, name string) string {
	k.t.Helper()
	home, file := filepath.Join(k.dir, name), filepath.Join(k.dir, name+".code")
	cmd := exec.CommandContext(ctx, k.kith, "--home", home, "device", "add", "--name", name, "--no-mdns",
		"--listen", "/ip4/127.0.0.1/tcp/0", "--code-file", file)
	cmd.Env = cleanEnv(os.Environ())
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	var shown struct {
		Code  string
		Addrs []string
	}
	err := until(ctx, func() error {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &shown)
	})
	if err != nil {
		k.t.Fatal(err)
	}
	d, err := k.node("ada").ApproveDevice(ctx, shown.Code, shown.Addrs[0])
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return d.ID
}

func (k *killing) epoch(ctx context.Context, who string) uint64 {
	k.t.Helper()
	_, s, err := k.node(who).status(ctx, k.id)
	if err != nil {
		k.t.Fatal(err)
	}
	return s.Epoch
}

// reached is content when the authority's node is at an epoch.
func (k *killing) reached(ctx context.Context, epoch uint64) error {
	_, s, err := k.node("ada").status(ctx, k.id)
	if err == nil && s.Epoch < epoch {
		err = fmt.Errorf("epoch %d, want %d", s.Epoch, epoch)
	}
	return err
}

// agree waits until everybody who is in writes, holds the same, at that epoch,
// with that roster and with all that was ever acknowledged.
func (k *killing) agree(ctx context.Context, epoch uint64) {
	k.t.Helper()
	start := time.Now()
	defer func() { k.t.Logf("%v until all agree", time.Since(start)) }()
	want := make([]string, len(k.in))
	for i, name := range k.in {
		want[i] = string(k.node(name).DID)
		if err := until(ctx, func() error { return k.write(ctx, name) }); err != nil {
			k.t.Fatal(err)
		}
	}
	slices.Sort(want)
	slow := 5 * time.Second
	err := until(ctx, func() (err error) {
		defer func() {
			if took := time.Since(start); err != nil && took > slow {
				slow *= 2
				k.t.Logf("not after %v: %v%s", took, err, k.scene(ctx))
			}
		}()
		var digest string
		for _, name := range k.in {
			_, s, err := k.node(name).status(ctx, k.id)
			if err != nil {
				return err
			}
			if digest = cmp.Or(digest, s.Digest); s.Digest != digest || s.Epoch != epoch || s.LastError != "" {
				return fmt.Errorf("%s is at epoch %d, want %d, digest %.8s, want %.8s; %s", name, s.Epoch, epoch, s.Digest, digest, s.LastError)
			}
			members, err := k.node(name).Members(ctx, k.id)
			if err != nil {
				return err
			}
			var got []string
			for _, m := range members {
				got = append(got, string(m.DID))
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				return fmt.Errorf("%s has the members %s, want %s", name, strings.Join(got, " "), strings.Join(want, " "))
			}
		}
		return nil
	})
	if err != nil {
		k.t.Fatal(k.explain(err))
	}
	for uri := range k.acked {
		for _, name := range k.in {
			if _, err := k.node(name).Record(ctx, k.id, uri.Author, uri.Path); err != nil {
				k.t.Errorf("%s lacks %s, which was acknowledged: %v", name, uri, err)
			}
		}
	}
}

// scene is whom everybody is connected with and how the last rounds went.
func (k *killing) scene(ctx context.Context) string {
	var b strings.Builder
	for _, name := range k.in {
		st, s, err := k.node(name).status(ctx, k.id)
		fmt.Fprintf(&b, "\n%s: %v, peer %s, connected with", name, err, st.PeerID)
		for _, p := range st.Peers {
			fmt.Fprintf(&b, " %s (%v ago)", p.PeerID, time.Since(time.UnixMilli(p.Since)).Round(time.Millisecond))
		}
		for _, r := range s.Rounds {
			fmt.Fprintf(&b, "\n\tround %+v", r)
		}
	}
	return b.String()
}
