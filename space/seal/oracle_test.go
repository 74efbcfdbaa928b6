package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

// thing is something sealed, with what an attacker needs beside a key: all of
// it but the key is public.
type thing struct {
	name string
	b    []byte
	aad  []byte // of an AEAD
	info []byte // of an HPKE seal; nil for an AEAD
}

// world is a space of three epochs with everything in it that is ever sealed.
type world struct {
	things []thing
	gks    [4]GroupKey // from 1
	iss    [4]Issuer
	chains []envelope.ChainID
	parent GroupKey
}

const (
	alice = 1 // writes, keeps
	bob   = 2 // reads only itself, and writes
)

var (
	worldSpace  = [32]byte{1}
	worldParent = [32]byte{2}
)

func worldPUK(who byte) identity.PUK { return puk(1, who) }

func (w *world) add(name string, b, aad, info []byte) {
	w.things = append(w.things, thing{name, b, aad, info})
}

// chain adds what a member writes in an epoch.
func (w *world) chain(e epoch, n int, who byte, keys Keys) {
	wr := must(NewWriter(e.rand, e.credential(person(who)), e.issuer.Topic(), keys, person(who)))
	run, _, err := wr.Hello(e.rand, testHello())
	if err != nil {
		panic(err)
	}
	run = append(run, must(wr.Seal(e.rand, envelope.Entry, text(9)))...)
	run = append(run, must(wr.Seal(e.rand, envelope.Control, text(9)))...)
	w.chains = append(w.chains, wr.Chain())
	for i, v := range run {
		what := [...]string{"hello", "entry", "control"}[i]
		nonce := v.Nonce()
		w.add(fmt.Sprintf("%d %s of %d", n, what, who), append(nonce[:], v.Ciphertext()...), v.AAD(), nil)
	}
}

// newWorld links the group keys if history is full, and control keys always:
// inside what is sealed under the epoch's control key, which stands in an entry
// under the key before.
func newWorld(history bool) *world {
	w, r := new(world), random(80)
	w.parent = must(NewGroupKey(r))
	for n := 1; n <= 3; n++ {
		w.gks[n], w.iss[n] = must(NewGroupKey(r)), must(NewIssuer(r))
		gk, num := w.gks[n], uint64(n)
		e := epoch{rand: r, keys: Full(gk), issuer: w.iss[n]}
		self := must(e.keys.Self(person(bob)))
		w.chain(e, n, alice, e.keys)
		w.chain(e, n, bob, self)

		ck := gk.Control()
		here := place(worldSpace, num)
		topic := w.iss[n].Topic()
		w.add(fmt.Sprintf("%d page", n), must(SealObject(r, ck, worldSpace, num, text(9))), here, nil)
		w.add(fmt.Sprintf("%d ctl", n), must(SealCtl(r, ck, topic, text(9))), topic[:], nil)
		w.add(fmt.Sprintf("%d inner", n), must(SealInner(r, ck, worldSpace, num, text(9))), here, nil)
		if n > 1 {
			w.add(fmt.Sprintf("%d ctl link", n), must(LinkControl(r, ck, w.gks[n-1].Control(), worldSpace, num)), here, nil)
		}
		if n > 1 && history {
			w.add(fmt.Sprintf("%d prev", n), must(LinkGroup(r, gk, w.gks[n-1], worldSpace, num)), here, nil)
		}
		ctx := WrapContext{SpaceID: worldSpace, Epoch: num, C: person(alice)}
		w.add(fmt.Sprintf("%d wrap to %d", n, alice), must(Wrap(worldPUK(alice).Public(), ctx, e.keys)), nil, ctx.info(1))
		w.add(fmt.Sprintf("%d issuer to %d", n, alice), must(WrapIssuer(worldPUK(alice).Public(), ctx, e.issuer)), nil, ctx.message(space.LabelWrapIssuer, 1))
		ctx.C = person(bob)
		w.add(fmt.Sprintf("%d wrap to %d", n, bob), must(Wrap(worldPUK(bob).Public(), ctx, self)), nil, ctx.info(1))
		up := DelegateContext{Parent: worldParent, Epoch: 1, Child: worldSpace, ChildEpoch: num}
		w.add(fmt.Sprintf("%d parent's", n), must(WrapDelegate(gk.DelegatePublic(), up, w.parent)), nil, up.info())
	}
	return w
}

