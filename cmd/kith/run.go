package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/term"

	"github.com/kithnet/kith/internal/resident"
	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/relay"
	"github.com/kithnet/kith/xrpc"
)

type runCmd struct {
	Listen         []string `help:"Address to listen on for other nodes, again for more. Standard: QUIC and TCP on a port drawn once; /tcp/PORT/ws is WebSocket." placeholder:"MADDR" sep:"none"`
	Announce       []string `help:"Address to tell others instead of those listened on, again for more: of a forwarded port, of a name." placeholder:"MADDR" sep:"none"`
	HTTP           string   `help:"Address of the API; port 0 draws one. Standard: 127.0.0.1:2580." name:"http" default:"127.0.0.1:2580" placeholder:"ADDR"`
	Metrics        string   `help:"Address of Prometheus metrics and profiles, on this machine alone; port 0 draws one. Standard: none." placeholder:"ADDR"`
	CompactAfter   span     `help:"How long after it was superseded a value is dropped, where a keeper has it still, and how long oplogs go back; 0s: never, and for good." default:"30d" placeholder:"DUR"`
	Bootstrap      []string `help:"Node to connect to at start, again for more." placeholder:"MADDR" sep:"none"`
	Exempt         []string `help:"Network in which any number of nodes may share an address, again for more; elsewhere eight connections may. Standard: this machine." placeholder:"CIDR" sep:"none"`
	NoMDNS         bool     `help:"Do not look for nodes on the local network." name:"no-mdns"`
	PassphraseFile string   `help:"File with the passphrase of the keys." placeholder:"FILE"`
	Origin         []string `help:"Web origin under which the API is reached from elsewhere, again for more." placeholder:"URL" sep:"none"`
	Relay          bool     `help:"Carry sealed envelopes for others, as kith-relay does."`
	RelayListen    []string `help:"Address for that role to listen on, again for more. Standard: a port drawn once." placeholder:"MADDR" sep:"none"`
	RelayAnnounce  []string `help:"Address to tell others of that role, again for more." placeholder:"MADDR" sep:"none"`
	Network        string   `help:"Id of a network apart: only its nodes understand each other. Standard: the open one." placeholder:"ID"`
	Keeper         bool     `help:"Stay up for the spaces that made this member a keeper."`
}

// Run runs the node until it is told to stop. Its first line on stdout says in
// JSON that it takes requests, and where.
func (c *runCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.Metrics == "" {
		runtime.MemProfileRate = 0 // nobody could ask for the profile
	}
	var exempt []netip.Prefix
	for _, e := range c.Exempt {
		p, err := netip.ParsePrefix(e)
		if err != nil {
			return fmt.Errorf("--exempt %s: want a network, as in 10.0.0.0/8: %w", e, err)
		}
		exempt = append(exempt, p)
	}
	log := a.logger()
	pass, err := c.identity(a, log)
	if err != nil {
		return err
	}
	cfg := node.Config{
		Home: a.Home, Listen: c.Listen, Announce: c.Announce, HTTP: c.HTTP, Metrics: c.Metrics, CompactAfter: time.Duration(c.CompactAfter), Bootstrap: c.Bootstrap, NoMDNS: c.NoMDNS, Keeper: c.Keeper, Network: c.Network,
		Passphrase: pass, Log: log, Version: baseVersion, Settings: a.settings(), Origins: c.Origin, Exempt: exempt,
	}
	if c.Relay {
		cfg.Relay = &relay.Config{Listen: c.RelayListen, Announce: c.RelayAnnounce}
	}
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	if pass == nil {
		log.Warn("the key file has no passphrase: whoever gets this disk can read everything")
	}
	return n.Run(a.ctx, func(r node.Ready) {
		resident.Bound(a.env)
		if err := resident.Trim(); err != nil {
			log.Info("the memory that only the start needed is kept", "err", err)
		}
		if err := json.NewEncoder(a.stdout).Encode(r); err != nil {
			log.Error("say that the node is ready", "err", err)
		}
		log.Info("ready", "api", r.HTTP, "token", r.TokenFile, "listen", r.Listen)
	})
}

// settings are those that the environment gives the node.
func (a *app) settings() map[string]string {
	out := map[string]string{}
	for key, name := range map[string]string{xrpc.SettingSpaces: "FEATURE_SPACES_ENABLED", xrpc.SettingURI: "KITH_URI_SCHEME"} {
		if v := a.env(name); v != "" {
			out[key] = v
		}
	}
	return out
}

// identity makes sure that the home has one, and answers what unlocks it. The
// words of a new one go into a file: there may be nobody to read them here.
func (c *runCmd) identity(a *app, log *slog.Logger) (pass []byte, err error) {
	if node.Initialised(a.Home) {
		return a.passphrase(c.PassphraseFile)
	}
	if pass, err = a.newPassphrase(c.PassphraseFile); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(a.Home, 0o700); err != nil {
		return nil, fmt.Errorf("make the home: %w", err)
	}
	words := node.WordsFile(a.Home)
	id, _, err := createIdentity(a.Home, pass, words)
	if err != nil {
		return nil, err
	}
	log.Warn("made a new identity; its recovery words lie in a file: write them down, then wipe them",
		"did", id.DID, "words", words, "wipe", a.kith("id words --confirm"))
	return pass, nil
}

// logger writes to stderr: text for people, JSON for machines.
func (a *app) logger() *slog.Logger {
	level := slog.LevelInfo
	if a.Quiet {
		level = slog.LevelWarn
	}
	if a.LogLevel != "" {
		// The parser knows only names that slog knows.
		_ = level.UnmarshalText([]byte(a.LogLevel))
	}
	o := &slog.HandlerOptions{Level: level}
	f, isFile := a.stderr.(*os.File)
	if a.LogFormat == "text" || a.LogFormat == "" && !a.JSON && isFile && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(a.stderr, o))
	}
	return slog.New(slog.NewJSONHandler(a.stderr, o))
}
