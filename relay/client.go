package relay

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// Prove signs a message with the fetch key of a topic, under space.LabelLease.
type Prove func(message []byte) (signature []byte)

// Client is a member's end of one stream of Protocol. It holds no key. It
// belongs to one goroutine; deadlines are the caller's to set on the stream.
// Refusals match the errors of this package.
type Client struct {
	rw   io.ReadWriter
	bond bond
	n    uint32 // requests made
}

// NewClient reads the relay's nonce from a stream that was just opened.
func NewClient(rw io.ReadWriter, self, relay peer.ID) (*Client, error) {
	c := &Client{rw: rw, bond: bond{asker: self, relay: relay}}
	if _, err := io.ReadFull(rw, c.bond.nonce[:]); err != nil {
		return nil, fmt.Errorf("ask relay: %w", err)
	}
	return c, nil
}

// Describe asks for the relay's terms.
func (c *Client) Describe() (Terms, error) {
	var t Terms
	b, err := c.ask(kindDescribe, envelope.TopicID{}, nil, nil)
	if err == nil {
		err = space.Unmarshal(b, &t)
	}
	if err == nil {
		err = checkAddrs(t.Addrs)
	}
	if err != nil {
		return Terms{}, fmt.Errorf("describe: %w", err)
	}
	return t, nil
}

// Lease asks for a lease on the topic of a descriptor; code may be empty. Asked
// again it gives the lease that there is.
func (c *Client) Lease(d envelope.Descriptor, code string, prove Prove) (Lease, error) {
	if len(code) > 255 {
		return Lease{}, fmt.Errorf("lease: access code: %w", ErrTooLarge)
	}
	body := append(d.Bytes(), byte(len(code)))
	return c.lease(kindLease, d.Topic(), append(body, code...), prove)
}

// Renew makes a lease run its whole time again.
func (c *Client) Renew(topic envelope.TopicID, t Token, prove Prove) (Lease, error) {
	return c.lease(kindRenew, topic, append(topic[:], t[:]...), prove)
}

func (c *Client) lease(k kind, topic envelope.TopicID, body []byte, prove Prove) (Lease, error) {
	var l Lease
	b, err := c.ask(k, topic, body, prove)
	if err == nil {
		err = space.Unmarshal(b, &l)
	}
	if err == nil && len(l.Token) != len(Token{}) {
		err = space.ErrMalformed
	}
	if err == nil {
		err = checkAddrs(l.Addrs)
	}
	if err != nil {
		return Lease{}, fmt.Errorf("lease: %w", err)
	}
	return l, nil
}

// Put gives the relay a sealed object of a topic. It is on its disk then.
func (c *Client) Put(topic envelope.TopicID, class Class, object []byte, prove Prove) error {
	body := append(append(make([]byte, 0, 33+len(object)), topic[:]...), byte(class))
	b, err := c.ask(kindPut, topic, append(body, object...), prove)
	if err == nil && (len(b) != 32 || [32]byte(b) != sha256.Sum256(object)) {
		err = fmt.Errorf("the relay took something else: %w", space.ErrMalformed)
	}
	if err != nil {
		return fmt.Errorf("put object: %w", err)
	}
	return nil
}

// Receipt asks what the relay has of a topic on its disk. The receipt is about
// this topic and well signed; that Relay is the key of the relay meant, and not
// only of one of its hosts, is the caller's to check.
func (c *Client) Receipt(topic envelope.TopicID, prove Prove) (Receipt, error) {
	b, err := c.ask(kindReceipt, topic, topic[:], prove)
	if err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	r, err := ParseReceipt(b)
	if err == nil && r.Topic != topic {
		err = fmt.Errorf("receipt: of another topic: %w", space.ErrForged)
	}
	return r, err
}

// ask makes one request and reads its answer.
func (c *Client) ask(k kind, topic envelope.TopicID, body []byte, prove Prove) ([]byte, error) {
	full := body
	if prove != nil {
		full = append(body[:len(body):len(body)], prove(c.bond.message(k, c.n, topic, body))...)
	}
	c.n++
	if err := writeMessage(c.rw, byte(k), full); err != nil {
		return nil, err
	}
	s, answer, err := readMessage(c.rw)
	if err != nil {
		return nil, noEOF(err)
	}
	if s != 0 {
		return nil, refusal(status(s), string(answer[:min(len(answer), maxSentence)]))
	}
	return answer, nil
}

func checkAddrs(addrs []string) error {
	if len(addrs) > maxAddrs {
		return fmt.Errorf("%d addresses: %w", len(addrs), space.ErrMalformed)
	}
	for _, a := range addrs {
		if len(a) > maxAddr {
			return fmt.Errorf("address of %d bytes: %w", len(a), space.ErrMalformed)
		}
	}
	return nil
}
