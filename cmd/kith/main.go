// Command kith is a node of end-to-end encrypted spaces and the client that
// talks to it, in one binary.
//
// It promises the command line as people script it: the answer on stdout and
// everything else on stderr; --json on every command, as one value or as one
// object per line; exit codes 0 done, 1 failed, 2 wrong usage, 3 not found,
// 4 not permitted, 5 node not reachable; and errors that say what, why and what
// to do next, with --json as {"error","message","hint"} and an empty stdout.
//
// It refuses options that are not built, and holds no rules of its own: run
// assembles package node, init and id read a home, every other command is one
// or a few calls of package xrpc. Secrets never reach a log: recovery words go
// to the terminal that asked, or to a file of mode 0600.
//
// One goroutine runs a command; an interrupt ends its context, a second one
// ends the process.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the whole command line: global flags, then nouns and verbs.
type commands struct {
	Home      string `help:"The node's directory." env:"KITH_HOME" placeholder:"DIR"`
	API       string `help:"Ask the node there, not the one of --home." name:"api" placeholder:"URL"`
	Token     string `help:"Its API token. Standard: HOME/api.token." placeholder:"FILE"`
	JSON      bool   `help:"Answer in JSON." name:"json"`
	Quiet     bool   `help:"Say nothing but the answer and errors."`
	LogLevel  string `help:"For run: debug, info, warn, error." enum:",debug,info,warn,error" default:"" placeholder:"LEVEL"`
	LogFormat string `help:"For run: text, json. Standard: by terminal." enum:",text,json" default:"" placeholder:"FORMAT"`

	Init    initCmd    `cmd:"" help:"Make a new identity."`
	Run     runCmd     `cmd:"" help:"Run the node until it is interrupted."`
	ID      idCmd      `cmd:"" name:"id" help:"Show who this is."`
	Device  deviceCmd  `cmd:"" help:"Your devices."`
	Backup  backupCmd  `cmd:"" help:"Copies of this home."`
	Status  statusCmd  `cmd:"" help:"Show the node, its peers and its spaces."`
	Peer    peerCmd    `cmd:"" help:"Other nodes."`
	Space   spaceCmd   `cmd:"" help:"Make, share and join spaces."`
	Record  recordCmd  `cmd:"" help:"Write and read records."`
	Repo    repoCmd    `cmd:"" help:"One author's records in a space."`
	Doctor  doctorCmd  `cmd:"" help:"Find out what is wrong."`
	Tokens  tokenCmd   `cmd:"" name:"token" help:"Who may call this node's API."`
	Keeper  keeperCmd  `cmd:"" help:"What this node does for the spaces of others."`
	Relay   relayCmd   `cmd:"" help:"What this node carries for others, blind."`
	Testnet testnetCmd `cmd:"" help:"Several nodes on this machine."`
	Bench   benchCmd   `cmd:"" help:"Measure."`
	Version versionCmd `cmd:"" help:"Print version, commit and Go."`

	Completion completionCmd `cmd:"" help:"Print a script that completes command lines."`
	Complete   completeCmd   `cmd:"" hidden:"" help:"List how a command line may go on."`
}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run carries out one command line and answers the exit code.
func run(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal is not caught: it ends the process

	a := &app{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, env: os.Getenv, standardHome: standardHome()}
	// Wrong usage is reported in JSON too, and then nothing is parsed yet.
	before, _, _ := cutArgs(args, "--")
	a.JSON = slices.Contains(before, "--json")
	parser, err := kong.New(&a.commands,
		kong.Name("kith"),
		kong.Description("End-to-end encrypted spaces between people's own nodes."),
		kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		return a.report(err)
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return a.report(wrongUsage(err))
	}
	if err := a.settle(); err != nil {
		return a.report(err)
	}
	return a.report(parsed.Run(a))
}

// cutArgs splits args around the first sep.
func cutArgs(args []string, sep string) (before, after []string, found bool) {
	if i := slices.Index(args, sep); i >= 0 {
		return args[:i], args[i+1:], true
	}
	return args, nil, false
}

// wrongUsage is what the parser refused, with the help of the command that was
// being named.
func wrongUsage(err error) error {
	help := "kith"
	if pe, ok := errors.AsType[*kong.ParseError](err); ok && pe.Context != nil {
		for _, p := range pe.Context.Path {
			if p.Command != nil && !p.Command.Hidden {
				help += " " + p.Command.Name
			}
		}
	}
	return &failure{code: exitUsage, name: "WrongUsage", message: strings.TrimSpace(reason(err)), hint: help + " --help"}
}
