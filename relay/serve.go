package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

const (
	requestTime = 60 * time.Second // between two requests of a stream
	objectTime  = 20 * time.Second
)

// nobody is a well-formed public key: what is asked about a topic that is not
// here is checked against it and refused whatever the outcome, so that it takes
// as long as about one that is.
var nobody = ed25519.PublicKey{
	0x58, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
	0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
}

// serve takes streams on a host.
func (r *Relay) serve(h host.Host) {
	h.SetStreamHandler(Protocol, func(s network.Stream) { r.stream(s, r.answerRequests) })
	h.SetStreamHandler(ObjectProtocol, func(s network.Stream) { r.stream(s, r.giveObject) })
	h.SetStreamHandler(SyncProtocol, func(s network.Stream) { r.stream(s, r.serveSync) })
}

// stream runs a handler on a stream and ends it.
func (r *Relay) stream(s network.Stream, f func(context.Context, network.Stream) error) {
	r.spawn(func() {
		stop := context.AfterFunc(r.ctx, func() { s.Reset() })
		defer stop()
		defer s.Close()
		if err := f(r.ctx, s); err != nil && !errors.Is(err, io.EOF) {
			s.Reset()
			r.cfg.Log.Debug("stream refused or broken", "protocol", s.Protocol(), "err", err)
		}
	})
}

// answerRequests serves one stream of Protocol.
func (r *Relay) answerRequests(ctx context.Context, s network.Stream) error {
	if err := s.SetDeadline(time.Now().Add(requestTime)); err != nil {
		return err
	}
	q := request{r: r, ctx: ctx, bond: bond{asker: s.Conn().RemotePeer(), relay: s.Conn().LocalPeer()}}
	q.from = q.bond.asker.String()
	if ip, err := manet.ToIP(s.Conn().RemoteMultiaddr()); err == nil {
		q.from = block(ip)
	}
	rand.Read(q.bond.nonce[:])
	if _, err := s.Write(q.bond.nonce[:]); err != nil {
		return err
	}
	for q.n = range MaxRequests {
		tag, body, err := readMessage(s)
		if err != nil {
			return err
		}
		if err := s.SetDeadline(time.Now().Add(requestTime)); err != nil {
			return err
		}
		answer, err := q.answer(kind(tag), body)
		tag = 0
		if err != nil {
			row := rowOf(err)
			tag, answer = byte(row.status), []byte(row.sentence(err))
			if row.status == 0 {
				tag = byte(rows[len(rows)-1].status)
			}
		}
		if err := writeMessage(s, tag, answer); err != nil {
			return err
		}
	}
	return nil
}

// sentence is what is told of an error: the relay's own failures stay its own.
func (w row) sentence(err error) string {
	text := err.Error()
	if w.err == ErrInternal {
		text = ErrInternal.Error()
	}
	return text[:min(len(text), maxSentence)]
}

// request is what is known of who asks on a stream.
type request struct {
	r    *Relay
	ctx  context.Context
	bond bond
	from string // whose leases these are
	n    int    // number of the request
}

// answer carries out one request.
func (q *request) answer(k kind, body []byte) ([]byte, error) {
	if !q.r.doors.request(q.bond.asker.String(), q.r.cfg.Now()) {
		return nil, ErrBusy
	}
	switch k {
	case kindDescribe:
		return space.Marshal(q.r.Terms())
	case kindLease:
		return q.lease(body)
	case kindRenew, kindPut, kindReceipt, kindFork:
	default:
		return nil, fmt.Errorf("kind %d: %w", k, ErrRequest)
	}
	const least = 32 + 64
	if len(body) < least {
		return nil, fmt.Errorf("body of %d bytes: %w", len(body), ErrRequest)
	}
	t := q.r.topic(envelope.TopicID(body[:32]))
	body, err := q.proven(k, t, body)
	if err != nil {
		return nil, err
	}
	switch body = body[32:]; k {
	case kindRenew:
		if len(body) != len(Token{}) {
			return nil, fmt.Errorf("token of %d bytes: %w", len(body), ErrRequest)
		}
		l, err := t.renew(q.ctx, Token(body))
		if err != nil {
			return nil, err
		}
		return space.Marshal(l)
	case kindPut:
		return q.put(t, body)
	case kindFork:
		return t.answerFork(q.ctx, body)
	}
	if len(body) != 0 {
		return nil, ErrRequest
	}
	c, err := t.receipt(q.ctx)
	if err != nil {
		return nil, err
	}
	return c.Bytes(), nil
}

