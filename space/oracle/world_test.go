package oracle_test

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/space/oracle"
	"github.com/kithnet/kith/space/seal"
)

// world is people and spaces, everything that was ever sent between them, and
// the model's book of it.
type world struct {
	rand   *rand.ChaCha8
	people []*person
	rooms  []*room
	books  library
	clock  int64

	sent    []*oracle.Item
	whose   map[string][]byte // see oracle.Attacker
	facts   []fact
	secrets map[[32]byte]string // what a secret is called
	links   [][]byte            // secrets of invites: everybody has seen them all
	kems    oracle.KEMs

	broken flaw
}

// room is a space with everything that anybody knows of it.
type room struct {
	w      *world
	name   string
	owner  *person
	state  *control.State
	log    [][]byte
	epochs []*epoch
	count  int // of what is named by number
	invite *control.Invite
	uses   uint32

	objects map[[32]byte][]byte
}

type epoch struct {
	gk  seal.GroupKey
	iss seal.Issuer
}

// flaw is a rule that a world breaks behind the model's back, to see whether
// the oracle tells.
type flaw string

const (
	sound          flaw = ""
	staticKeys     flaw = "removal without rotation"
	oldKey         flaw = "a rotation to a group key of before"
	tellsRemoved   flaw = "a rotation wrapped to the removed as well"
	fullToSelf     flaw = "the group key for a member that reads itself"
	issuerToAll    flaw = "the issuer for a member that does not admit"
	openHistory    flaw = "earlier keys for a newcomer of a space without history"
	controlForPrev flaw = "earlier group keys under the control key"
	stalePUK       flaw = "keys wrapped to the per-user key before the last"
	careless       flaw = "a revoked device is given the next per-user key"
	sharedHello    flaw = "entries under a key that every member has"
)

// newWorld is a crowd without a space.
func newWorld(seed uint64, broken flaw) *world {
	w := &world{
		rand: chance(seed), books: library{}, clock: 1_700_000_000_000, secrets: map[[32]byte]string{}, kems: oracle.KEMs{}, whose: map[string][]byte{}, broken: broken,
	}
	for _, p := range crowd() {
		w.people = append(w.people, p.clone())
	}
	for _, p := range w.people {
		w.pukFact(p)
	}
	return w
}

func (w *world) tick() int64 {
	w.clock += 1000
	return w.clock
}

func (w *world) person(c identity.Commitment) *person {
	for _, p := range w.people {
		if p.state.C == c {
			return p
		}
	}
	panic("a stranger")
}

func (w *world) gen(name string) uint32 {
	for _, p := range w.people {
		if p.name == name {
			return p.gen()
		}
	}
	panic("a stranger")
}

// fact writes down that something can be known.
func (w *world) fact(f fact) string {
	w.facts = append(w.facts, f)
	return f.name
}

// secretFact writes down that something can be known by its bytes.
func (w *world) secretFact(key []byte, f fact) {
	if w.secrets[[32]byte(key)] == "" {
		w.secrets[[32]byte(key)] = w.fact(f)
	}
}

func (w *world) pukFact(p *person) {
	if p.gen() > oracle.MaxGeneration {
		panic("a generation that no attacker tries")
	}
	w.secretFact(p.puk().Marshal()[5:], fact{
		name: fmt.Sprintf("per-user key %d of %s", p.gen(), p.name), kind: factPUK, who: p.name, gen: p.gen(),
	})
}

// found makes a space of owner's.
func (w *world) found(name string, owner *person, history bool) *room {
	r := &room{w: w, name: name, owner: owner, objects: map[[32]byte][]byte{}}
	w.rooms = append(w.rooms, r)
	w.books[name] = newBook(owner.name, history)
	policy := space.DefaultPolicy()
	if !history {
		policy.History = space.HistoryFromJoin
	}
	if w.broken == staticKeys {
		policy.KeyPolicy = space.KeysStatic
		policy.Config = must(space.RecordFromJSON([]byte(`{"acknowledgeNoRevocation":true}`)))
	}
	id := space.ID{Authority: owner.state.DID, Type: "com.example.forum", Key: space.RecordKey(name)}
	genesis := must(control.BuildGenesis(control.Genesis{
		URI: id.AT(), SpaceDID: owner.state.DID, AuthorityC: owner.state.C, AuthorityDID: owner.state.DID,
		CreatorDID: owner.state.DID, IdentityLog: owner.log, AuthorityPub: [32]byte(owner.state.SigPub),
		SequencerPub: owner.devices[0].ID(), Policy: policy,
	}, r.signed(owner), w.tick(), w.rand))
	r.apply(genesis)
	rot := r.draw(r.state, 1, nil)
	r.commit(owner, control.KindEpoch, rot.Epoch)
	owner.drew = append(slices.Clip(owner.drew), r.epochs[0].iss.Marshal())
	r.turned()
	return r
}

