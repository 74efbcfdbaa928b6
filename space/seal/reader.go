package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

// What a Reader knows of the author of its chain.
const (
	authorUnknown byte = iota // no hello read yet
	authorKnown
	authorForeign // the hello is not for this holder: only control bodies open
)

// A stored Reader: ver 1 ‖ author state ‖ u64 position ‖ C 32 ‖ device 32; ver 2
// has the child space that sent the author behind it.
const (
	readerVersion    = 1
	readerVersionVia = 2
	readerSize       = 1 + 1 + 8 + 32 + 32
	readerSizeVia    = readerSize + 32
)

// greeting is the key a hello opened under, while its parts are coming in. Under
// an author key, only its owner may speak.
type greeting struct {
	key  secret
	self bool
	who  identity.Commitment // if self
}

// Reader opens one chain's envelopes in the order of their seqs and puts their
// bodies together. The envelopes must have passed envelope.Topic.Check: the
// Reader decides whose they are and what they say, not whether they belong to
// the chain.
//
// Its state is a position between bodies: what MarshalBinary stores after a body
// of several parts has begun is the start of that body, so that a restored
// Reader is fed the parts again and no partial body is ever stored.
//
// A body that does not open, or is not what it may be, ends the chain for every
// reader at the same place: Open gives the same error from there on, and
// Position stays in front of it.
type Reader struct {
	keys  Keys
	chain envelope.ChainID
	cert  envelope.Certificate
	guess iter.Seq[identity.Commitment]

	hello  Hello
	greet  greeting
	entry  *entryKeys
	ctl    *entryKeys
	state  byte
	author identity.Commitment
	device identity.DeviceID
	via    [32]byte

	next  uint64 // the envelope wanted
	start uint64 // first envelope of the body it belongs to
	kind  envelope.Type
	part  []byte // of a body of several parts
	ahead Opened // while Take runs
	err   error
}

// NewReader reads a chain from seq 0 with the keys of its epoch.
func NewReader(keys Keys, chain envelope.ChainID, cert envelope.Certificate) (*Reader, error) {
	if keys.IsZero() {
		return nil, fmt.Errorf("new reader: %w", space.ErrNoKey)
	}
	return &Reader{
		keys: keys, chain: chain, cert: cert,
		ctl: newEntryKeys(keys.ctl.secret, space.LabelCtlEntry, chain),
	}, nil
}

// RestoreReader goes on where MarshalBinary left off: at Position. The chain of
// another, passed over by a holder that read only itself, begins anew under the
// group key.
func RestoreReader(keys Keys, chain envelope.ChainID, cert envelope.Certificate, state []byte) (*Reader, error) {
	r, err := NewReader(keys, chain, cert)
	if err != nil {
		return nil, fmt.Errorf("restore reader: %w", err)
	}
	plain := len(state) == readerSize && state[0] == readerVersion
	sent := len(state) == readerSizeVia && state[0] == readerVersionVia
	if !plain && !sent || state[1] > authorForeign {
		return nil, fmt.Errorf("restore reader: %w: %d bytes of state", space.ErrMalformed, len(state))
	}
	if sent {
		r.via = [32]byte(state[readerSize:])
	}
	r.start = binary.BigEndian.Uint64(state[2:])
	r.next = r.start
	r.state = state[1]
	if (r.state == authorUnknown) != (r.start == 0) || r.start > envelope.MaxSeq ||
		r.state != authorKnown && [64]byte(state[10:]) != [64]byte{} ||
		sent && (r.state != authorKnown || r.via == [32]byte{}) {
		return nil, fmt.Errorf("restore reader: %w: author state %d at %d", space.ErrMalformed, r.state, r.start)
	}
	switch {
	case r.state == authorForeign && !keys.group.IsZero():
		r.state, r.start, r.next = authorUnknown, 0, 0
	case r.state == authorKnown:
		r.author = identity.Commitment(state[10:42])
		r.device = identity.DeviceID(state[42:readerSize])
		if err := r.setAuthor(r.author); err != nil {
			return nil, fmt.Errorf("restore reader: %w", err)
		}
	}
	return r, nil
}

// MarshalBinary is the state to store in one batch with what the bodies up to
// Position changed. It holds no secret key.
func (r *Reader) MarshalBinary() ([]byte, error) {
	return appendReaderState(r.state, r.start, r.author, r.device, r.via), nil
}

// ReaderState is what MarshalBinary gives of a Reader that has read a chain of
// c, written by device, up to next, its hello included: what a writer keeps of
// its own chain, of which it may have to read back an end it lost.
func ReaderState(c identity.Commitment, device identity.DeviceID, next uint64) []byte {
	return appendReaderState(authorKnown, next, c, device, [32]byte{})
}

