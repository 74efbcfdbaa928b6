package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/xrpc"
)

type doctorCmd struct {
	conformanceFlags `embed:""`
}

// Run looks at the home and at the node that runs there, or at what
// --conformance names. It fails if anything is wrong.
func (c *doctorCmd) Run(a *app) error {
	if c.Conformance != "" {
		return c.conformanceFlags.run(a)
	}
	if err := a.hereOnly(); err != nil {
		return err
	}
	d := &doctor{app: a, now: time.Now()}
	d.home()
	d.disk()
	d.node()
	wrong := slices.ContainsFunc(d.checks, func(k check) bool { return !k.OK })
	err := a.answer(map[string]any{"checks": d.checks, "ok": !wrong}, func(w io.Writer) {
		for _, k := range d.checks {
			mark := "ok"
			if !k.OK {
				mark = "WRONG"
			}
			fmt.Fprintf(w, "%-7s%-12s%s\n", mark, k.Name, k.Detail)
			if k.Fix != "" {
				fmt.Fprintf(w, "%19s%s\n", "", k.Fix)
			}
		}
	})
	if err != nil || !wrong {
		return err
	}
	if !a.JSON {
		line(a.stderr, "failed", "something is wrong")
	}
	return &failure{code: exitFailed, name: reported}
}

// check is one thing that was looked at. Fix says what to do where it is
// wrong, or could be better.
type check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// doctor is an examination under way.
type doctor struct {
	*app
	now    time.Time
	checks []check
}

func (d *doctor) say(name string, ok bool, fix, format string, args ...any) {
	d.checks = append(d.checks, check{Name: name, OK: ok, Detail: fmt.Sprintf(format, args...), Fix: fix})
}

// home looks at the identity, its key file and its words.
func (d *doctor) home() {
	if !node.Initialised(d.Home) {
		d.say("identity", false, d.kith("init")+", or name the right directory with --home", "there is none in %s", d.Home)
		return
	}
	d.say("identity", true, "", "in %s", d.Home)
	open := exposed(filepath.Join(d.Home, "keys"))
	locked, err := node.Locked(d.Home)
	switch {
	case err != nil:
		d.say("key file", false, "restore a backup: "+d.kith("backup restore FILE"), "cannot be read: %v", err)
	case open != "":
		d.say("key file", false, "chmod -R go= "+open, "others on this machine can read %s", open)
	case !locked:
		d.say("key file", true, "lock it: "+d.kith("init")+" --passphrase-file at the next home; or encrypt the disk", "has no passphrase: whoever gets this disk can read everything")
	default:
		d.say("key file", true, "", "locked by a passphrase, and yours alone")
	}
	if words := node.WordsFile(d.Home); exists(words) {
		d.say("words", false, "write them down, then: "+d.kith("id words --confirm"), "the recovery words still lie in %s", words)
	} else {
		d.say("words", true, "", "no recovery words lie in the home")
	}
}

// exposed is a file or directory that others on this machine can read.
func exposed(dir string) string {
	if os.PathSeparator == '\\' {
		return "" // access is not in the mode there
	}
	found := ""
	_ = filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().Perm()&0o077 != 0 && found == "" {
			found = name
		}
		return nil
	})
	return found
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// leastFree is what a home should have to grow into.
const leastFree = 512 << 20

func (d *doctor) disk() {
	free, err := freeBytes(d.Home)
	switch {
	case err != nil:
		d.say("disk", true, "", "how much is free cannot be told: %v", err)
	case free < leastFree:
		d.say("disk", false, "make room, or move the home", "%d MiB free", free>>20)
	default:
		d.say("disk", true, "", "%d MiB free", free>>20)
	}
}

// node looks at the node that runs in the home, if one does.
func (d *doctor) node() {
	api, err := d.client()
	var st xrpc.Status
	if err == nil {
		st, err = api.Status(d.ctx)
	}
	if err != nil {
		d.say("node", false, d.kith("run"), "does not run, or does not answer: %s", reason(err))
		d.keptPort()
		return
	}
	d.say("node", true, "", "runs, %d peers, %d spaces", len(st.Peers), len(st.Spaces))
	d.clock(st)
	d.reach(st)
	d.relays(st)
	d.version(st)
	for _, w := range st.Warnings {
		d.say("warning", true, "", "%s", w)
	}
}