// signed are the keys for an entry that p proposes.
func (r *room) signed(p *person) control.BuildKeys {
	k := control.BuildKeys{Proposer: p.devices[0].Sig(), Sequencer: r.owner.devices[0].Sig()}
	if r.state != nil && r.state.Epoch > 0 {
		k.CK = r.epochs[r.state.Epoch-1].gk.Control().Bytes()
	}
	return k
}

// commit lets p propose a change and the owner order it.
func (r *room) commit(p *person, k control.Kind, body any) {
	r.apply(must(control.Build(r.state, k, body, r.signed(p), r.w.tick(), r.w.rand)))
}

// apply takes an entry into the log, and what is sealed of it into the world.
func (r *room) apply(e *control.Entry) {
	before := r.state
	r.state = must(control.Apply(r.state, e))
	name := ""
	if !e.InClear() {
		name = r.w.fact(fact{
			name: fmt.Sprintf("entry %d of the log of %s, %v", e.Seq, r.name, e.Kind), kind: factLog, room: r.name, epoch: before.Epoch,
		})
	}
	r.log = append(r.log, e.Raw())
	r.w.sent = append(r.w.sent, oracle.Entry(name, e.Raw(), r.state.SpaceID, r.objects)...)
}

// turned tells the model of a new epoch.
func (r *room) turned() {
	b := r.w.books[r.name]
	b.turn(r.w.gen)
	n := b.now()
	e := r.epochs[n-1]
	r.w.secretFact(e.gk.Marshal(), fact{name: fmt.Sprintf("group key %d of %s", n, r.name), kind: factGroup, room: r.name, epoch: n})
	r.w.secretFact(e.gk.Control().Bytes(), fact{name: fmt.Sprintf("control key %d of %s", n, r.name), kind: factControl, room: r.name, epoch: n})
	r.w.secretFact(e.iss.Marshal(), fact{name: fmt.Sprintf("issuer %d of %s", n, r.name), kind: factIssuer, room: r.name, epoch: n})
	for _, p := range r.w.people {
		r.w.secretFact(e.gk.Author(p.state.C).Marshal(), fact{
			name: fmt.Sprintf("author key %d of %s in %s", n, p.name, r.name), kind: factAuthor, room: r.name, epoch: n, who: p.name,
		})
	}
}

// rotation draws the next epoch, for the state after a change.
func (r *room) rotation(k control.Kind, body any) *control.Rotation {
	next := must(control.Preview(r.state, k, body))
	var gone []identity.Commitment
	for m := range r.state.Members() {
		if _, in := next.Member(m.C); !in {
			gone = append(gone, m.C)
		}
	}
	return r.draw(next, r.state.Epoch+1, gone)
}

func (r *room) draw(next *control.State, n uint64, gone []identity.Commitment) *control.Rotation {
	w := r.w
	e := &epoch{gk: must(seal.NewGroupKey(w.rand)), iss: must(seal.NewIssuer(w.rand))}
	if w.broken == oldKey && n > 2 {
		e.gk = r.epochs[n-3].gk
	}
	rot := &control.Rotation{Epoch: control.Epoch{N: n, KID: e.gk.KID(), RosterRoot: next.RosterRoot()}}
	rot.Epoch.Inner = r.inner(n, e)
	r.w.sent = append(r.w.sent, oracle.Inner(r.w.fact(fact{
		name: fmt.Sprintf("inner body of epoch %d of %s", n, r.name), kind: factLog, room: r.name, epoch: n,
	}), rot.Epoch.Inner, r.state.SpaceID, n))
	var wraps []control.Wrap
	for reader := range next.Readers() {
		if reader.Delegation {
			wraps = append(wraps, r.wrapSpace(next, reader, n, e))
		} else {
			wraps = append(wraps, r.wrap(w.person(reader.C), reader.Slot, reader.Level, n, e))
		}
	}
	if n > 1 && len(wraps) > 2 && w.rand.Uint64()%2 == 0 {
		r.paged(rot, wraps)
	} else {
		rot.Epoch.Wraps = wraps
	}
	if n > 1 {
		for m := range next.Admitters() {
			rot.Issuers = append(rot.Issuers, r.wrapIssuer(w.person(m.C), m.Slot, n, e.iss))
		}
	}
	r.leak(next, n, e, gone)
	r.epochs = append(r.epochs, e)
	return rot
}

// leak sends what a broken rotation sends besides.
func (r *room) leak(next *control.State, n uint64, e *epoch, gone []identity.Commitment) {
	switch r.w.broken {
	case tellsRemoved:
		for _, c := range gone {
			wrap := r.wrap(r.w.person(c), 0, space.LevelRead, n, e)
			r.w.sent = append(r.w.sent, oracle.Wrap(wrap, r.state.SpaceID, n)...)
		}
	case issuerToAll:
		for m := range next.Members() {
			wrap := r.wrapIssuer(r.w.person(m.C), m.Slot, n, e.iss)
			r.w.sent = append(r.w.sent, oracle.IssuerWrap(wrap, r.state.SpaceID, n))
		}
	}
}

