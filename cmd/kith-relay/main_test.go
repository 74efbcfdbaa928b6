package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kithnet/kith/relay"
)

// The relay says where it is, answers there, and ends in good order.
func TestServe(t *testing.T) {
	out, in := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	f := flags{
		Home: t.TempDir(), Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, HTTP: "127.0.0.1:0", Metrics: "127.0.0.1:0", Hosts: 2, Network: "0011223344556677",
		LeaseMiB: 1, LeaseRate: 1, LeaseDays: 1, LeasesPerHour: 1, RetentionDays: 1, MaxGiB: 1, LogLevel: "warn",
	}
	ended := make(chan error, 1)
	go func() {
		err := f.serve(ctx, in, io.Discard)
		in.CloseWithError(errors.Join(err, io.EOF))
		ended <- err
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var r ready
	if err := json.Unmarshal(line, &r); err != nil || !r.Ready || len(r.Listen) != 2 || r.Roles[0] != "relay" {
		t.Fatalf("%s %v", line, err)
	}
	res, err := http.Get(r.HTTP + "/xrpc/" + relay.Prefix + "describe")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); !strings.Contains(string(b), r.PeerID) {
		t.Errorf("describe: %s", b)
	}
	scraped, err := http.Get(r.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer scraped.Body.Close()
	if b, _ := io.ReadAll(scraped.Body); !strings.Contains(string(b), "\nkith_relay_topics 0\n") {
		t.Errorf("metrics: %s", b)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestParseCodes(t *testing.T) {
	got, err := parseCodes("# who pays\n\nsesame 64 1000\n")
	if err != nil || len(got) != 1 || got["sesame"] != (relay.Quota{Bytes: 64 << 20, Rate: 1000}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"sesame", "sesame 1", "sesame x 1", "sesame 1 -1", "sesame 1 1 1"} {
		if _, err := parseCodes(bad); err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestUsage(t *testing.T) {
	var out, diag strings.Builder
	if code := run([]string{"--nonsense"}, &out, &diag); code != exitUsage || out.Len() > 0 || diag.Len() == 0 {
		t.Errorf("exit %d, %q, %q", code, out.String(), diag.String())
	}
}

// Metrics are for this machine: nothing asks who looks.
func TestMetricsAreLocal(t *testing.T) {
	for _, bad := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "127.0.0.1"} {
		if l, err := listenMetrics(bad); err == nil {
			l.Close()
			t.Errorf("%q is taken", bad)
		}
	}
}
