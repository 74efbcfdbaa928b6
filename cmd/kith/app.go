package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// app is one command line being carried out.
type app struct {
	commands
	ctx            context.Context
	stdin          *os.File
	stdout, stderr io.Writer
	env            func(string) string
	standardHome   string
	named          string // the SPACE the command names, for errors
}

// standardHome is the user's data directory with kith in it, "" if the system
// does not say where that is.
func standardHome() string {
	user, err := os.UserHomeDir()
	if err != nil {
		user = ""
	}
	dir := os.Getenv("XDG_DATA_HOME")
	switch {
	case runtime.GOOS == "windows":
		dir = os.Getenv("LocalAppData")
	case runtime.GOOS == "darwin" && user != "":
		dir = filepath.Join(user, "Library", "Application Support")
	case !filepath.IsAbs(dir) && user != "":
		dir = filepath.Join(user, ".local", "share")
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "kith")
}

// settle gives the flags their standards and checks them.
func (a *app) settle() error {
	if a.Home == "" {
		a.Home = a.standardHome
	}
	if a.Home == "" {
		return usage("--home DIR, or KITH_HOME", "there is no home directory to put the node into")
	}
	home, err := filepath.Abs(a.Home)
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	a.Home = home
	if a.API == "" {
		return nil
	}
	u, err := url.Parse(a.API)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usage("--api http://127.0.0.1:2580", "--api: %q is not a web address", a.API)
	}
	if a.Token == "" && !isLoopback(u.Hostname()) {
		return usage("--token FILE", "--api names another machine: the token of %s stays here", a.Home)
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// hereOnly refuses the flags of a client in commands that act on the home.
func (a *app) hereOnly() error {
	if a.API != "" || a.Token != "" {
		return usage("leave them out, or name the home with --home", "this command acts on a home: --api and --token mean nothing to it")
	}
	return nil
}

// kith spells a further command for the same node, for hints.
func (a *app) kith(format string, args ...any) string {
	front := "kith "
	if a.Home != a.standardHome && a.Home != a.env("KITH_HOME") {
		front += "--home " + a.Home + " "
	}
	if a.API != "" {
		front += "--api " + a.API + " "
	}
	if a.Token != "" {
		front += "--token " + a.Token + " "
	}
	return front + fmt.Sprintf(format, args...)
}

// answer prints v as JSON, or what human writes.
func (a *app) answer(v any, human func(w io.Writer)) error {
	buf := new(bytes.Buffer)
	if a.JSON {
		enc := json.NewEncoder(buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
	} else {
		human(buf)
	}
	if _, err := buf.WriteTo(a.stdout); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// say is chatter: for people, on stderr, and not where scripts read errors.
func (a *app) say(label, format string, args ...any) {
	if !a.JSON && !a.Quiet {
		line(a.stderr, label, format, args...)
	}
}

// line prints a label and what it stands for.
func line(w io.Writer, label, format string, args ...any) {
	fmt.Fprintf(w, "%-10s%s\n", label, fmt.Sprintf(format, args...))
}

// client is the API of the node of --home, or of --api.
func (a *app) client() (*xrpc.Client, error) {
	base := a.API
	if base == "" {
		var err error
		if base, err = node.ReadAddr(a.Home); err != nil {
			return nil, a.notRunning()
		}
	}
	name := a.Token
	if name == "" {
		name = node.TokenFile(a.Home)
	}
	b, err := os.ReadFile(name)
	switch {
	case err != nil && a.Token != "":
		return nil, usage("the token lies in api.token of the node's home", "--token: %v", err)
	case err != nil:
		return nil, fmt.Errorf("read the API token: %w", err)
	}
	return &xrpc.Client{Base: base, Token: strings.TrimSpace(string(b))}, nil
}

func (a *app) notRunning() error {
	f := &failure{
		code: exitUnreachable, name: "NodeNotReachable",
		message: "no node runs in " + a.Home, hint: a.kith("run"),
	}
	if !node.Initialised(a.Home) {
		f.message += ": there is no identity there yet either"
		f.hint = a.kith("init") + ", or name the right directory with --home"
	}
	return f
}

// space finds the space that a command names by URI or by petname.
func (a *app) space(c *xrpc.Client, name string) (space.ID, error) {
	a.named = name
	if strings.Contains(name, "://") {
		id, err := space.ParseID(name)
		if err != nil {
			return space.ID{}, usage("a space reads ats://DID/TYPE/KEY, or is named by its petname", "%s", reason(err))
		}
		return id, nil
	}
	all, err := c.Spaces(a.ctx)
	if err != nil {
		return space.ID{}, err
	}
	for _, s := range all {
		if s.Name == name && name != "" {
			return s.ID, nil
		}
	}
	return space.ID{}, &failure{
		code: exitNotFound, name: "SpaceNotFound",
		message: fmt.Sprintf("no space here is named %q", name), hint: a.kith("space list"),
	}
}

// open is what most commands begin with: a client and a space.
func (a *app) open(name string) (*xrpc.Client, space.ID, error) {
	c, err := a.client()
	if err != nil {
		return nil, space.ID{}, err
	}
	id, err := a.space(c, name)
	return c, id, err
}

// called is a space as its owner would name it in the next command.
func called(name string, id space.ID) string {
	if name != "" {
		return name
	}
	return id.String()
}
