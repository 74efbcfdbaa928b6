package reconcile

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// A frame is u32 length ‖ u8 kind ‖ DRISL body; the length counts kind and
// body.
const (
	// MaxFrame is the size of a frame, its length included.
	MaxFrame = 128 << 10

	lengthSize = 4
	kindSize   = 1
)

// maxLength is the largest length a frame of the kind may state; 0: no such
// kind.
func maxLength(k Kind) int {
	switch k {
	case KindChallenge, KindAuth, KindControl, KindDigest:
		return 128
	case KindServed, KindDone:
		return 8
	case KindBeacon:
		return 8 << 10
	case KindControlPage, KindFrontier, KindWant, KindRun, KindVector, KindTree, KindManifest, KindSegments:
		return MaxFrame - lengthSize
	default:
		return 0
	}
}

// ReadFrame reads one message and says how many bytes it took. It reads not a
// byte past the frame, and checks the length against the kind's cap before it
// takes memory. At the end of the stream the error is io.EOF, inside a frame
// io.ErrUnexpectedEOF; whatever is wrong with the bytes is the peer's fault
// and matches ErrPeer.
func ReadFrame(r io.Reader) (Msg, int, error) { return readFrame(r, 0) }

// readFrame is ReadFrame for one kind, or with 0 for any.
func readFrame(r io.Reader, only Kind) (Msg, int, error) {
	var head [lengthSize + kindSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, fmt.Errorf("read frame: %w", err)
	}
	length, kind := binary.BigEndian.Uint32(head[:]), Kind(head[lengthSize])
	if only != 0 && kind != only {
		return nil, 0, blame("read frame: "+kind.String(), ErrOrder)
	}
	if err := checkLength(kind, length); err != nil {
		return nil, 0, blame("read frame", err)
	}
	body := make([]byte, length-kindSize)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, 0, fmt.Errorf("read frame: %w", err)
	}
	m, err := decode(kind, body)
	if err != nil {
		return nil, 0, blame(fmt.Sprintf("read frame: %s", kind), err)
	}
	return m, lengthSize + int(length), nil
}

func checkLength(k Kind, length uint32) error {
	limit := maxLength(k)
	switch {
	case limit == 0:
		return fmt.Errorf("%s is unknown: %w", k, space.ErrMalformed)
	case length <= kindSize:
		return fmt.Errorf("%s of %d bytes: %w", k, length, space.ErrMalformed)
	case uint64(length) > uint64(limit):
		return fmt.Errorf("%s of %d bytes, at most %d: %w", k, length, limit, space.ErrTooLarge)
	}
	return nil
}

// AppendFrame appends m as one frame to b.
func AppendFrame(b []byte, m Msg) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(m.Kind()))
	var err error
	if run, ok := m.(Envelopes); ok {
		b = appendRun(b, run)
	} else {
		var body []byte
		body, err = space.Marshal(m)
		b = append(b, body...)
	}
	if err != nil {
		return nil, fmt.Errorf("write frame: %w", err)
	}
	length := len(b) - start - lengthSize
	if length > maxLength(m.Kind()) {
		return nil, fmt.Errorf("write frame: %s of %d bytes: %w", m.Kind(), length, space.ErrTooLarge)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(length))
	return b, nil
}

// decode gives the message of a body. There is one encoding of each: a decoded
// message, appended again, gives the same bytes.
func decode(k Kind, body []byte) (Msg, error) {
	switch k {
	case KindChallenge:
		return decodeAs(body, checkChallenge)
	case KindAuth:
		return decodeAs[Auth](body, nil)
	case KindControl:
		return decodeAs[Control](body, nil)
	case KindControlPage:
		return decodeAs(body, checkControlPage)
	case KindDigest:
		return decodeAs[Digest](body, nil)
	case KindFrontier:
		return decodeAs(body, checkFrontier)
	case KindWant:
		return decodeAs(body, checkWant)
	case KindRun:
		return decodeRun(body)
	case KindServed:
		return decodeAs[Served](body, nil)
	case KindDone:
		return decodeAs(body, checkDone)
	case KindBeacon:
		return decodeAs(body, checkBeacon)
	case KindVector:
		return decodeAs(body, checkVector)
	case KindTree:
		return decodeAs(body, checkTree)
	case KindManifest:
		return decodeAs(body, checkManifest)
	case KindSegments:
		return decodeAs(body, checkSegments)
	default:
		return nil, fmt.Errorf("%s is unknown: %w", k, space.ErrMalformed)
	}
}

