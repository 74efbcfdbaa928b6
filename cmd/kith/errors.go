package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// The exit codes. When several fit: usage, unreachable, denied, not found,
// failed.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitUnreachable = 5
)

// failure is an error as its reader gets it.
type failure struct {
	code                int
	name, message, hint string
}

func (f *failure) Error() string { return f.message }

// usage is a command line that cannot be carried out by any node.
func usage(hint, format string, args ...any) error {
	return &failure{code: exitUsage, name: "WrongUsage", message: fmt.Sprintf(format, args...), hint: hint}
}

// meaning is what an error means to the caller. "" keeps the error's own name.
type meaning struct {
	err  error
	code int
	name string
	hint func(a *app) string
}

// meanings is searched in order; the first match wins.
var meanings = []meaning{
	{xrpc.ErrUnreachable, exitUnreachable, "NodeNotReachable", (*app).startHint},
	{space.ErrSpaceNotFound, exitNotFound, "SpaceNotFound", func(a *app) string { return a.kith("space list") }},
	{space.ErrRepoNotFound, exitNotFound, "RepoNotFound", func(a *app) string { return a.kith("space members %s", a.spaceName()) + " names who may have written" }},
	{space.ErrRecordNotFound, exitNotFound, "RecordNotFound", func(a *app) string { return a.kith("record list %s", a.spaceName()) }},
	{space.ErrSpaceDeleted, exitNotFound, "SpaceDeleted", func(a *app) string {
		return a.kith("space forget %s", a.spaceName()) + " destroys what is still here"
	}},
	{space.ErrMemberNotFound, exitNotFound, "MemberNotFound", func(a *app) string { return a.kith("space members %s", a.spaceName()) }},
	{space.ErrInviteNotFound, exitNotFound, "InviteNotFound", func(a *app) string { return a.kith("space invites %s", a.spaceName()) }},
	{space.ErrRequestNotFound, exitNotFound, "RequestNotFound", func(a *app) string { return a.kith("space approve %s", a.spaceName()) + " lists who waits" }},
	{xrpc.ErrPeerNotFound, exitNotFound, "PeerNotFound", func(a *app) string { return a.kith("peer list") }},
	{xrpc.ErrDeviceNotFound, exitNotFound, "DeviceNotFound", func(a *app) string { return a.kith("device list") }},
	{xrpc.ErrTokenNotFound, exitNotFound, "TokenNotFound", func(a *app) string { return a.kith("token list") }},
	{space.ErrUnknownDID, exitNotFound, "UnknownDid", func(a *app) string {
		return "this node has never met them: send them a link instead: " + a.kith("space invite %s", a.spaceName())
	}},
	{space.ErrMemberExists, exitFailed, "MemberAlreadyExists", func(a *app) string {
		return a.kith("space level %s DID LEVEL", a.spaceName()) + " changes what they may do"
	}},
	{space.ErrLastAuthority, exitFailed, "LastAuthority", func(a *app) string {
		return "end the space with " + a.kith("space delete %s", a.spaceName()) + ", or hand one with a DID of its own over with space transfer"
	}},
	{space.ErrFrozen, exitFailed, "SpaceFrozen", say("its sequencer said two things at once: nothing more is taken; reading goes on, and a new space is the way out")},
	{space.ErrNotSequencer, exitFailed, "SequencerUnavailable", func(a *app) string {
		return "try again when it is online; " + a.kith("space sequencer %s", a.spaceName()) + " says who it is"
	}},
	{space.ErrDelegationCycle, exitFailed, "DelegationCycle", func(a *app) string { return a.kith("space members %s", a.spaceName()) + " shows what is within it" }},
	{space.ErrDelegationDepth, exitFailed, "DelegationTooDeep", say("add the inner spaces themselves")},
	{space.ErrStaleDescriptor, exitFailed, "StaleDescriptor", say("try again when a keeper of the other space is online")},
	{xrpc.ErrLastDevice, exitFailed, "LastDevice", say("revoke it from another device, or with the recovery words")},
	{space.ErrInvite, exitDenied, "InvalidInvite", say("ask whoever invited you for a new link")},
	{space.ErrNotMember, exitDenied, "NotMember", say("ask a member for an invite")},
	{space.ErrForbidden, exitDenied, "Forbidden", func(a *app) string {
		return "ask the space's authority; your level: " + a.kith("space show %s", a.spaceName())
	}},
	{space.ErrRecordExists, exitFailed, "RecordAlreadyExists", say("kith record put writes over it")},
	{space.ErrSpaceExists, exitFailed, "SpaceAlreadyExists", say("choose another --key")},
	{xrpc.ErrPetnameTaken, exitFailed, "NameTaken", say("choose another --name")},
	{xrpc.ErrAmbiguous{}, exitFailed, "AmbiguousRepo", say("name one of them with --repo DID")},
	{xrpc.ErrStillWaiting, exitFailed, "StillWaiting", say("the node goes on asking while it runs: give the same command again later, with --wait 5m for more patience; whoever invited you must be online, and may have to say yes")},
	{space.ErrUnsupported, exitFailed, "Unsupported", say("leave it out; a later version may bring it")},
	{space.ErrNoKey, exitFailed, "KeyUnavailable", say("try again when another member of the space is connected")},
	{space.ErrNoSpaceLeft, exitFailed, "DiskFull", say("make room on the node's disk; it takes up writing by itself, and reads go on")},
	{space.ErrUnavailable, exitFailed, "NotAvailable", say("try again later; kith status shows the peers")},
	{space.ErrSwap, exitFailed, "InvalidSwap", say("read the record again, then decide")},
	{space.ErrTooLarge, exitFailed, "TooLarge", say("a record holds at most 1 MiB")},
	{node.ErrNoIdentity, exitFailed, "NoIdentity", func(a *app) string { return a.kith("init") }},
	{node.ErrIdentityExists, exitFailed, "IdentityExists", func(a *app) string {
		return a.kith("id") + " shows it; for another identity name another directory with --home"
	}},
	{keyfile.ErrLocked, exitDenied, "Locked", say("--passphrase-file FILE")},
	{node.ErrInUse, exitFailed, "InUse", say("stop the other node first, or run this one in another --home")},
	{syscall.EADDRINUSE, exitFailed, "AddressInUse", say("--http 127.0.0.1:0 draws a free port for the API")},
	{context.Canceled, exitFailed, "Interrupted", say("what was asked for may have happened: look before you repeat it")},
}

