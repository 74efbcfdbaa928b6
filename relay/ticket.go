package relay

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// ticketTime is how far ahead a ticket may end.
const ticketTime = 300 * time.Second

// ticket is what proves the fetch key of a topic over HTTP:
//
//	0   32  topic id
//	32  8   expires, Unix seconds
//	40  16  nonce
//	56  64  Sign(fetch key, "lease", "http" ‖ topic id ‖ expires ‖ nonce ‖ relay key)
type ticket [120]byte

// text is how tickets, hashes and cursors are written.
var text = base64.RawURLEncoding.Strict()

// NewTicket makes what goes behind "Fetch " in an Authorization header: it is
// good for one topic at one relay until expires, at most 300 s from now.
func NewTicket(topic envelope.TopicID, relay ed25519.PublicKey, expires time.Time, nonce [16]byte, prove Prove) string {
	var t ticket
	copy(t[:], topic[:])
	binary.BigEndian.PutUint64(t[32:], uint64(expires.Unix()))
	copy(t[40:], nonce[:])
	copy(t[56:], prove(t.message(relay)))
	return text.EncodeToString(t[:])
}

func (t *ticket) message(relay ed25519.PublicKey) []byte {
	return append(append([]byte("http"), t[:56]...), relay...)
}

func parseTicket(s string) (t ticket, err error) {
	b, err := text.DecodeString(s)
	if err != nil || len(b) != len(t) {
		return t, fmt.Errorf("ticket: want %d bytes as base64url: %w", len(t), ErrNoLease)
	}
	return ticket(b), nil
}

func (t *ticket) topic() envelope.TopicID { return envelope.TopicID(t[:32]) }

// good reports whether a ticket is in time and by the holder of a fetch key.
func (t *ticket) good(fetch, relay ed25519.PublicKey, now time.Time) bool {
	end := binary.BigEndian.Uint64(t[32:])
	inTime := end > uint64(max(0, now.Unix())) && end <= uint64(now.Add(ticketTime).Unix())
	return space.Verify(fetch, space.LabelLease, t[56:], t.message(relay)) && inTime
}