// kdfLabels are the labels that a key is derived under anywhere.
var kdfLabels = []space.Label{
	space.LabelCtl, space.LabelAuthor, space.LabelHelloKey, space.LabelPrev, space.LabelFetch, space.LabelDelegate,
	space.LabelEntry, space.LabelCtlEntry, space.LabelCtlSync, space.LabelCtlInner, space.LabelCtlLink,
	space.LabelObject, space.LabelPUKKEM, space.LabelPUKPrev,
}

// derived is every key that can be derived from one in at most two steps, in
// every context there is.
func (w *world) derived(key []byte, steps int, out map[[32]byte]bool) {
	if out[[32]byte(key)] && steps < 2 {
		return
	}
	out[[32]byte(key)] = true
	if steps == 0 {
		return
	}
	for _, l := range kdfLabels {
		var ctxs [][]byte
		switch l {
		case space.LabelAuthor:
			a, b := person(alice), person(bob)
			ctxs = [][]byte{a[:], b[:]}
		case space.LabelEntry, space.LabelCtlEntry:
			ctxs = nil
			for _, c := range w.chains {
				for seq := range uint64(3) {
					ctxs = append(ctxs, binary.BigEndian.AppendUint64(slices.Clone(c[:]), seq))
				}
			}
		default:
			ctxs = [][]byte{nil}
		}
		// An entry's key is the key of nothing else.
		rest := steps - 1
		if l == space.LabelEntry || l == space.LabelCtlEntry {
			rest = 0
		}
		for _, ctx := range ctxs {
			w.derived(space.KDF(key, l, ctx, 32), rest, out)
		}
	}
}

func (v thing) open(key [32]byte) ([]byte, bool) {
	if v.info == nil {
		aead := must(chacha20poly1305.NewX(key[:]))
		b, err := aead.Open(nil, v.b[:24], v.b[24:], v.aad)
		return b, err == nil
	}
	sk := must(hpke.MLKEM768X25519().DeriveKeyPair(key[:]))
	b, err := hpke.Open(sk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), v.info, v.b)
	return b, err == nil
}

// opened is what these secrets open of everything in the world, with whatever
// else they give on the way.
func (w *world) opened(secrets ...[]byte) []string {
	found := map[string]bool{}
	keys, tried := map[[32]byte]bool{}, map[[32]byte]bool{}
	for {
		for _, s := range secrets {
			w.derived(s, 2, keys)
		}
		secrets = nil
		for k := range keys {
			if tried[k] {
				continue
			}
			tried[k] = true
			for _, v := range w.things {
				if found[v.name] || v.info != nil && !kemSeed[k] {
					continue
				}
				b, ok := v.open(k)
				if !ok {
					continue
				}
				found[v.name] = true
				for ; len(b) >= 32 && len(b)%32 == 0; b = b[32:] {
					secrets = append(secrets, b[:32])
				}
			}
		}
		if len(secrets) == 0 {
			return slices.Sorted(maps.Keys(found))
		}
	}
}

// kemSeed are the keys worth the price of a KEM: derived as one.
var kemSeed map[[32]byte]bool

func (w *world) seeds(secrets ...[]byte) {
	kemSeed = map[[32]byte]bool{}
	for _, s := range secrets {
		kemSeed[[32]byte(s)] = true
		kemSeed[[32]byte(space.KDF(s, space.LabelPUKKEM, nil, 32))] = true
		kemSeed[[32]byte(space.KDF(s, space.LabelDelegate, nil, 32))] = true
	}
}