// ReaderStateVia is ReaderState of an author that the space via sent.
func ReaderStateVia(c identity.Commitment, device identity.DeviceID, via [32]byte, next uint64) []byte {
	return appendReaderState(authorKnown, next, c, device, via)
}

func appendReaderState(state byte, start uint64, author identity.Commitment, device identity.DeviceID, via [32]byte) []byte {
	b := make([]byte, 0, readerSizeVia)
	b = append(b, readerVersion, state)
	b = binary.BigEndian.AppendUint64(b, start)
	b = append(b, author[:]...)
	b = append(b, device[:]...)
	if via != ([32]byte{}) {
		b[0] = readerVersionVia
		b = append(b, via[:]...)
	}
	return b
}

// Position is the seq of the first envelope that is not part of a finished
// body: what a restored Reader is to be fed first.
func (r *Reader) Position() uint64 { return r.start }

// Next is the seq of the envelope Open wants.
func (r *Reader) Next() uint64 { return r.next }

// Author is whose chain it is, once the hello was read.
func (r *Reader) Author() (identity.Commitment, bool) { return r.author, r.state == authorKnown }

// Device is the writing device, once the hello was read.
func (r *Reader) Device() (identity.DeviceID, bool) { return r.device, r.state == authorKnown }

// Via is the child space that sent the author; zero for a member, and before
// the hello.
func (r *Reader) Via() [32]byte { return r.via }

// Hello is the hello, if this Reader, and not one it was restored from, read it.
func (r *Reader) Hello() (Hello, bool) {
	return r.hello, r.state == authorKnown && r.hello.C == r.author
}

// Guess gives members whose author key the hello may be sealed under, because
// they hold no group key. Without it a full reader takes a hello that is not
// under the epoch's hello key for forged; with it, for one it cannot open yet:
// Open answers space.ErrNoKey and may be called again when the roster has grown.
func (r *Reader) Guess(members iter.Seq[identity.Commitment]) { r.guess = members }

// Open takes the next envelope. When it ends a body, done is true and body is
// the caller's; e.Type says what it is. A hello is decoded and checked before it
// is given.
//
// space.ErrForged, space.ErrMalformed, space.ErrNotCanonical and
// space.ErrTooLarge end the chain, see Reader. space.ErrNoKey from the chain of
// another member, for a holder that reads only itself, does not: the envelope
// counts as taken. ErrOrder: not the envelope wanted; nothing has changed.
func (r *Reader) Open(e envelope.Envelope) (body []byte, done bool, err error) {
	if r.err != nil {
		return nil, false, r.err
	}
	if e.Chain() != r.chain || e.Seq() != r.next {
		return nil, false, fmt.Errorf("open envelope: %w: seq %d, want %d", ErrOrder, e.Seq(), r.next)
	}
	part, more, err := r.openNext(e)
	if err == nil {
		body, done, err = r.add(e.Type(), part, more)
	}
	switch {
	case err == nil:
		return body, done, nil
	case !errors.Is(err, space.ErrNoKey):
		r.part = nil
		r.err = fmt.Errorf("open envelope %d: %w", e.Seq(), err)
		return nil, false, r.err
	case r.state == authorForeign:
		r.step(true)
	}
	return nil, false, fmt.Errorf("open envelope %d: %w", e.Seq(), err)
}

// Opener opens entries of a chain ahead of its Reader, for one goroutine.
type Opener struct {
	entry *entryKeys
	room  []byte // for plaintext; what is in it is not the opener's any more
}

// Openers makes Openers of the chain, for any goroutine; nil while the author
// is not known.
func (r *Reader) Openers() func() *Opener {
	if r.state != authorKnown {
		return nil
	}
	ak, err := r.keys.Author(r.author)
	if err != nil {
		return nil // setAuthor has found the same
	}
	chain := r.chain
	return func() *Opener { return &Opener{entry: newEntryKeys(ak.secret, space.LabelEntry, chain)} }
}

// Opened is an entry that was opened ahead of its turn.
type Opened struct {
	id   envelope.ID // zero: none
	part []byte
	more bool
	err  error
}

// Use gives the opener memory for what it opens, as far as it suffices. Whoever
// gave it may have it back when nothing that was opened is looked at any more.
func (o *Opener) Use(room []byte) { o.room = room[:0] }

// Open opens an entry of the chain. What it says is Reader.Take's to tell.
func (o *Opener) Open(e envelope.Envelope) Opened {
	n, most := len(o.room), len(e.Ciphertext())
	if cap(o.room)-n < most {
		o.room, n = make([]byte, 0, most), 0
	}
	part, more, err := openInto(o.room[n:n:n+most], o.entry.at(e.Seq()), e)
	o.room = o.room[:n+most]
	return Opened{e.ID(), part, more, err}
}