// relay stands in every inner body.
const relay = "/dns4/relay.example/udp/4001/quic-v1"

func (r *room) inner(n uint64, e *epoch) []byte {
	w := r.w
	x := control.EpochInner{Relays: []string{relay}, IssuerPub: [32]byte(e.iss.Public()), FetchPub: [32]byte(e.gk.Fetch().Public().(ed25519.PublicKey))}
	if n > 1 {
		before := r.epochs[n-2].gk
		x.CtlLink = must(seal.LinkControl(w.rand, e.gk.Control(), before.Control(), r.state.SpaceID, n))
		if w.books[r.name].history {
			x.PrevLink = must(seal.LinkGroup(w.rand, e.gk, before, r.state.SpaceID, n))
		}
		if w.broken == controlForPrev {
			w.sent = append(w.sent, oracle.Boxed("", oracle.AsControl, oracle.Derived(space.LabelPrev), nil,
				bare(w.rand, space.KDF(e.gk.Control().Bytes(), space.LabelPrev, nil, 32), before.Marshal()), oracle.Gives(oracle.AsGroup)))
		}
	}
	return must(seal.SealInner(w.rand, e.gk.Control(), r.state.SpaceID, n, must(x.Encode())))
}

// wrap seals an epoch's keys to a person, at its level.
func (r *room) wrap(p *person, slot uint32, l space.Level, n uint64, e *epoch) control.Wrap {
	keys := seal.Full(e.gk)
	if l == space.LevelReadSelf && r.w.broken != fullToSelf {
		keys = must(keys.Self(p.state.C))
	}
	puk := p.puk()
	if r.w.broken == stalePUK && p.gen() > 1 {
		puk = p.puks[len(p.puks)-2]
	}
	x := seal.WrapContext{SpaceID: r.state.SpaceID, Epoch: n, C: p.state.C}
	wrap := control.Wrap{Slot: slot, C: p.state.C, PUKGen: puk.Gen(), Sealed: must(seal.Wrap(puk.Public(), x, keys))}
	return r.addressed(wrap, n, oracle.AsPUK, puk.Public().KEM)
}

func (r *room) wrapIssuer(p *person, slot uint32, n uint64, iss seal.Issuer) control.Wrap {
	x := seal.WrapContext{SpaceID: r.state.SpaceID, Epoch: n, C: p.state.C}
	wrap := control.Wrap{Slot: slot, C: p.state.C, PUKGen: p.gen(), Sealed: must(seal.WrapIssuer(p.state.PUK, x, iss))}
	return r.addressedIssuer(wrap, n, p.state.PUK.KEM)
}

func (r *room) wrapSpace(next *control.State, to control.Reader, n uint64, e *epoch) control.Wrap {
	d, ok := next.Delegation(to.C)
	if !ok {
		panic("a delegation that is none")
	}
	x := seal.DelegateContext{Parent: r.state.SpaceID, Epoch: n, Child: to.C, ChildEpoch: d.Descriptor.Epoch}
	wrap := control.Wrap{Slot: to.Slot, C: to.C, PUKGen: uint32(d.Descriptor.Epoch), Sealed: must(seal.WrapDelegate(d.Descriptor.Delegate, x, e.gk))}
	return r.addressed(wrap, n, oracle.AsGroup, d.Descriptor.Delegate)
}

// paged puts wraps on a page of their own.
func (r *room) paged(rot *control.Rotation, wraps []control.Wrap) {
	n := rot.Epoch.N
	box := must(seal.SealObject(r.w.rand, r.epochs[n-2].gk.Control(), r.state.SpaceID, n-1, must(control.EncodePage(wraps))))
	hash := seal.ObjectName(box)
	r.objects[hash] = box
	rot.Epoch.Pages = [][32]byte{hash}
	name := r.w.fact(fact{name: fmt.Sprintf("wrap page of epoch %d of %s", n, r.name), kind: factLog, room: r.name, epoch: n - 1})
	r.w.sent = append(r.w.sent, oracle.Page(name, box, r.state.SpaceID, n-1, n))
}

// addressed notes whom a wrap is for, so that only that key is tried.
func (r *room) addressed(w control.Wrap, n uint64, role oracle.Role, pub []byte) control.Wrap {
	for _, it := range oracle.Wrap(w, r.state.SpaceID, n) {
		if r.w.whose[string(it.Info)] = nil; it.Role == role {
			r.w.whose[string(it.Info)] = pub
		}
	}
	return w
}

