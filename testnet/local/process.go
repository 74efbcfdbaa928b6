package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

const (
	readyTime = 20 * time.Second // for a node to say that it is ready
	stopTime  = 5 * time.Second  // for a node to stop when asked
	tailSize  = 2 << 10          // what is kept of a process's last words
)

// ready is the line a node prints first (docs of kith run).
type ready struct {
	Ready     bool      `json:"ready"`
	DID       space.DID `json:"did"`
	PeerID    string    `json:"peerId"`
	Listen    []string  `json:"listen"`
	HTTP      string    `json:"http"`
	TokenFile string    `json:"tokenFile"`
	Relay     []string  `json:"relay"` // addresses of the relay role
}

// process is one running child.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    *os.File
	tail   *tail
	done   chan struct{} // closed when it has ended
	result error         // why; set before done is closed

	mu     sync.Mutex
	wanted bool // its end was asked for; guarded by mu
}

// spawn starts a command whose standard error goes to log, in a group of its
// own so that nothing it starts survives it.
func spawn(name, log, binary string, args []string, stdin io.Reader) (*process, io.Reader, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: f, tail: &tail{}, done: make(chan struct{})}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = cleanEnv(os.Environ())
	p.cmd.Stdin = stdin
	p.cmd.Stderr = io.MultiWriter(f, p.tail)
	p.cmd.SysProcAttr = ownGroup()
	p.cmd.WaitDelay = stopTime // a grandchild may hold the pipes
	out, w, err := os.Pipe()
	if err == nil {
		p.cmd.Stdout = w
		err = p.cmd.Start()
		w.Close()
	}
	if err != nil {
		if out != nil {
			out.Close()
		}
		f.Close()
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.result = p.cmd.Wait()
		f.Close()
		close(p.done)
	}()
	return p, out, nil
}

// cleanEnv leaves out what would point a child at the user's own node.
func cleanEnv(env []string) []string {
	out := make([]string, 0, len(env))
	for _, e := range env {
		if !strings.HasPrefix(e, "KITH_") && !strings.HasPrefix(e, "CREDENTIALS_DIRECTORY=") {
			out = append(out, e)
		}
	}
	return out
}

// kill ends the process and its group at once and waits until it is gone.
func (p *process) kill() {
	p.expect()
	killGroup(p.cmd.Process)
	<-p.done
}

// stop asks the process to end, and kills it if it does not.
func (p *process) stop() error {
	p.expect()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.kill()
		return nil
	}
	select {
	case <-p.done:
		return p.result
	case <-time.After(stopTime):
		p.kill()
		return fmt.Errorf("%s did not stop within %v", p.name, stopTime)
	}
}

func (p *process) expect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = true
}

// died says how the process ended if nobody asked it to; else nil.
func (p *process) died() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted {
		return nil
	}
	how := "with exit status 0"
	if p.result != nil {
		how = p.result.Error()
	}
	if last := p.tail.String(); last != "" {
		return fmt.Errorf("%s ended by itself (%s); its last words: %s", p.name, how, last)
	}
	return fmt.Errorf("%s ended by itself (%s) and said nothing", p.name, how)
}

// node is a kith run process, and the client that talks to it.
type node struct {
	*process
	ready
	*xrpc.Client
	home string
}

// runNode starts a node in home and waits until it is ready.
func runNode(ctx context.Context, kith, name, home, log string, more ...string) (*node, error) {
	args := []string{
		"run", "--home", home, "--http", "127.0.0.1:0", "--no-mdns",
		"--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--listen", "/ip4/127.0.0.1/tcp/0",
	}
	p, out, err := spawn(name, log, kith, append(args, more...), nil)
	if err != nil {
		return nil, err
	}
	r, err := p.awaitReady(ctx, out)
	if err != nil {
		p.kill()
		return nil, err
	}
	token, err := os.ReadFile(r.TokenFile)
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("%s: read its token: %w", name, err)
	}
	return &node{p, r, &xrpc.Client{Base: r.HTTP, Token: strings.TrimSpace(string(token))}, home}, nil
}

// awaitReady reads the ready line, and goes on to empty the pipe.
func (p *process) awaitReady(ctx context.Context, out io.Reader) (ready, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	type answer struct {
		ready
		err error
	}
	got := make(chan answer, 1)
	go func() {
		br := bufio.NewReader(out)
		line, err := br.ReadBytes('\n')
		var a answer
		switch {
		case err != nil:
			a.err = fmt.Errorf("it printed no ready line: %w", err)
		case json.Unmarshal(line, &a.ready) != nil || !a.Ready || a.HTTP == "":
			a.err = fmt.Errorf("its first line is not a ready line: %.200q", line)
		}
		got <- a
		io.Copy(io.Discard, br)
	}()
	select {
	case a := <-got:
		if a.err != nil && errors.Is(a.err, io.EOF) {
			select {
			case <-p.done: // its end explains the missing line
				return ready{}, p.died()
			case <-ctx.Done():
			}
		}
		if a.err != nil {
			return ready{}, fmt.Errorf("start %s: %w", p.name, a.err)
		}
		return a.ready, nil
	case <-ctx.Done():
		return ready{}, fmt.Errorf("start %s: not ready within %v; its last words: %s", p.name, readyTime, p.tail)
	}
}

// tail keeps the last words written to it.
type tail struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(b), nil
}

// String is on one line, so that it fits into a detail.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.ReplaceAll(bytes.TrimSpace(t.b), []byte("\n"), []byte(" | ")))
}

// executable is the kith to run.
func executable(kith string) (string, error) {
	if kith == "" {
		return os.Executable()
	}
	name, err := exec.LookPath(kith)
	if err != nil {
		return "", fmt.Errorf("the kith binary: %w", err)
	}
	return filepath.Abs(name)
}
