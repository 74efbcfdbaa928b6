package relay

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// The protocols of a relay.
const (
	// Protocol is how members ask for leases, put objects and get receipts.
	Protocol protocol.ID = "/kith/relay/1"
	// SyncProtocol and ObjectProtocol are those of members.
	SyncProtocol   protocol.ID = "/kith/sync/1"
	ObjectProtocol protocol.ID = "/kith/object/1"
)

// Limits of the protocol.
const (
	// MaxObject is the size of the largest sealed object.
	MaxObject = 256 << 10
	// MaxMessage bounds kind or status and body of a message.
	MaxMessage = 262_400
	// MaxRequests is how many requests one stream carries.
	MaxRequests = 1024
	// MaxAhead is how many days a descriptor may run.
	MaxAhead = 1000
	// KeepDays is how many days hellos, control envelopes and pages stay at
	// least, from a topic's first lease.
	KeepDays = 400

	maxSentence = 256
	maxAddrs    = 16
	maxAddr     = 256
)

// kind is what a request asks for.
type kind uint8

const (
	kindDescribe kind = 1 + iota
	kindLease
	kindRenew
	kindPut
	kindReceipt
	kindFork
)

// Class says how long an object stays.
type Class uint8

const (
	// Page goes with the control log: it stays as long as that.
	Page Class = iota
	// Shard is of a file: it goes first when room is needed.
	Shard
)

// Token says which lease is meant.
type Token [32]byte

// Terms is what a relay says of itself.
type Terms struct {
	_             struct{} `cbor:",toarray"`
	Version       uint64
	Open          bool   // gives a small lease to whoever asks
	Bytes         uint64 // of such a lease
	Rate          uint64 // of such a lease, envelopes a second
	Days          uint64 // how long a lease runs
	MaxEnvelope   uint64
	MaxObject     uint64
	RetentionDays uint64
	Addrs         []string // of its hosts, with /p2p
}

// Lease is what a relay promises for one topic.
type Lease struct {
	_             struct{} `cbor:",toarray"`
	Token         []byte   // 32 bytes
	Expires       uint64   // Unix seconds
	Bytes, Used   uint64   // of the topic
	Rate          uint64   // envelopes a second
	RetentionDays uint64
	Addrs         []string // of the host that serves the topic, with /p2p
}

// ReceiptSize is the length of a receipt (docs/protocol.md, "Receipts").
const ReceiptSize = 177

// Receipt is a relay's signed word that it holds a set of envelopes on disk.
type Receipt struct {
	Topic  envelope.TopicID
	Count  uint64
	Digest [32]byte
	Time   uint64 // Unix milliseconds, by the relay's clock
	Relay  ed25519.PublicKey
	Sig    [64]byte
}

func (r Receipt) body() []byte {
	b := make([]byte, 0, ReceiptSize)
	b = append(b, 1)
	b = append(b, r.Topic[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Count)
	b = append(b, r.Digest[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Time)
	return append(b, r.Relay...)
}

// Bytes is the receipt as it travels.
func (r Receipt) Bytes() []byte { return append(r.body(), r.Sig[:]...) }

// ParseReceipt reads a receipt and checks that the relay it names signed it.
// Whether that relay and topic are the ones meant is the caller's to check.
// Errors match space.ErrMalformed or space.ErrForged.
func ParseReceipt(b []byte) (Receipt, error) {
	if len(b) != ReceiptSize || b[0] != 1 {
		return Receipt{}, fmt.Errorf("parse receipt: %w: %d bytes", space.ErrMalformed, len(b))
	}
	b = bytes.Clone(b)
	r := Receipt{
		Topic: envelope.TopicID(b[1:33]), Count: binary.BigEndian.Uint64(b[33:]), Digest: [32]byte(b[41:73]),
		Time: binary.BigEndian.Uint64(b[73:]), Relay: ed25519.PublicKey(b[81:113]), Sig: [64]byte(b[113:]),
	}
	if err := space.CheckPublicKey(r.Relay); err != nil {
		return Receipt{}, fmt.Errorf("parse receipt: %w", err)
	}
	if !space.Verify(r.Relay, space.LabelReceipt, r.Sig[:], b[:113]) {
		return Receipt{}, fmt.Errorf("parse receipt: %w", space.ErrForged)
	}
	return r, nil
}

// KeyOf is the key of a peer id that holds an Ed25519 key: a relay's.
func KeyOf(p peer.ID) (ed25519.PublicKey, error) {
	k, err := p.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("relay %s: no key in the peer id: %w", p, err)
	}
	raw, err := k.Raw()
	if err == nil {
		err = space.CheckPublicKey(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("relay %s: %w", p, err)
	}
	return raw, nil
}

// bond is what a proof binds besides what is asked.
type bond struct {
	nonce        [32]byte
	asker, relay peer.ID
}

// message is what the proof of request n signs, under space.LabelLease.
func (c bond) message(k kind, n uint32, topic envelope.TopicID, body []byte) []byte {
	sum := sha256.Sum256(body)
	m := binary.BigEndian.AppendUint32([]byte{byte(k)}, n)
	m = append(m, topic[:]...)
	m = append(m, c.nonce[:]...)
	for _, p := range []peer.ID{c.asker, c.relay} {
		m = append(append(m, byte(len(p))), p...)
	}
	return append(m, sum[:]...)
}

// writeMessage writes u32 length ‖ tag ‖ body in one piece.
func writeMessage(w io.Writer, tag byte, body []byte) error {
	if len(body)+1 > MaxMessage {
		return fmt.Errorf("message of %d bytes: %w", len(body), ErrTooLarge)
	}
	b := make([]byte, 0, 5+len(body))
	b = binary.BigEndian.AppendUint32(b, uint32(1+len(body)))
	_, err := w.Write(append(append(b, tag), body...))
	return err
}

// readMessage reads one; io.EOF where the stream ends between two.
func readMessage(r io.Reader) (tag byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxMessage {
		return 0, nil, fmt.Errorf("message of %d bytes: %w", n, ErrTooLarge)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return 0, nil, noEOF(err)
	}
	var buf bytes.Buffer // grows with what comes, not with what is announced
	if _, err := io.CopyN(&buf, r, int64(n-1)); err != nil {
		return 0, nil, noEOF(err)
	}
	return head[4], buf.Bytes(), nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
