package local

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestBareLoop: the bare loop takes what its sender makes, and nothing that was
// changed on the way.
func TestBareLoop(t *testing.T) {
	for _, c := range []struct {
		entries, batch int
		flip           int // a byte of the stream, from its end if negative; 0: none
		want           string
	}{{700, 1, 0, ""}, {700, 7, 0, ""}, {300, 1, 5_000, "message authentication failed"}, {300, 1, -1, "the digest differs"}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() {
			sent <- ReplicatePeer(t.Context(), []string{l.Addr().String(), strconv.Itoa(c.entries), strconv.Itoa(c.batch)})
		}()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		if c.flip != 0 {
			b[(c.flip+len(b))%len(b)] ^= 1
		}
		err = receiveBare(bytes.NewReader(b), filepath.Join(t.TempDir(), "db"), c.entries/c.batch)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		conn.Close()
		l.Close()
		<-sent
	}
}
