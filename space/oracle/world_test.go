package oracle_test

import (
	"bytes"
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

	sent    []*item
	facts   []fact
	secrets map[[32]byte]string // what a secret is called
	links   [][]byte            // secrets of invites: everybody has seen them all
	kems    kems

	broken flaw
}

// room is a space with everything that anybody knows of it.
type room struct {
	w      *world
	name   string
	owner  *person
	state  *control.State
	epochs []*epoch
	count  int // of what is named by number
	invite *control.Invite
	uses   uint32
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
		rand: chance(seed), books: library{}, clock: 1_700_000_000_000, secrets: map[[32]byte]string{}, kems: kems{}, broken: broken,
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
	w.secretFact(p.puk().Marshal()[5:], fact{
		name: fmt.Sprintf("per-user key %d of %s", p.gen(), p.name), kind: factPUK, who: p.name, gen: p.gen(),
	})
}

// found makes a space of owner's.
func (w *world) found(name string, owner *person, history bool) *room {
	r := &room{w: w, name: name, owner: owner}
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
	inside := r.reveal(e.Body())
	if e.InClear() {
		r.w.sent = append(r.w.sent, inside...)
		return
	}
	raw := e.Raw()
	name := r.w.fact(fact{
		name: fmt.Sprintf("entry %d of the log of %s, %v", e.Seq, r.name, e.Kind), kind: factLog, room: r.name, epoch: before.Epoch,
	})
	r.w.sent = append(r.w.sent, &item{
		name: name, role: asControl, key: itself, nonce: raw[172:196], aad: raw[:196], ct: raw[196 : len(raw)-128],
		opened: func(a *attacker, _ []byte) {
			for _, it := range inside {
				a.see(it)
			}
		},
	})
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
			r.w.sent = append(r.w.sent, r.unwrapping(wrap, n))
		}
	case issuerToAll:
		for m := range next.Members() {
			wrap := r.wrapIssuer(r.w.person(m.C), m.Slot, n, e.iss)
			r.w.sent = append(r.w.sent, r.issuing(wrap, n))
		}
	}
}

