// Command kith-relay is the blind relay as a program of its own: it stores and
// forwards sealed envelopes for the topics that it holds a lease on. It links
// no package that could open one, which the layout test of the module proves;
// `kith run --relay` is the same role inside a node.
//
// It promises: one line of JSON on stdout once it takes requests, with its
// addresses; everything else on stderr; exit code 0 after SIGINT or SIGTERM,
// when all that was acknowledged is on disk, 1 on failure, 2 on wrong usage.
//
// One goroutine runs the command line; a second signal ends the process.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/kithnet/kith/internal/resident"
	"github.com/kithnet/kith/relay"
)

const (
	exitFailed = 1
	exitUsage  = 2

	version   = "0.1.0"
	stopTime  = 5 * time.Second
	startTime = 10 * time.Second // to read a request's header
)

// flags are the whole command line.
type flags struct {
	Home          string   `help:"The relay's directory." env:"KITH_RELAY_HOME" placeholder:"DIR"`
	Listen        []string `help:"Address to listen on, again for more. Standard: QUIC and TCP on port 2590." placeholder:"MADDR" sep:"none"`
	Announce      []string `help:"Address to tell others in the place of those, again for more." placeholder:"MADDR" sep:"none"`
	HTTP          string   `help:"Address of the HTTP API; none: no API." name:"http" default:"127.0.0.1:2589" placeholder:"ADDR"`
	Hosts         int      `help:"Hosts that share the topics, 8,000 each; each takes the next port." default:"3" placeholder:"N"`
	Closed        bool     `help:"Give no lease without an access code."`
	Codes         string   `help:"File of access codes: CODE MIB ENVELOPES-PER-SECOND a line." placeholder:"FILE"`
	LeaseMiB      uint64   `help:"Size of an open lease." name:"lease-mib" default:"16" placeholder:"MIB"`
	LeaseRate     uint64   `help:"Envelopes a second of an open lease." default:"500" placeholder:"N"`
	LeaseDays     int      `help:"How long a lease runs." default:"30" placeholder:"DAYS"`
	LeasesPerHour float64  `help:"New leases for one address an hour, beyond the first 500." default:"360" placeholder:"N"`
	RetentionDays int      `help:"How long entries are kept in any case." default:"90" placeholder:"DAYS"`
	MaxGiB        uint64   `help:"What all topics may hold together." name:"max-gib" default:"64" placeholder:"GIB"`
	NoCircuit     bool     `help:"Do not carry connections between nodes behind NATs."`
	Network       string   `help:"Id of a network apart: only its nodes understand each other. Standard: the open one." placeholder:"ID"`
	Metrics       string   `help:"Address of Prometheus metrics, on this machine alone; port 0 draws one. Standard: none." placeholder:"ADDR"`
	LogLevel      string   `help:"debug, info, warn, error." enum:"debug,info,warn,error" default:"info" placeholder:"LEVEL"`
	Version       bool     `help:"Print the version and end."`
}

// ready is what the relay says once it takes requests.
type ready struct {
	Ready   bool     `json:"ready"`
	PeerID  string   `json:"peerId"`
	Listen  []string `json:"listen"`
	HTTP    string   `json:"http"`
	Metrics string   `json:"metrics,omitempty"`
	Roles   []string `json:"roles"`
	Topics  int      `json:"topics"`
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run carries out a command line and answers the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	var f flags
	parser, err := kong.New(&f, kong.Name("kith-relay"), kong.Writers(stdout, stderr),
		kong.Description("A relay that stores and forwards what it cannot read."))
	if err == nil {
		_, err = parser.Parse(args)
	}
	if err != nil {
		fmt.Fprintln(stderr, "kith-relay:", err)
		return exitUsage
	}
	if f.Version {
		fmt.Fprintln(stdout, version)
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	if err := f.serve(ctx, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "kith-relay:", err)
		return exitFailed
	}
	return 0
}