func decodeAs[M Msg](body []byte, check func(M) error) (Msg, error) {
	var m M
	if err := space.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func checkChallenge(m Challenge) error {
	if m.Version != Version {
		return fmt.Errorf("version %d: %w", m.Version, space.ErrUnsupported)
	}
	return nil
}

func checkControlPage(m ControlPage) error {
	switch {
	case m.Chunk == nil, m.More && m.Last, len(m.Chunk) == 0 && !m.Last:
		return space.ErrMalformed
	case len(m.Chunk) > maxChunk:
		return space.ErrTooLarge
	}
	return nil
}

func checkFrontier(m Frontier) error {
	return checkPage(m.Chains == nil, len(m.Chains), m.Last)
}

func checkWant(m Want) error {
	return checkPage(m.Ranges == nil, len(m.Ranges), m.Last)
}

func checkSegments(m Segments) error {
	return checkPage(m.Ranges == nil, len(m.Ranges), false)
}

func checkManifest(m Manifest) error {
	switch n := len(m.Heads); {
	case m.Heads == nil, n%len(envelope.ID{}) != 0:
		return fmt.Errorf("heads of %d bytes: %w", n, space.ErrMalformed)
	case n > maxHeads*len(envelope.ID{}):
		return fmt.Errorf("heads of %d bytes: %w", n, space.ErrTooLarge)
	}
	return nil
}

func checkPage(null bool, n int, last bool) error {
	switch {
	case null, n == 0 && !last:
		return fmt.Errorf("empty page: %w", space.ErrMalformed)
	case n > MaxPage:
		return fmt.Errorf("page of %d: %w", n, space.ErrTooLarge)
	}
	return nil
}

func checkDone(m Done) error { return checkPast(m.Past) }

func checkPast(p Past) error {
	if p > PastNone {
		return fmt.Errorf("past %d: %w", p, space.ErrMalformed)
	}
	return nil
}

func checkBeacon(m Beacon) error {
	switch n := len(m.Base); {
	case m.Base == nil, n != 0 && n != len(Tag{}), n == 0 && len(m.Changes)+len(m.Fresh) > 0:
		return fmt.Errorf("base of %d bytes: %w", n, space.ErrMalformed)
	}
	return checkChanges(m.Changes, m.Fresh, MaxEager)
}

func checkVector(m Vector) error {
	if err := checkPast(m.Past); err != nil {
		return err
	}
	switch n := len(m.Digest); {
	case m.Digest == nil, n != 0 && n != 32, n == 0 && (m.Count != 0 || len(m.Changes)+len(m.Fresh) > 0):
		return fmt.Errorf("digest of %d bytes: %w", n, space.ErrMalformed)
	}
	return checkChanges(m.Changes, m.Fresh, MaxChanges)
}

func checkChanges(changes []Change, fresh []FreshChain, limit int) error {
	switch {
	case changes == nil, fresh == nil:
		return fmt.Errorf("no list of changes: %w", space.ErrMalformed)
	case len(changes)+len(fresh) > limit:
		return fmt.Errorf("%d changes: %w", len(changes)+len(fresh), space.ErrTooLarge)
	case !slices.IsSortedFunc(changes, func(a, b Change) int { return ascending(cmp.Compare(a.Index, b.Index)) }),
		!slices.IsSortedFunc(fresh, func(a, b FreshChain) int { return ascending(compareChains(a.Chain, b.Chain)) }):
		return fmt.Errorf("not strictly ascending: %w", ErrFrontier)
	}
	return nil
}

// ascending makes a comparison of an element with the one before it strict:
// equal is out of order.
func ascending(order int) int {
	if order == 0 {
		return -1
	}
	return order
}

func checkTree(m Tree) error {
	set := 0
	for _, b := range m.Mask {
		set += bits.OnesCount8(b)
	}
	switch {
	case m.Mask == nil, m.Tags == nil, m.Depth < minDepth, m.Depth > maxDepth, len(m.Mask) == 0 && !m.Last:
		return fmt.Errorf("tree of depth %d: %w", m.Depth, space.ErrMalformed)
	case len(m.Mask) > MaxTreePage/8:
		return fmt.Errorf("tree page of %d bytes: %w", len(m.Mask), space.ErrTooLarge)
	case len(m.Tags) > 0 && len(m.Tags) != set*fan*len(Tag{}):
		return fmt.Errorf("%d bytes of tags for %d nodes: %w", len(m.Tags), set, space.ErrMalformed)
	}
	return nil
}

// RUN bodies are written and read by hand: they are nearly all of the bytes
// and need no copy. DRISL: an array of two byte strings.
const (
	arrayOfTwo  = 0x82
	byteString  = 0x40
	oneByteLen  = 24
	twoByteLen  = 25
	fourByteLen = 26
)

func appendRun(b []byte, m Envelopes) []byte {
	b = append(b, arrayOfTwo)
	var cert []byte
	if m.Cert != nil {
		cert = m.Cert.Bytes()
	}
	b = append(appendBytesHead(b, len(cert)), cert...)
	b = appendBytesHead(b, payload(m))
	for _, e := range m.Run {
		b = append(b, e.Bytes()...)
	}
	return b
}

func appendBytesHead(b []byte, n int) []byte {
	switch {
	case n < oneByteLen:
		return append(b, byteString|byte(n))
	case n <= math.MaxUint8:
		return append(b, byteString|oneByteLen, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, byteString|twoByteLen), uint16(n))
	default:
		return binary.BigEndian.AppendUint32(append(b, byteString|fourByteLen), uint32(n))
	}
}