func (r *room) inner(n uint64, e *epoch) []byte {
	w := r.w
	x := control.EpochInner{IssuerPub: [32]byte(e.iss.Public()), FetchPub: [32]byte(e.gk.Fetch().Public().(ed25519.PublicKey))}
	if n > 1 {
		before := r.epochs[n-2].gk
		x.CtlLink = must(seal.LinkControl(w.rand, e.gk.Control(), before.Control(), r.state.SpaceID, n))
		if w.books[r.name].history {
			x.PrevLink = must(seal.LinkGroup(w.rand, e.gk, before, r.state.SpaceID, n))
		}
		if w.broken == controlForPrev {
			w.sent = append(w.sent, boxed("", asControl, derived(space.LabelPrev), nil,
				bare(w.rand, space.KDF(e.gk.Control().Bytes(), space.LabelPrev, nil, 32), before.Marshal()), gives(asGroup)))
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
	return control.Wrap{Slot: slot, C: p.state.C, PUKGen: puk.Gen(), Sealed: must(seal.Wrap(puk.Public(), x, keys))}
}

func (r *room) wrapIssuer(p *person, slot uint32, n uint64, iss seal.Issuer) control.Wrap {
	x := seal.WrapContext{SpaceID: r.state.SpaceID, Epoch: n, C: p.state.C}
	return control.Wrap{Slot: slot, C: p.state.C, PUKGen: p.gen(), Sealed: must(seal.WrapIssuer(p.state.PUK, x, iss))}
}

func (r *room) wrapSpace(next *control.State, to control.Reader, n uint64, e *epoch) control.Wrap {
	d, ok := next.Delegation(to.C)
	if !ok {
		panic("a delegation that is none")
	}
	x := seal.DelegateContext{Parent: r.state.SpaceID, Epoch: n, Child: to.C, ChildEpoch: d.Descriptor.Epoch}
	return control.Wrap{Slot: to.Slot, C: to.C, PUKGen: uint32(d.Descriptor.Epoch), Sealed: must(seal.WrapDelegate(d.Descriptor.Delegate, x, e.gk))}
}

// paged puts wraps on a page of their own.
func (r *room) paged(rot *control.Rotation, wraps []control.Wrap) {
	n := rot.Epoch.N
	box := must(seal.SealObject(r.w.rand, r.epochs[n-2].gk.Control(), r.state.SpaceID, n-1, must(control.EncodePage(wraps))))
	rot.Epoch.Pages = [][32]byte{seal.ObjectName(box)}
	name := r.w.fact(fact{name: fmt.Sprintf("wrap page of epoch %d of %s", n, r.name), kind: factLog, room: r.name, epoch: n - 1})
	r.w.sent = append(r.w.sent, boxed(name, asControl, derived(space.LabelObject), r.place(n-1), box, func(a *attacker, plain []byte) {
		for _, wrap := range must(control.DecodePage(plain)) {
			a.see(r.unwrapping(wrap, n))
		}
	}))
}

func (r *room) place(epoch uint64) []byte {
	return binary.BigEndian.AppendUint64(slices.Clone(r.state.SpaceID[:]), epoch)
}

// reveal is what can be tried once a control entry's body is read.
func (r *room) reveal(body any) []*item {
	var out []*item
	var rot *control.Rotation
	switch b := body.(type) {
	case control.Epoch:
		rot = &control.Rotation{Epoch: b}
	case control.Rotation:
		rot = &b
	case control.MemberRemove:
		rot = b.Rotation
	case control.MemberLevel:
		rot = b.Rotation
	case control.PolicyChange:
		rot = b.Rotation
	case control.InviteRevoke:
		rot = b.Rotation
	case control.Delegation:
		rot = b.Rotation
	case control.KeeperSet:
		rot = b.Rotation
		if len(b.Issuer) > 0 {
			p := r.w.person(b.C)
			out = append(out, r.issuing(control.Wrap{C: b.C, PUKGen: p.gen(), Sealed: b.Issuer}, r.state.Epoch))
		}
	}
	if rot == nil {
		return out
	}
	n := rot.Epoch.N
	for _, wrap := range rot.Epoch.Wraps {
		out = append(out, r.unwrapping(wrap, n))
	}
	for _, wrap := range rot.Issuers {
		out = append(out, r.issuing(wrap, n))
	}
	name := r.w.fact(fact{name: fmt.Sprintf("inner body of epoch %d of %s", n, r.name), kind: factLog, room: r.name, epoch: n})
	return append(out, boxed(name, asControl, derived(space.LabelCtlInner), r.place(n), rot.Epoch.Inner, func(a *attacker, plain []byte) {
		x := must(control.DecodeEpochInner(plain))
		if len(x.CtlLink) > 0 {
			a.see(boxed("", asControl, derived(space.LabelCtlLink), r.place(n), x.CtlLink, gives(asControl)))
		}
		if len(x.PrevLink) > 0 {
			a.see(boxed("", asGroup, derived(space.LabelPrev), r.place(n), x.PrevLink, gives(asGroup)))
		}
	}))
}

// keys is the reading of seal.Keys.
func keys(a *attacker, plain []byte) {
	if len(plain) == 32 {
		a.learn(plain, asGroup)
		return
	}
	a.learn(plain[:32], asAuthor)
	a.learn(plain[32:64], asControl)
	a.learn(plain[64:96], asOther)
}

func (r *room) unwrapping(wrap control.Wrap, n uint64) *item {
	var num [8]byte
	binary.BigEndian.PutUint64(num[:], n)
	for _, child := range r.w.rooms {
		if child.state != nil && child.state.SpaceID == wrap.C && wrap.PUKGen <= uint32(len(child.epochs)) {
			at := binary.BigEndian.AppendUint64(nil, uint64(wrap.PUKGen))
			info := space.LabelWrapChild.Message(r.state.SpaceID[:], num[:], wrap.C[:], at)
			return wrapped("", asGroup, child.epochs[wrap.PUKGen-1].gk.DelegatePublic(), info, wrap.Sealed, gives(asGroup))
		}
	}
	p := r.w.person(wrap.C)
	info := space.LabelWrap.Message(r.state.SpaceID[:], num[:], wrap.C[:], binary.BigEndian.AppendUint32(nil, wrap.PUKGen))
	return wrapped("", asPUK, p.puks[wrap.PUKGen-1].Public().KEM, info, wrap.Sealed, keys)
}

func (r *room) issuing(wrap control.Wrap, n uint64) *item {
	var num [8]byte
	binary.BigEndian.PutUint64(num[:], n)
	p := r.w.person(wrap.C)
	info := space.LabelWrapIssuer.Message(r.state.SpaceID[:], num[:], wrap.C[:], binary.BigEndian.AppendUint32(nil, wrap.PUKGen))
	return wrapped("", asPUK, p.puks[wrap.PUKGen-1].Public().KEM, info, wrap.Sealed, gives(asOther))
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
	w.sent = append(w.sent, enveloped(w.fact(f), asHello, itself, hello[0]))
	for _, env := range must(c.Seal(w.rand, envelope.Entry, fmt.Appendf(nil, "what %s says in epoch %d of %s", p.name, n, r.name))) {
		name := w.fact(fact{
			name: fmt.Sprintf("envelope %d.%d in epoch %d of %s, of %s", r.count, env.Seq(), n, r.name, p.name),
			kind: factEntry, room: r.name, epoch: n, who: p.name,
		})
		chain := env.Chain()
		at := binary.BigEndian.AppendUint64(nil, env.Seq())
		w.sent = append(w.sent, enveloped(name, asAuthor, derived(space.LabelEntry, chain[:], at), env))
		if w.broken == sharedHello {
			ck := e.gk.Control().Bytes()
			w.sent = append(w.sent, boxed(name, asControl, itself, nil, bare(w.rand, ck, []byte("the same again")), nil))
		}
	}
	c.Close()
}

func enveloped(name string, r role, key func([]byte) []byte, env envelope.Envelope) *item {
	nonce := env.Nonce()
	return &item{name: name, role: r, key: key, nonce: nonce[:], aad: env.AAD(), ct: env.Ciphertext()}
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
	w.sent = append(w.sent, wrapped(name, asPUK, p.state.PUK.KEM, info, sealed[:len(sealed)-64], readWelcome))
	b.welcome(p.name, level, p.gen())
}

// The welcome as an attacker reads it: see package seal.
type (
	welcome1 struct {
		_       struct{} `cbor:",toarray"`
		Ver     uint64
		Keys    []byte
		CtlLog  [][]byte
		Head    space.Head
		Issuer  []byte
		Addrs   []string
		Relays  []string
		Grant   []byte
		Voucher []byte
		IL      [][]byte
	}
	welcome2 struct {
		_       struct{} `cbor:",toarray"`
		Ver     uint64
		Keys    []byte
		CtlLog  [][]byte
		Head    space.Head
		Issuer  []byte
		Addrs   []string
		Relays  []string
		Grant   []byte
		Voucher []byte
		IL      [][]byte
		Prior   []prior
	}
	prior struct {
		_       struct{} `cbor:",toarray"`
		Epoch   uint64
		Keys    []byte
		Control []byte
	}
)

func readWelcome(a *attacker, plain []byte) {
	var one welcome1
	if err := space.Unmarshal(plain, &one); err == nil {
		keys(a, one.Keys)
		return
	}
	var two welcome2
	if err := space.Unmarshal(plain, &two); err != nil {
		panic(err)
	}
	keys(a, two.Keys)
	for _, p := range two.Prior {
		if len(p.Keys) > 0 {
			keys(a, p.Keys)
		}
		if len(p.Control) > 0 {
			a.learn(p.Control, asControl)
		}
	}
}

// bare is nonce ‖ ciphertext under a key, with no associated data.
func bare(rand *rand.ChaCha8, key, plain []byte) []byte {
	nonce := make([]byte, 24)
	rand.Read(nonce)
	aead := must(chacha20poly1305.NewX(key))
	return aead.Seal(nonce, nonce, plain, nil)
}

func sorted(devs [][32]byte) [][32]byte {
	slices.SortFunc(devs, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	return devs
}
