package local

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kithnet/kith/sync/reconcile"
)

// ReconcileOptions say what BenchReconcile measures.
type ReconcileOptions struct {
	Kith    string // the binary; empty: the one that is running
	Entries int    // envelopes that the other process holds
	Diff    int    // how many of them this one lacks
	// Pattern is where: "recent", the newest of 4 chains among 10, or
	// "scattered", the newest of up to Diff chains among 1,000.
	Pattern string
	// First: the two never agreed on anything before. Else they were equal when
	// the Diff newest envelopes had not been written yet.
	First    bool
	Progress func(string)
}

// What the peer says, one line each.
type peerReport struct {
	Ready bool    `json:"ready,omitempty"`
	CPU   float64 `json:"cpu"`   // seconds this process has used
	Trips int     `json:"trips"` // round trips of its last round
	Error string  `json:"error,omitempty"`
}

// BenchReconcile measures one round of reconciliation between this process,
// which lacks envelopes, and another over a loopback socket. What moves is
// signed, linked, verified and counted as in a node; it is neither opened nor
// stored, and both replicas are in memory. metadata-bytes are frames both ways
// less the envelopes in them and without the challenge, which is listed apart;
// round-trips those of the side that waited more often.
func BenchReconcile(ctx context.Context, o ReconcileOptions) (_ []Row, err error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	kith, err := executable(o.Kith)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "kith-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	in, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	child, out, err := spawn("the other replica", filepath.Join(dir, "peer.log"), kith, []string{
		"bench", "reconcile-peer", l.Addr().String(), strconv.Itoa(o.Entries), strconv.Itoa(o.Diff), o.Pattern, strconv.FormatBool(o.First),
	}, in)
	in.Close()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	b := &reconcileBench{ReconcileOptions: o, peer: bufio.NewScanner(out), orders: w, child: child}
	defer b.end()
	rows, err := b.run(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("bench reconcile: %w", err)
	}
	return rows, nil
}

type reconcileBench struct {
	ReconcileOptions
	child  *process
	peer   *bufio.Scanner
	orders io.WriteCloser
}

func (b *reconcileBench) end() {
	b.child.expect()
	b.orders.Close()
	select {
	case <-b.child.done:
	case <-time.After(stopTime):
		b.child.kill()
	}
}

// hear waits for the peer's next line.
func (b *reconcileBench) hear() (peerReport, error) {
	var r peerReport
	if !b.peer.Scan() {
		return r, errors.Join(errors.New("the other process is silent"), b.peer.Err(), b.child.died())
	}
	if err := json.Unmarshal(b.peer.Bytes(), &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, fmt.Errorf("the other process: %s", r.Error)
	}
	return r, nil
}

func (b *reconcileBench) run(ctx context.Context, l net.Listener) ([]Row, error) {
	b.Progress(fmt.Sprintf("making %d envelopes in two processes", b.Entries))
	p, err := newFixture(b.Entries, b.Diff, b.Pattern)
	if err != nil {
		return nil, err
	}
	mine, err := p.replica(false)
	if err != nil {
		return nil, err
	}
	theirs, err := b.hear() // its replica is there too
	if err != nil {
		return nil, err
	}
	conn, err := l.Accept()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	s, err := reconcile.New(mine.config(reconcile.Initiator, [32]byte{}))
	if err != nil {
		return nil, err
	}
	results := make(chan reconcile.Result, 4)
	stream := reconcile.NewLive(conn, s, nil, func(r reconcile.Result) { results <- r })
	before, cpu := time.Now(), cpuSeconds()
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx) }()
	defer stream.Close()
	next := func() (reconcile.Result, error) {
		select {
		case r := <-results:
			return r, nil
		case err := <-ended:
			return reconcile.Result{}, err
		case <-ctx.Done():
			return reconcile.Result{}, ctx.Err()
		}
	}
	res, err := next()
	if err != nil {
		return nil, err
	}
	auth := res.AuthBytes
	if !b.First {
		if theirs, err = b.order("write"); err != nil {
			return nil, err
		}
		before, cpu = time.Now(), cpuSeconds()
		if res, err = stream.Lead(ctx); err != nil {
			return nil, err
		}
		<-results
	}
	took, used := time.Since(before), cpuSeconds()-cpu
	after, err := b.order("report")
	if err != nil {
		return nil, err
	}
	if !res.Equal || res.Received != b.Diff {
		return nil, fmt.Errorf("not equal after one round: %+v", res)
	}
	return []Row{
		{"metadata-bytes", float64(res.MetaBytes), "B", 1},
		{"payload-bytes", float64(res.PayloadBytes), "B", 1},
		{"round-trips", float64(max(res.RoundTrips, after.Trips)), "", 1},
		{"seconds", took.Seconds(), "s", 1},
		{"cpu", used + after.CPU - theirs.CPU, "s", 1},
		{"challenge-bytes", float64(auth), "B", 1},
	}, nil
}

// order tells the peer to do something and waits until it has.
func (b *reconcileBench) order(what string) (peerReport, error) {
	if _, err := fmt.Fprintln(b.orders, what); err != nil {
		return peerReport{}, err
	}
	return b.hear()
}

// ReconcilePeer is the other side of BenchReconcile: args are the address to
// connect to, entries, diff, pattern and whether the two never met. It does
// what the lines of in say and answers each on out.
func ReconcilePeer(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 5 {
		return errors.New("reconcile-peer: want ADDR ENTRIES DIFF PATTERN FIRST")
	}
	var n [2]int
	for i := range n {
		v, err := strconv.Atoi(args[1+i])
		if err != nil {
			return fmt.Errorf("reconcile-peer: %w", err)
		}
		n[i] = v
	}
	p, err := newFixture(n[0], n[1], args[3])
	if err != nil {
		return err
	}
	mine, err := p.replica(args[4] == "true")
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	enc := json.NewEncoder(out)
	if err := enc.Encode(peerReport{Ready: true, CPU: cpuSeconds()}); err != nil {
		return err
	}
	open, err := reconcile.ReadOpening(conn)
	if err != nil {
		return err
	}
	cfg := mine.config(reconcile.Responder, [32]byte{1})
	cfg.Opening = open
	s, err := reconcile.New(cfg)
	if err != nil {
		return err
	}
	results := make(chan reconcile.Result, 4)
	stream := reconcile.NewLive(conn, s, nil, func(r reconcile.Result) { results <- r })
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx) }()
	for sc := bufio.NewScanner(in); sc.Scan(); {
		r := peerReport{}
		select { // the round before this order, which ends here a little later
		case res := <-results:
			r.Trips = res.RoundTrips
		case err := <-ended:
			return err
		}
		if sc.Text() == "write" {
			if err := mine.write(); err != nil {
				r.Error = err.Error()
			}
		}
		r.CPU = cpuSeconds()
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	stream.Close()
	<-ended
	return nil
}