// config is what the flags say.
func (f *flags) config(log *slog.Logger) (relay.Config, error) {
	c := relay.Config{
		Dir: f.Home, Listen: f.Listen, Announce: f.Announce, Hosts: f.Hosts, Closed: f.Closed,
		Open:      relay.Quota{Bytes: f.LeaseMiB << 20, Rate: f.LeaseRate},
		LeaseTime: time.Duration(f.LeaseDays) * 24 * time.Hour, LeaseRate: f.LeasesPerHour / 3600,
		Retention: time.Duration(f.RetentionDays) * 24 * time.Hour, MaxBytes: f.MaxGiB << 30,
		NoCircuit: f.NoCircuit, Log: log, Version: version, Network: f.Network,
	}
	if c.Dir == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return c, errors.New("there is no home directory: name one with --home DIR")
		}
		c.Dir = filepath.Join(user, ".local", "share", "kith-relay")
	}
	if len(c.Listen) == 0 {
		c.Listen = []string{"/ip4/0.0.0.0/udp/2590/quic-v1", "/ip6/::/udp/2590/quic-v1", "/ip4/0.0.0.0/tcp/2590", "/ip6/::/tcp/2590"}
	}
	if f.Codes == "" {
		return c, nil
	}
	b, err := os.ReadFile(f.Codes)
	if err != nil {
		return c, fmt.Errorf("access codes: %w", err)
	}
	c.Codes, err = parseCodes(string(b))
	return c, err
}

// parseCodes reads lines of CODE MIB RATE. Empty ones and such with # say
// nothing. An error names the line and never the code.
func parseCodes(s string) (map[string]relay.Quota, error) {
	codes := map[string]relay.Quota{}
	lines := bufio.NewScanner(strings.NewReader(s))
	for n := 1; lines.Scan(); n++ {
		line := strings.Fields(lines.Text())
		if len(line) == 0 || strings.HasPrefix(line[0], "#") {
			continue
		}
		if len(line) != 3 {
			return nil, fmt.Errorf("access codes: line %d: want CODE MIB ENVELOPES-PER-SECOND", n)
		}
		mib, err := strconv.ParseUint(line[1], 10, 40)
		rate, rateErr := strconv.ParseUint(line[2], 10, 32)
		if err != nil || rateErr != nil {
			return nil, fmt.Errorf("access codes: line %d: MIB and ENVELOPES-PER-SECOND are whole numbers", n)
		}
		codes[line[0]] = relay.Quota{Bytes: mib << 20, Rate: rate}
	}
	return codes, lines.Err()
}

// serve runs the relay until ctx ends.
func (f *flags) serve(ctx context.Context, stdout, stderr io.Writer) error {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.LogLevel)) // the parser knows only names that slog knows
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	c, err := f.config(log)
	if err != nil {
		return err
	}
	l, err := listen(f.HTTP, "http")
	if err != nil {
		return err
	}
	if l != nil {
		defer l.Close()
	}
	m, err := listenMetrics(f.Metrics)
	if err != nil {
		return err
	}
	if m != nil {
		defer m.Close()
	}
	r, err := relay.New(c)
	if err != nil {
		return err
	}
	say := ready{Ready: true, PeerID: r.ID().String(), Listen: r.Addrs(), Roles: []string{"relay"}, Topics: r.Topics()}
	served := make(chan error, 1)
	srv := &http.Server{Handler: r.Handler(), ReadHeaderTimeout: startTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	if l != nil {
		say.HTTP = "http://" + l.Addr().String()
		go func() { served <- srv.Serve(l) }()
	}
	if m != nil {
		say.Metrics = "http://" + m.Addr().String() + "/metrics"
		go serveMetrics(m, r, log)
	}
	if err := resident.Trim(); err != nil {
		log.Info("the memory that only the start needed is kept", "err", err)
	}
	if err := json.NewEncoder(stdout).Encode(say); err != nil {
		return errors.Join(err, r.Close())
	}
	select {
	case err = <-served:
		return errors.Join(fmt.Errorf("serve http: %w", err), r.Close())
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		srv.Close()
	}
	log.Info("stopped", "topics", r.Topics(), "held", r.Held())
	return r.Close()
}
