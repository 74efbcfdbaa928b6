package local

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// binaryDir takes the binary under test; TestMain removes it.
var binaryDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "kith-binary-") })

// build makes the binary once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := binaryDir()
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "kith")
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	out, err := exec.Command("go", "build", "-o", name, "github.com/kithnet/kith/cmd/kith").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, nil
})

func built(t *testing.T) string {
	t.Helper()
	name, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// The whole story holds with the built-in forum, and leaves nothing behind.
func TestDemo(t *testing.T) {
	binary := built(t)
	t.Setenv("TMPDIR", t.TempDir())
	r, err := Demo(t.Context(), DemoOptions{Kith: binary, Progress: func(s Step) {
		t.Logf("%-32s %5d ms  %s", s.Name, s.MS, s.Detail)
	}})
	if err != nil || !r.OK || len(r.Steps) < 8 {
		t.Fatalf("%v, %+v", err, r)
	}
	for _, s := range r.Steps {
		if !s.OK || s.Name == "" || s.Detail == "" {
			t.Errorf("step %+v", s)
		}
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Any forum will do, even one in which all use the same keys; the homes stay
// where they were asked for.
func TestDemoImport(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "forum.jsonl")
	var lines []string
	for _, author := range strings.Fields("one two three four five") {
		for _, text := range []string{"short", "a text that is long enough to be looked for on the disk: 可以"} {
			lines = append(lines, strings.NewReplacer("moss", author, "hi", text, `"a"`, `"`+string(text[0])+`"`).Replace(goodLine))
		}
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Demo(t.Context(), DemoOptions{Kith: built(t), Import: file, Dir: dir})
	if err != nil || !r.OK {
		t.Fatalf("%v, %+v", err, r)
	}
	for _, name := range []string{"ada", "ben", "cem", "dora", "ada.log"} {
		if !exists(filepath.Join(dir, name)) {
			t.Errorf("%s is gone", name)
		}
	}
}

// Whoever stops the story stops its processes.
func TestDemoStopped(t *testing.T) {
	binary := built(t)
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	r, err := Demo(ctx, DemoOptions{Kith: binary, Progress: func(s Step) {
		if s.Name == "create a space" {
			cancel()
		}
	}})
	if err != nil || r.OK || len(r.Steps) != 3 || !strings.Contains(r.Steps[2].Detail, "context canceled") {
		t.Fatalf("%v, %+v", err, r)
	}
	apis := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(r.Steps[0].Detail, -1)
	if len(apis) != 3 {
		t.Errorf("apis %q", apis)
	}
	for _, addr := range apis {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Errorf("%s still answers", addr)
		}
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBenchPropagate(t *testing.T) {
	rows, err := BenchPropagate(t.Context(), BenchOptions{Kith: built(t), N: 30, Pace: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Row{}
	for _, r := range rows {
		got[r.Name] = r
		if r.Value <= 0 || r.N != 30 || r.Unit != "ms" && r.Unit != "x" {
			t.Errorf("row %+v", r)
		}
		t.Logf("%-14s %8.3f %s", r.Name, r.Value, r.Unit)
	}
	for _, name := range []string{"kith-p50", "kith-p99", "bare-p50", "bare-p99", "ratio-p50", "ratio-p99"} {
		if _, ok := got[name]; !ok {
			t.Errorf("no row %s", name)
		}
	}
	if got["kith-p99"].Value < got["kith-p50"].Value || got["kith-p99"].Value > 20_000 {
		t.Errorf("p50 %v, p99 %v", got["kith-p50"], got["kith-p99"])
	}
}