// all names of the epochs given, but those of which drop says so.
func (w *world) names(drop func(n byte, name string) bool) []string {
	var out []string
	for _, v := range w.things {
		if !drop(v.name[0]-'0', v.name[2:]) {
			out = append(out, v.name)
		}
	}
	slices.Sort(out)
	return out
}

// pukSecret is the secret of worldPUK.
func pukSecret(who byte) []byte { return fill(who, 32) }

func check(t *testing.T, who string, got, want []string) {
	t.Helper()
	for _, n := range got {
		if !slices.Contains(want, n) {
			t.Errorf("%s opens %q and may not", who, n)
		}
	}
	for _, n := range want {
		if !slices.Contains(got, n) {
			t.Errorf("%s does not open %q and may", who, n)
		}
	}
}

// TestOracle gives holders of secrets every byte of three epochs and all that
// can be derived: what opens is exactly what may.
func TestOracle(t *testing.T) {
	for _, history := range []bool{true, false} {
		w := newWorld(history)
		var every [][]byte
		for n := 1; n <= 3; n++ {
			every = append(every, w.gks[n].Marshal())
		}
		// alice's wraps give the group keys too, so only their seeds need be tried.
		w.seeds(append(every, w.parent.Marshal(), pukSecret(alice), pukSecret(bob), fill(99, 32))...)

		toMember := func(name string) bool {
			return bytes.Contains([]byte(name), []byte(" to "))
		}
		check(t, "an outsider", w.opened(fill(99, 32)), nil)
		for n := byte(1); n <= 3; n++ {
			// The group key of one epoch, the writer's and chain's keys being of no use.
			got := w.opened(w.gks[n].Marshal())
			check(t, fmt.Sprintf("history %v: reader of epoch %d", history, n), got, w.names(func(in byte, name string) bool {
				switch {
				case in > n || toMember(name):
					return true
				case in == n:
					return false
				case history:
					return false
				}
				return name == "prev" || !underControl(name)
			}))
			// Its issuer opens nothing at all.
			check(t, fmt.Sprintf("issuer of epoch %d", n), w.opened(w.iss[n].Marshal()), nil)
			check(t, "its fetch key", w.opened(w.gks[n].Fetch().Seed()), nil)
		}

		// alice has her per-user key and nothing else: all wraps to her open, and so everything.
		check(t, "alice", w.opened(pukSecret(alice)), w.names(func(_ byte, name string) bool {
			return name == "wrap to 2"
		}))
		// bob reads only itself: all it legally has, of every epoch.
		secrets := [][]byte{pukSecret(bob), fill(99, 32)}
		for n := 1; n <= 3; n++ {
			self := must(Full(w.gks[n]).Self(person(bob)))
			m := self.Marshal()
			secrets = append(secrets, m[:32], m[32:64], m[64:], must(NewWriterKey(random(90))).Marshal(),
				ed25519.NewKeyFromSeed(fill(98, 32)).Seed())
		}
		check(t, "who reads only itself", w.opened(secrets...), w.names(func(_ byte, name string) bool {
			return !underControl(name) && name != "hello of 2" && name != "entry of 2" && name != "wrap to 2"
		}))
		// Of one epoch only, without its per-user key: a thief of one key file's row.
		check(t, "the author key of epoch 2", w.opened(w.gks[2].Author(person(bob)).Marshal()), w.names(func(n byte, name string) bool {
			return n != 2 || name != "hello of 2" && name != "entry of 2"
		}))
		check(t, "the control key of epoch 2", w.opened(w.gks[2].Control().Marshal()), w.names(func(n byte, name string) bool {
			return n > 2 || !underControl(name)
		}))
	}
}

// underControl are the things a control key of their epoch opens.
func underControl(name string) bool {
	switch name {
	case "page", "ctl", "inner", "ctl link", "control of 1", "control of 2":
		return true
	}
	return false
}