func (r *room) addressedIssuer(w control.Wrap, n uint64, pub []byte) control.Wrap {
	for gen := uint32(1); gen <= oracle.MaxGeneration; gen++ {
		guess := w
		guess.PUKGen = gen
		info := string(oracle.IssuerWrap(guess, r.state.SpaceID, n).Info)
		if gen == w.PUKGen {
			r.w.whose[info] = pub
		} else if _, known := r.w.whose[info]; !known {
			r.w.whose[info] = nil
		}
	}
	return w
}

// write seals one entry of p's, in an epoch that need not be the last.
func (r *room) write(p *person, n uint64, level space.Level) {
	w, e := r.w, r.epochs[n-1]
	held := seal.Full(e.gk)
	if level == space.LevelReadSelf {
		held = must(held.Self(p.state.C))
	}
	key := must(seal.NewWriterKey(w.rand))
	cred := seal.Credential{
		Grant: e.iss.Grant(key.Public(), 2, uint64(w.clock/1000+3600)), Voucher: e.iss.Vouch(key.Public(), p.state.C), Writer: key,
	}
	c := must(seal.NewWriter(w.rand, cred, e.iss.Topic(), held, p.state.C))
	hello, _, err := c.Hello(w.rand, seal.Hello{Device: p.live().ID(), PUKGen: p.gen(), Ctl: r.state.Head})
	if err != nil {
		panic(err)
	}
	r.count++
	if w.broken == staticKeys {
		n = w.books[r.name].now()
	}
	f := fact{name: fmt.Sprintf("hello %d in epoch %d of %s, of %s", r.count, n, r.name, p.name), kind: factHello, room: r.name, epoch: n, who: p.name}
	if level == space.LevelReadSelf {
		f.kind = factOwn
	}
	w.sent = append(w.sent, oracle.Enveloped(w.fact(f), hello[0]))
	for _, env := range must(c.Seal(w.rand, envelope.Entry, fmt.Appendf(nil, "what %s says in epoch %d of %s", p.name, n, r.name))) {
		name := w.fact(fact{
			name: fmt.Sprintf("envelope %d.%d in epoch %d of %s, of %s", r.count, env.Seq(), n, r.name, p.name),
			kind: factEntry, room: r.name, epoch: n, who: p.name,
		})
		w.sent = append(w.sent, oracle.Enveloped(name, env))
		if w.broken == sharedHello {
			ck := e.gk.Control().Bytes()
			w.sent = append(w.sent, oracle.Boxed(name, oracle.AsControl, oracle.Itself, nil, bare(w.rand, ck, []byte("the same again")), nil))
		}
	}
	c.Close()
}

// welcome hands p what is its due, as a keeper does.
func (r *room) welcome(p, keeper *person, level space.Level) {
	w, b := r.w, r.w.books[r.name]
	n := r.state.Epoch
	amount := func(n uint64) seal.Keys {
		k := seal.Full(r.epochs[n-1].gk)
		if level == space.LevelReadSelf {
			return must(k.Self(p.state.C))
		}
		return k
	}
	letter := seal.Welcome{Head: r.state.Head, IssuerPub: r.epochs[n-1].iss.Public()}
	for i := uint64(1); i < n; i++ {
		prior := seal.Prior{Epoch: i, Control: r.epochs[i-1].gk.Control()}
		if b.history || w.broken == openHistory {
			prior.Keys = amount(i)
		}
		letter.Prior = append(letter.Prior, prior)
	}
	x := seal.WelcomeContext{SpaceID: r.state.SpaceID, Epoch: n, Keeper: keeper.devices[0].ID(), C: p.state.C, PUKGen: p.gen()}
	w.rand.Read(x.Nonce[:])
	sealed := must(seal.SealWelcome(p.state.PUK, x, amount(n), letter, keeper.devices[0].Sig()))
	r.count++
	name := w.fact(fact{name: fmt.Sprintf("welcome %d of %s to %s", r.count, p.name, r.name), kind: factWelcome, who: p.name, gen: p.gen()})
	var num [8]byte
	binary.BigEndian.PutUint64(num[:], n)
	info := space.LabelWelcome.Message(r.state.SpaceID[:], num[:], x.Keeper[:], x.C[:], x.Nonce[:], binary.BigEndian.AppendUint32(nil, x.PUKGen))
	w.whose[string(info)] = p.state.PUK.KEM
	w.sent = append(w.sent, oracle.Wrapped(name, oracle.AsPUK, info, sealed[:len(sealed)-64], oracle.Welcome))
	b.welcome(p.name, level, p.gen())
}

// bare is nonce ‖ ciphertext under a key, with no associated data.
func bare(rand *rand.ChaCha8, key, plain []byte) []byte {
	nonce := make([]byte, 24)
	rand.Read(nonce)
	aead := must(chacha20poly1305.NewX(key))
	return aead.Seal(nonce, nonce, plain, nil)
}
