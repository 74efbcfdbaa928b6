package seal

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
	"github.com/kithnet/kith/space/identity"
)

// ErrClosed is what a closed Writer answers.
var ErrClosed = errors.New("writer is closed")

// ErrOrder is what a Writer answers that is asked for an entry before its hello
// or for a second hello, and a Reader that is given another envelope than its
// next.
var ErrOrder = errors.New("out of order")

// Writer seals one chain. Its chain key is drawn by NewWriter, lives in RAM and
// nowhere else, and is gone after Close: a chain is never resumed, so neither a
// crash, a restored backup nor a cloned disk can make its writer contradict
// itself.
//
// It steps forward only. What Hello or Seal returned takes its place in the
// chain whether or not anybody got to see it; a caller that could not make it
// durable must not publish it, must Close the Writer, and goes on with a new
// one. An error from Hello or Seal has taken no place.
type Writer struct {
	topic envelope.TopicID
	id    envelope.ChainID
	cert  envelope.Certificate
	who   identity.Commitment
	vouch [64]byte
	via   [32]byte

	chain signer
	hello secret
	entry *entryKeys
	ctl   *entryKeys

	next uint64
	last envelope.ID // of next-1; of the certificate before seq 0
}

// NewWriter starts a chain of c's in an epoch. It checks that the credential
// fits the topic and c, not that the grant still runs: what is written after its
// end waits at the caller for a renewal.
func NewWriter(rand io.Reader, cred Credential, topic envelope.TopicID, keys Keys, c identity.Commitment) (*Writer, error) {
	if keys.IsZero() {
		return nil, fmt.Errorf("new writer: %w", space.ErrNoKey)
	}
	ak, err := keys.Author(c)
	if err != nil {
		return nil, fmt.Errorf("new writer: %w", err)
	}
	chain, err := newSigner(rand)
	if err != nil {
		return nil, fmt.Errorf("new writer: %w", err)
	}
	id := envelope.ChainID(chain.Public())
	cert, err := cred.certificate(topic, id)
	if err == nil {
		err = checkVoucher(cert, c, cred.Via, cred.Voucher)
	}
	if err != nil {
		return nil, fmt.Errorf("new writer: %w", err)
	}
	return &Writer{
		topic: topic, id: id, cert: cert, who: c, vouch: cred.Voucher, via: cred.Via,
		chain: chain,
		hello: keys.helloKey(ak),
		entry: newEntryKeys(ak.secret, space.LabelEntry, id),
		ctl:   newEntryKeys(keys.ctl.secret, space.LabelCtlEntry, id),
		last:  cert.ID(),
	}, nil
}

// Chain is the chain's id.
func (w *Writer) Chain() envelope.ChainID { return w.id }

// Topic is the topic written to.
func (w *Writer) Topic() envelope.TopicID { return w.topic }

// Certificate travels in front of seq 0.
func (w *Writer) Certificate() envelope.Certificate { return w.cert }

// Head is the last envelope sealed; ok is false before the hello.
func (w *Writer) Head() (h envelope.Head, ok bool) {
	if w.next == 0 {
		return envelope.Head{}, false
	}
	return envelope.Head{Seq: w.next - 1, ID: w.last}, true
}

// Hello seals the chain's first body, from seq 0 on, and returns it with the
// certificate that must travel with it. The author and the voucher in h are the
// writer's, whatever the caller put there.
func (w *Writer) Hello(rand io.Reader, h Hello) ([]envelope.Envelope, envelope.Certificate, error) {
	if w.next != 0 {
		return nil, envelope.Certificate{}, fmt.Errorf("seal hello: %w: the chain has one", ErrOrder)
	}
	h.C, h.Voucher, h.Via = w.who, w.vouch, w.via
	body, err := h.Encode()
	if err != nil {
		return nil, envelope.Certificate{}, fmt.Errorf("seal hello: %w", err)
	}
	envs, err := w.seal(rand, envelope.Hello, body)
	if err != nil {
		return nil, envelope.Certificate{}, fmt.Errorf("seal hello: %w", err)
	}
	return envs, w.cert, nil
}

// Seal seals a body of type envelope.Entry, under the author's key, or
// envelope.Control, under the control key. A body longer than one envelope
// holds becomes several; it applies when all have arrived.
func (w *Writer) Seal(rand io.Reader, t envelope.Type, body []byte) ([]envelope.Envelope, error) {
	if w.next == 0 && !w.closed() {
		return nil, fmt.Errorf("seal: %w: the hello comes first", ErrOrder)
	}
	if t != envelope.Entry && t != envelope.Control {
		return nil, fmt.Errorf("seal: %w: type %d", space.ErrUnsupported, t)
	}
	envs, err := w.seal(rand, t, body)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return envs, nil
}

func (w *Writer) seal(rand io.Reader, t envelope.Type, body []byte) ([]envelope.Envelope, error) {
	switch {
	case w.closed():
		return nil, ErrClosed
	case len(body) == 0:
		return nil, fmt.Errorf("%w: empty body", space.ErrMalformed)
	case len(body) > MaxBody:
		return nil, fmt.Errorf("%w: body of %d bytes", space.ErrTooLarge, len(body))
	}
	envs := make([]envelope.Envelope, 0, (len(body)+maxPart-1)/maxPart)
	next, last := w.next, w.last
	for len(body) > 0 {
		part := body[:min(len(body), maxPart)]
		body = body[len(part):]
		h := envelope.Header{Type: t, Topic: w.topic, Chain: w.id, Seq: next, Prev: last}
		e, err := sealPart(rand, w.key(t, next), h, part, len(body) > 0, w.sign)
		if err != nil {
			return nil, err
		}
		envs = append(envs, e)
		next, last = next+1, e.ID()
	}
	w.next, w.last = next, last
	return envs, nil
}

func (w *Writer) key(t envelope.Type, seq uint64) []byte {
	switch t {
	case envelope.Hello:
		return w.hello.raw()
	case envelope.Control:
		return w.ctl.at(seq)
	default:
		return w.entry.at(seq)
	}
}

func (w *Writer) sign(msg []byte) []byte { return ed25519.Sign(w.chain.key(), msg) }

func (w *Writer) closed() bool { return w.chain.IsZero() }

// Close ends the chain and clears its key. It may be called twice.
func (w *Writer) Close() {
	w.chain.Clear()
	w.hello.Clear()
	w.entry.forget()
	w.ctl.forget()
}

// Format prints the chain's fingerprint, whatever the verb.
func (w *Writer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, w.LogValue().String()) }

// LogValue is the chain's fingerprint.
func (w *Writer) LogValue() slog.Value { return w.id.LogValue() }