// cutBytes takes a byte string from the front of b.
func cutBytes(b []byte) (s, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, fmt.Errorf("cut short: %w", space.ErrMalformed)
	}
	n, size := 0, 1
	switch first := b[0]; {
	case first < byteString || first > byteString|fourByteLen:
		return nil, nil, fmt.Errorf("byte %#x: want a byte string: %w", first, space.ErrMalformed)
	case first < byteString|oneByteLen:
		n = int(first &^ byteString)
	default:
		size += 1 << (first - byteString - oneByteLen)
		if len(b) < size {
			return nil, nil, fmt.Errorf("cut short: %w", space.ErrMalformed)
		}
		for _, x := range b[1:size] {
			n = n<<8 | int(x)
		}
	}
	if n > len(b)-size {
		return nil, nil, fmt.Errorf("%d bytes promised, %d left: %w", n, len(b)-size, space.ErrMalformed)
	}
	if len(appendBytesHead(make([]byte, 0, 8), n)) != size {
		return nil, nil, fmt.Errorf("length %d: %w", n, space.ErrNotCanonical)
	}
	return b[size : size+n : size+n], b[size+n:], nil
}

func decodeRun(body []byte) (Msg, error) {
	if len(body) == 0 || body[0] != arrayOfTwo {
		return nil, fmt.Errorf("want an array of two: %w", space.ErrMalformed)
	}
	cert, rest, err := cutBytes(body[1:])
	if err != nil {
		return nil, err
	}
	joined, rest, err := cutBytes(rest)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the run: %w", len(rest), space.ErrMalformed)
	}
	var m Envelopes
	if len(cert) > 0 {
		c, err := envelope.ParseCertificate(cert)
		if err != nil {
			return nil, err
		}
		m.Cert = &c
	}
	m.Run, err = envelope.ParseRun(joined)
	if err != nil {
		return nil, err
	}
	if t := m.Run[0].Type(); t.Ephemeral() {
		return nil, fmt.Errorf("%v envelope is in no chain: %w", t, space.ErrMalformed)
	}
	if (m.Run[0].Seq() == 0) != (m.Cert != nil) {
		return nil, fmt.Errorf("a certificate stands before seq 0 and nowhere else: %w", space.ErrMalformed)
	}
	return m, nil
}