// proven checks the proof at the end of a body that begins with the topic's id,
// and takes it off.
func (q *request) proven(k kind, t *topic, body []byte) ([]byte, error) {
	fetch, id := nobody, envelope.TopicID(body[:32])
	if t != nil {
		fetch = t.described().Fetch
	}
	if body, ok := q.proof(k, id, fetch, body); ok && t != nil {
		q.r.guests.add(q.bond.asker)
		return body, nil
	}
	return nil, ErrNoLease
}

func (q *request) proof(k kind, id envelope.TopicID, fetch ed25519.PublicKey, body []byte) ([]byte, bool) {
	rest := body[:len(body)-64]
	return rest, space.Verify(fetch, space.LabelLease, body[len(body)-64:], q.bond.message(k, uint32(q.n), id, rest))
}

func (q *request) lease(body []byte) ([]byte, error) {
	const least = envelope.DescriptorSize + 1 + 64
	if len(body) < least || len(body) != least+int(body[envelope.DescriptorSize]) {
		return nil, fmt.Errorf("body of %d bytes: %w", len(body), ErrRequest)
	}
	d, err := envelope.ParseDescriptor(body[:envelope.DescriptorSize])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	rest, ok := q.proof(kindLease, d.Topic(), d.Fetch, body)
	if !ok {
		return nil, ErrNoLease
	}
	l, err := q.r.lease(q.ctx, d, string(rest[envelope.DescriptorSize+1:]), q.from)
	if err != nil {
		return nil, err
	}
	q.r.guests.add(q.bond.asker)
	return space.Marshal(l)
}

func (q *request) put(t *topic, body []byte) ([]byte, error) {
	if len(body) < 2 || Class(body[0]) > Shard {
		return nil, fmt.Errorf("object without bytes, or of no class: %w", ErrRequest)
	}
	return t.take1(q.ctx, Class(body[0]), body[1:])
}

// take1 keeps one object and answers its hash.
func (t *topic) take1(ctx context.Context, class Class, data []byte) ([]byte, error) {
	if len(data) > MaxObject {
		return nil, fmt.Errorf("object of %d bytes: %w", len(data), ErrTooLarge)
	}
	if !t.leased(t.relay.cfg.Now()) {
		return nil, ErrNoLease
	}
	hash := sha256.Sum256(data)
	var err error
	if called := t.call(ctx, func() { err = t.put(hash, class, data) }); called != nil {
		return nil, fmt.Errorf("%w: %w", ErrInternal, called)
	}
	return hash[:], err
}

// giveObject answers one request of ObjectProtocol, as a member does.
func (r *Relay) giveObject(_ context.Context, s network.Stream) error {
	if err := s.SetDeadline(time.Now().Add(objectTime)); err != nil {
		return err
	}
	var nonce [32]byte
	rand.Read(nonce[:])
	if _, err := s.Write(nonce[:]); err != nil {
		return err
	}
	var req [32 + 32 + 64]byte
	if _, err := io.ReadFull(s, req[:]); err != nil {
		return err
	}
	fetch, hash := nobody, [32]byte(req[32:64])
	t := r.topic(envelope.TopicID(req[:32]))
	if t != nil {
		fetch = t.described().Fetch
	}
	message := objectMessage(req[:32], nonce, s.Conn().RemotePeer(), s.Conn().LocalPeer(), hash)
	ok := space.Verify(fetch, space.LabelSyncAuth, req[64:], message)
	var data []byte
	if ok && t != nil && r.doors.request(s.Conn().RemotePeer().String(), r.cfg.Now()) {
		data, _, _ = t.store.Object(hash)
	}
	n := len(data)
	_, err := s.Write(append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, data...))
	return err
}

// objectMessage is what who asks for an object signs (docs/protocol.md, "Sealed
// objects").
func objectMessage(topic []byte, nonce [32]byte, asker, holder peer.ID, hash [32]byte) []byte {
	m := append([]byte("object"), topic...)
	m = append(m, nonce[:]...)
	for _, p := range []peer.ID{asker, holder} {
		m = append(append(m, byte(len(p))), p...)
	}
	return append(m, hash[:]...)
}
