package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/testnet/local"
	"github.com/kithnet/kith/xrpc"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kith": main})
}

// TestScripts runs the manual. Besides testscript's own commands:
//
//	ready NAME           the node of home NAME takes requests; sets NAME_api, NAME_http, NAME_did, NAME_addr
//	until PATTERN CMD…   CMD succeeds and its stdout matches, sooner or later
//	let VAR PATH         VAR is what stands at PATH (as a.0.b) in the JSON on stdout
//	has PATH…            the JSON on stdout has something at each PATH
//	fails CODE NAME ARG… kith ARG… --json exits so, with this JSON error on stderr and no stdout
//	canary DIR TEXT      no file under DIR holds TEXT, plain or encoded
//	terminate            SIGTERM to what runs in the background
//	lines FILE N TEXT    writes N lines, each TEXT with its number for %d
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready": ready, "until": until, "let": let, "has": has, "fails": fails, "canary": canary, "lines": lines,
			"terminate": terminate, "fetch": fetch,
		},
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Defer(func() { // networks that a script left up
				_, _ = local.Down(context.Background(), filepath.Join(e.WorkDir, "net"))
				_, _ = local.LeaveNet(filepath.Join(e.WorkDir, "bob"))
			})
			return nil
		},
	})
}

// patience is how long anything in a script may take.
const patience = 20 * time.Second

// wait asks again until done says so.
func wait(ts *testscript.TestScript, what string, done func() error) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			ts.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready NAME")
	}
	home := ts.MkAbs(args[0])
	var st xrpc.Status
	wait(ts, "ready "+args[0], func() error {
		base, err := node.ReadAddr(home)
		if err != nil {
			return err
		}
		token, err := os.ReadFile(node.TokenFile(home))
		if err != nil {
			return err
		}
		c := &xrpc.Client{Base: base, Token: strings.TrimSpace(string(token))}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		st, err = c.Status(ctx)
		ts.Setenv(args[0]+"_api", base)
		ts.Setenv(args[0]+"_http", strings.TrimPrefix(base, "http://"))
		return err
	})
	ts.Setenv(args[0]+"_did", string(st.DID))
	ts.Setenv(args[0]+"_addr", st.Listen[0])
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN CMD...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	wait(ts, "until "+args[0], func() error {
		if err := ts.Exec(args[1], args[2:]...); err != nil {
			return err
		}
		if out := ts.ReadFile("stdout"); !want.MatchString(out) {
			return fmt.Errorf("stdout is %s", out)
		}
		return nil
	})
}

// at finds what stands at a path of the JSON on stdout.
func at(ts *testscript.TestScript, path string) (any, bool) {
	var v any
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	ts.Check(dec.Decode(&v))
	if dec.More() {
		ts.Fatalf("more than one JSON value on stdout")
	}
	for step := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[step]; !ok {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(x) {
				return nil, false
			}
			v = x[i]
		default:
			return nil, false
		}
	}
	return v, true
}

func let(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: let VAR PATH")
	}
	v, ok := at(ts, args[1])
	if !ok {
		ts.Fatalf("nothing at %s", args[1])
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

func has(ts *testscript.TestScript, neg bool, args []string) {
	for _, path := range args {
		if _, ok := at(ts, path); ok == neg {
			ts.Fatalf("at %s: found %t, want %t", path, ok, !neg)
		}
	}
}

// fails runs a command with --json and wants this exit code and error of it.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: fails CODE NAME ARG... (of kith)")
	}
	err := ts.Exec("kith", append(args[2:], "--json")...)
	code := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout of a failure: %q", out)
	}
	// The log of run comes before.
	said := strings.Split(strings.TrimSpace(ts.ReadFile("stderr")), "\n")
	if len(said) > 1 && !slices.Contains(args, "run") {
		ts.Fatalf("stderr has more than the error: %s", ts.ReadFile("stderr"))
	}
	var e errorView
	dec := json.NewDecoder(strings.NewReader(said[len(said)-1]))
	dec.DisallowUnknownFields()
	ts.Check(dec.Decode(&e))
	if e.Error != args[1] || e.Message == "" || e.Hint == "" || dec.More() {
		ts.Fatalf("stderr is %s, want error %s with message and hint", ts.ReadFile("stderr"), args[1])
	}
}

func canary(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: canary DIR TEXT")
	}
	found, files := "", 0
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, form := range spellings(args[1]) {
			if bytes.Contains(b, form) {
				found = path
			}
		}
		return nil
	}))
	switch {
	case files == 0:
		ts.Fatalf("canary: %s holds no file", args[0])
	case neg && found == "":
		ts.Fatalf("canary: no file of %s holds %q", args[0], args[1])
	case !neg && found != "":
		ts.Fatalf("canary: %s holds %q", found, args[1])
	}
}

// spellings are the ways in which text could lie in a file: plain, hex, and
// base64 at each of its three alignments, without the characters that depend
// on what is around it.
func spellings(text string) [][]byte {
	b := []byte(text)
	lower := hex.EncodeToString(b)
	out := [][]byte{b, []byte(lower), []byte(strings.ToUpper(lower))}
	for shift := range 3 {
		padded := append(make([]byte, shift), b...)
		whole := len(padded) / 3 * 3
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			s := enc.EncodeToString(padded[:whole])
			out = append(out, []byte(s[(shift+2)/3*4:]))
		}
	}
	return out
}

func terminate(ts *testscript.TestScript, neg bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

func fetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fetch URL FILE")
	}
	r, err := http.Get(args[0])
	ts.Check(err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

func lines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: lines FILE N TEXT")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(args[2], "%d", strconv.Itoa(i+1)) + "\n")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o600))
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7d": 7 * 24 * time.Hour, "1w": 7 * 24 * time.Hour, "12h": 12 * time.Hour, "1d12h": 36 * time.Hour,
		"2w1d30m": 15*24*time.Hour + 30*time.Minute, "90s": 90 * time.Second, "0s": 0, "300ms": 300 * time.Millisecond,
	} {
		var s span
		if err := s.UnmarshalText([]byte(text)); err != nil || time.Duration(s) != want {
			t.Errorf("%s: %v %v, want %v", text, time.Duration(s), err, want)
		}
	}
	for _, text := range []string{"", "d", "7", "-7d", "1.5d", "7y", "12h1d", "1d1w", "-1h", "8191w8191d2000000h", "9999w", "7d x", "+7d"} {
		var s span
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %v", text, time.Duration(s))
		}
	}
}

// TestSpellings: what a canary looks for is found wherever it lies.
func TestSpellings(t *testing.T) {
	const text = "a secret of some length"
	for before := range 4 {
		for after := range 4 {
			hay := []byte(strings.Repeat("<", before) + text + strings.Repeat("?", after))
			for name, b := range map[string][]byte{
				"plain": hay, "hex": []byte(hex.EncodeToString(hay)),
				"base64": []byte(base64.StdEncoding.EncodeToString(hay)), "base64url": []byte(base64.RawURLEncoding.EncodeToString(hay)),
			} {
				found := false
				for _, s := range spellings(text) {
					found = found || bytes.Contains(b, s)
				}
				if !found {
					t.Errorf("%s with %d before and %d after is not found", name, before, after)
				}
			}
		}
	}
}