// keptPort looks whether the port that was drawn once is free still.
func (d *doctor) keptPort() {
	b, err := os.ReadFile(filepath.Join(d.Home, "listen.port"))
	if err != nil {
		return
	}
	port := strings.TrimSpace(string(b))
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		d.say("ports", false, "stop what has it, or: "+d.kith("run --listen /ip4/0.0.0.0/udp/PORT/quic-v1"), "port %s, which others know, is taken", port)
		return
	}
	l.Close()
	d.say("ports", true, "", "port %s is free", port)
}

// clockSlack is how far clocks may be apart: entries further ahead wait.
const clockSlack = 2 * time.Minute

// clock holds this machine's clock against what relays signed and peers did.
func (d *doctor) clock(st xrpc.Status) {
	for _, s := range st.Spaces {
		for _, r := range s.Relays {
			at := time.UnixMilli(r.SignedAt)
			if r.SignedAt != 0 && at.Sub(d.now) > clockSlack {
				d.say("clock", false, "set it, and keep it set: timedatectl set-ntp true", "relay %s signed %s ahead of this machine's clock", r.PeerID, at.Sub(d.now).Round(time.Second))
				return
			}
		}
	}
	d.say("clock", true, "", "%s; no relay's clock is ahead of it", d.now.UTC().Format(time.RFC3339))
}

// reach says whether others can dial this node.
func (d *doctor) reach(st xrpc.Status) {
	ports, round := map[string]bool{}, 0
	for _, l := range st.Listen {
		if strings.Contains(l, "/p2p-circuit") {
			round++
			continue
		}
		for i, part := range strings.Split(l, "/") {
			if parts := strings.Split(l, "/"); (part == "udp" || part == "tcp") && i+1 < len(parts) {
				if _, err := strconv.Atoi(parts[i+1]); err == nil {
					ports[part+" "+parts[i+1]] = true
				}
			}
		}
	}
	names := []string{}
	for p := range ports {
		names = append(names, p)
	}
	slices.Sort(names)
	d.say("ports", len(names) > 0, "", "listening on %s", strings.Join(names, ", "))
	switch {
	case st.Reach == string(node.ReachPublic):
		d.say("reach", true, "", "others can dial this node")
	case round > 0:
		d.say("reach", true, "forward one of the ports above to be dialled directly", "behind a NAT, reached through relays (%d ways), then directly where the NAT lets it", round)
	case st.Reach == string(node.ReachPrivate):
		d.say("reach", false, "forward one of the ports above and tell it with --announce, or give a space a relay: "+d.kith("space relay add SPACE ADDR"), "behind a NAT, and no relay leads here")
	default:
		d.say("reach", true, "a relay would tell: "+d.kith("space relay add SPACE ADDR"), "unknown: nobody has tried to dial this node from outside yet")
	}
}

// relays names those that are not as they should be.
func (d *doctor) relays(st xrpc.Status) {
	all, wrong := map[string]bool{}, 0
	for _, s := range st.Spaces {
		for _, r := range s.Relays {
			all[r.PeerID] = true
			switch {
			case len(r.Caught) > 0:
				wrong++
				d.say("relay", false, d.kith("space relay remove %s %s", s.URI, r.PeerID), "%s of %s: %s", r.PeerID, s.URI, r.Caught[0])
			case !r.Connected:
				wrong++
				d.say("relay", false, "ask its operator, or: "+d.kith("space relay add %s ADDR", s.URI), "%s of %s is not connected", r.PeerID, s.URI)
			case r.LastError != "":
				wrong++
				d.say("relay", false, d.kith("space relay list %s", s.URI), "%s of %s: %s", r.PeerID, s.URI, r.LastError)
			}
		}
	}
	if wrong == 0 {
		d.say("relays", true, "", "%d, all in order", len(all))
	}
}

// version looks for peers of other versions.
func (d *doctor) version(st xrpc.Status) {
	newer := ""
	for _, p := range st.Peers {
		if p.Version != "" && laterVersion(p.Version, st.Version) && laterVersion(p.Version, newer) {
			newer = p.Version
		}
	}
	switch {
	case st.Version != baseVersion:
		d.say("version", false, "restart the node", "the node runs %s, this is %s", st.Version, baseVersion)
	case newer != "":
		d.say("version", true, "upgrade when it suits you", "this is %s; somebody runs %s", st.Version, newer)
	default:
		d.say("version", true, "", "%s, and nobody here runs a newer one", st.Version)
	}
}

// laterVersion compares versions number by number.
func laterVersion(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		m, errM := strconv.Atoi(x[i])
		n, errN := strconv.Atoi(y[i])
		switch {
		case errM != nil || errN != nil:
			return false
		case m != n:
			return m > n
		}
	}
	return b == "" && a != ""
}
