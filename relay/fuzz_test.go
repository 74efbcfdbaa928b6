package relay

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/kithnet/kith/space"
)

// FuzzRequest: whatever somebody sends, a relay answers with a refusal that has
// a status, and keeps nothing.
func FuzzRequest(f *testing.F) {
	r := startRelay(f, f.TempDir())
	for k := range kindFork + 2 {
		f.Add(byte(k), []byte{})
		f.Add(byte(k), make([]byte, 32+64))
		f.Add(byte(k), make([]byte, 145+1+64))
	}
	f.Fuzz(func(t *testing.T, k byte, body []byte) {
		q := request{r: r, ctx: t.Context(), from: "somebody"}
		_, err := q.answer(kind(k), body)
		if row := rowOf(err); err != nil && row.status == 0 || errors.Is(err, ErrInternal) || err == nil && kind(k) != kindDescribe {
			t.Errorf("kind %d: %v", k, err)
		}
		if r.Topics() > 0 {
			t.Error("a topic was made")
		}
	})
}

// FuzzMessage: reading takes memory for what came and not for what was
// announced, and gives back what was written.
func FuzzMessage(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 5})
	f.Add([]byte{0, 4, 0, 0, 1, 2})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		tag, body, err := readMessage(bytes.NewReader(b))
		if err != nil {
			if len(b) > 0 && errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error("the end of a stream in the middle of a message")
			}
			return
		}
		var out bytes.Buffer
		if err := writeMessage(&out, tag, body); err != nil || !bytes.HasPrefix(b, out.Bytes()) {
			t.Errorf("written again: %x, %v", out.Bytes(), err)
		}
	})
}

// FuzzReceipt: what parses is what was signed, byte for byte.
func FuzzReceipt(f *testing.F) {
	c := Receipt{Topic: newWorld("one").topic, Count: 3, Time: 7, Relay: public(keyOf("relay"))}
	copy(c.Sig[:], space.Sign(keyOf("relay"), space.LabelReceipt, c.body()))
	f.Add(c.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseReceipt(b)
		if err == nil && !bytes.Equal(got.Bytes(), b) {
			t.Errorf("%x", got.Bytes())
		}
		if bytes.Equal(b, c.Bytes()) != (err == nil) && len(b) == ReceiptSize && bytes.Equal(b[81:113], c.Relay) {
			t.Errorf("%x: %v", b, err)
		}
	})
}
