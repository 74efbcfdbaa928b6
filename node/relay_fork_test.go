package node

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/space/envelope"
)

// TestProofFromRelay: a relay alone saw both branches of a chain. It proves
// that to the member that is there, and to one that comes when nobody else is,
// and that holds the branch which has to go.
func TestProofFromRelay(t *testing.T) {
	r, err := relay.New(relay.Config{Dir: t.TempDir(), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoCircuit: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	a, b := freshNode(t), freshNode(t)
	id := club(t, a, b)
	if _, err := a.SetRelays(t.Context(), id, r.Addrs()[:1]); err != nil {
		t.Fatal(err)
	}
	aa := a.anyByID(id)
	carries := func() error {
		if got, want := relaySet(t, r, aa.current()), setOf(aa, aa.current()); got != want {
			return fmt.Errorf("the relay holds %s, not %s", got, want)
		}
		return nil
	}
	soon(t, "the relay carries it", carries)
	forkPut(t, a, id, "before")
	twin := thief(t, aa)
	head, _ := twin.Head()
	forkPut(t, a, id, "own")
	soon(t, "all hold the chain", func() error { return errors.Join(sameSet(id, a, b), carries()) })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	e := aa.current()
	frame, err := envelope.Frame{Run: branch(t, aa, twin, "stolen", 1)}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	body := append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	if status, said := askRelay(t, r, e, http.MethodPost, "putEnvelopes", body); status != http.StatusOK {
		t.Fatalf("the relay answers %d %s", status, said)
	}
	soon(t, "the proof reaches who is there", func() error { return forkedAt(a, id, twin.Chain(), head.Seq+1) })
	soon(t, "what the writer lost is there again", func() error {
		if !inside(t, aa, func() bool { return aa.writer != nil && aa.writer.Chain() != twin.Chain() }) {
			return errors.New("no chain was begun")
		}
		return errors.Join(hasRecord(a, id, "own", true), carries())
	})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	b = again(t, b, func(*Config) {})
	soon(t, "the proof reaches who comes later", func() error { return forkedAt(b, id, twin.Chain(), head.Seq+1) })
	soon(t, "and what stands of the chain, and was written again", func() error {
		return errors.Join(hasRecord(b, id, "before", true), hasRecord(b, id, "own", true), hasRecord(b, id, "stolen0", false))
	})
	sound(t, b, id)
}

// askRelay asks over HTTP, as whoever holds the fetch key may.
func askRelay(t *testing.T, r *relay.Relay, e *epoch, verb, method string, body []byte) (int, []byte) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), verb, "/xrpc/"+relay.Prefix+method, bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Authorization", "Fetch "+relay.NewTicket(e.id, r.Key(), time.Now().Add(time.Minute), [16]byte{1}, e.proveToRelay))
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, req)
	return w.Code, w.Body.Bytes()
}

// relaySet is what a relay holds of an epoch, as setOf has it.
func relaySet(t *testing.T, r *relay.Relay, e *epoch) string {
	t.Helper()
	_, said := askRelay(t, r, e, http.MethodGet, "digest", nil)
	var v struct {
		Count  uint64
		Digest string
	}
	if err := json.Unmarshal(said, &v); err != nil {
		t.Fatal(err)
	}
	digest, err := base64.RawURLEncoding.DecodeString(v.Digest)
	if err != nil || len(digest) < 4 {
		return string(said)
	}
	return fmt.Sprintf("%d (%x)", v.Count, digest[:4])
}