func say(hint string) func(*app) string { return func(*app) string { return hint } }

// explain finds what an error means.
func (a *app) explain(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	f := &failure{code: exitFailed, name: "Failed", message: err.Error()}
	e, remote := errors.AsType[*xrpc.Error](err)
	if remote {
		a.explainAnswer(f, e)
	}
	for _, m := range meanings {
		if errors.Is(err, m.err) {
			f.code, f.hint = m.code, m.hint(a)
			if !remote {
				f.name = m.name
			}
			if m.err == context.Canceled {
				f.message = "interrupted"
			}
			return f
		}
	}
	return f
}

// explainAnswer takes over what the node said.
func (a *app) explainAnswer(f *failure, e *xrpc.Error) {
	f.name, f.message = e.Name, strings.TrimPrefix(reason(e), e.Name+": ")
	f.message = strings.TrimPrefix(f.message, space.ErrMalformed.Error()+": ")
	if e.Name == "SpaceNotFound" && a.named != "" {
		f.message += ": " + a.named
	}
	switch {
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		f.code, f.hint = exitDenied, "name the token of that node with --token FILE; it lies in api.token of its home"
	case e.Name == "InvalidRequest":
		f.code, f.hint = exitUsage, "correct what the message names; --help shows the command"
	case strings.HasPrefix(e.Name, "Unsupported"):
		f.hint = "no node carries that out: change what the message names, or leave it out"
	case e.Status >= http.StatusInternalServerError:
		f.hint = "the node's log says more"
	case e.Name == "XRPCNotSupported" || e.Name == "UnexpectedAnswer":
		f.hint = "is that a kith node? " + a.kith("status")
	default:
		f.hint = "see " + a.kith("--help")
	}
}

// errorView is an error in JSON.
type errorView struct {
	Error   string `json:"error"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// report prints an error and answers the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	f := a.explain(err)
	if f.name == reported {
		return f.code
	}
	if f.hint == "" {
		f.hint = "see " + a.kith("--help")
	}
	if a.JSON {
		enc := json.NewEncoder(a.stderr)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(errorView{f.name, f.message, f.hint}); err != nil {
			fmt.Fprintln(os.Stderr, f.message)
		}
		return f.code
	}
	fmt.Fprintf(a.stderr, "kith: %s\nhint: %s\n", f.message, f.hint)
	return f.code
}

// spaceName is the space the command named, for hints.
func (a *app) spaceName() string {
	if a.named == "" {
		return "SPACE"
	}
	return a.named
}

// startHint is for whom no node answers.
func (a *app) startHint() string {
	if a.API != "" {
		return "check the address: a running node writes its own into api.addr of its home"
	}
	return a.kith("run")
}

// reported names a failure that the answer on stdout has told already.
const reported = "reported"

// reason is a parser's error without the sentinel behind it, which says
// nothing to people.
func reason(err error) string {
	text := err.Error()
	for _, s := range []error{space.ErrMalformed, space.ErrNotCanonical, space.ErrTooLarge} {
		text = strings.TrimSuffix(strings.TrimSuffix(text, " ("+s.Error()+")"), ": "+s.Error())
	}
	return text
}