// Whole is the body, if it is one of a single part.
func (o *Opened) Whole() ([]byte, bool) {
	return o.part, o.err == nil && !o.more && o.id != envelope.ID{}
}

// Take is Open of an envelope that may have been opened ahead.
func (r *Reader) Take(e envelope.Envelope, ahead Opened) (body []byte, done bool, err error) {
	r.ahead = ahead
	defer func() { r.ahead = Opened{} }()
	return r.Open(e)
}

// openNext opens e under the key of its type and place.
func (r *Reader) openNext(e envelope.Envelope) (part []byte, more bool, err error) {
	t := e.Type()
	if r.next != r.start && t != r.kind {
		return nil, false, fmt.Errorf("%w: type %d inside a body of type %d", space.ErrMalformed, t, r.kind)
	}
	switch {
	case t == envelope.Control && r.state != authorUnknown:
		return openPart(r.ctl.at(e.Seq()), e)
	case r.state == authorForeign:
		return nil, false, space.ErrNoKey
	case t == envelope.Hello && r.state == authorUnknown:
		return r.openHello(e)
	case t == envelope.Entry && r.state == authorKnown && r.ahead.id == e.ID():
		return r.ahead.part, r.ahead.more, r.ahead.err
	case t == envelope.Entry && r.state == authorKnown:
		return openPart(r.entry.at(e.Seq()), e)
	}
	return nil, false, fmt.Errorf("%w: type %d at seq %d", space.ErrMalformed, t, e.Seq())
}

// add puts a part behind the ones before it.
func (r *Reader) add(t envelope.Type, part []byte, more bool) (body []byte, done bool, err error) {
	if len(r.part)+len(part) > MaxBody {
		return nil, false, fmt.Errorf("%w: body over %d bytes", space.ErrTooLarge, MaxBody)
	}
	if more || r.part != nil {
		part = append(r.part, part...)
	}
	if more {
		r.kind, r.part = t, part
		r.step(false)
		return nil, false, nil
	}
	if t == envelope.Hello {
		if err := r.greeted(part); err != nil {
			return nil, false, err
		}
	}
	r.part = nil
	r.step(true)
	return part, true, nil
}

func (r *Reader) step(end bool) {
	r.next++
	if end {
		r.start = r.next
	}
}

// openHello finds the key a hello is under.
func (r *Reader) openHello(e envelope.Envelope) (part []byte, more bool, err error) {
	if !r.greet.key.IsZero() {
		return openPart(r.greet.key.raw(), e)
	}
	try := func(g greeting) bool {
		part, more, err = openPart(g.key.raw(), e)
		if errors.Is(err, space.ErrForged) {
			return false
		}
		r.greet = g
		return true
	}
	if r.keys.group.IsZero() {
		if try(greeting{key: r.keys.self.helloKey(), self: true, who: r.keys.who}) {
			return part, more, err
		}
		r.state = authorForeign
		return nil, false, space.ErrNoKey
	}
	if try(greeting{key: r.keys.group.helloKey()}) || r.guess == nil {
		return part, more, err
	}
	for c := range r.guess {
		if try(greeting{key: r.keys.group.Author(c).helloKey(), self: true, who: c}) {
			return part, more, err
		}
	}
	return nil, false, fmt.Errorf("%w: hello of nobody known", space.ErrNoKey)
}

// greeted takes a complete hello.
func (r *Reader) greeted(body []byte) error {
	h, err := DecodeHello(body)
	if err != nil {
		return err
	}
	if err := CheckHello(h, r.cert); err != nil {
		return err
	}
	if r.greet.self && r.greet.who != h.C {
		return fmt.Errorf("%w: hello of one author under the key of another", space.ErrForged)
	}
	if err := r.setAuthor(h.C); err != nil {
		return err
	}
	r.hello, r.author, r.device, r.via, r.state = h, h.C, h.Device, h.Via, authorKnown
	r.greet = greeting{}
	return nil
}

func (r *Reader) setAuthor(c identity.Commitment) error {
	ak, err := r.keys.Author(c)
	if err != nil {
		return err
	}
	r.entry = newEntryKeys(ak.secret, space.LabelEntry, r.chain)
	return nil
}

// Format prints the chain's fingerprint, whatever the verb.
func (r *Reader) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.LogValue().String()) }

// LogValue is the chain's fingerprint.
func (r *Reader) LogValue() slog.Value { return r.chain.LogValue() }

// StateVia is the child space that sent the author, of what MarshalBinary gave.
func StateVia(state []byte) (via [32]byte) {
	if len(state) == readerSizeVia && state[0] == readerVersionVia {
		copy(via[:], state[readerSize:])
	}
	return via
}
