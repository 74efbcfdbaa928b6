// Package kith holds no code: its tests keep the layout of the module what
// the house style says it is.
package kith

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kithnet/kith"

const (
	maxFunction  = 100 // lines of a function
	maxFile      = 800 // lines of a file
	maxInterface = 5   // methods of an interface
)

// listed is what the test needs of `go list -json`.
type listed struct {
	ImportPath, Dir, Doc   string
	Imports, Deps, GoFiles []string
}

// policy is layout.txt.
type policy struct {
	allow map[string][]string
	deny  map[string][]string
	pure  map[string][]string
}

func TestLayout(t *testing.T) {
	pol, err := readPolicy("layout.txt")
	if err != nil {
		t.Fatal(err)
	}
	pkgs, err := list()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pkgs {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if name == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if p.Doc == "" {
				t.Error("no package comment")
			}
			checkImports(t, pol, name, p)
			checkSource(t, p)
		})
	}
	if files, _ := filepath.Glob("sync/*.go"); len(files) > 0 {
		t.Errorf("sync/ is a folder, not a package: %v", files)
	}
}

func checkImports(t *testing.T, pol policy, name string, p listed) {
	allowed, ok := pol.allow[name]
	if !ok {
		t.Errorf("not in layout.txt")
		return
	}
	for _, imp := range p.Imports {
		if own, ok := strings.CutPrefix(imp, module+"/"); ok && !slices.Contains(allowed, own) {
			t.Errorf("imports %s, which layout.txt does not allow", own)
		}
		if imp == "github.com/libp2p/go-libp2p-pubsub" && name != "gossip" {
			t.Errorf("imports pubsub: only gossip does")
		}
		if strings.HasPrefix(imp, "github.com/ipfs/go-d") && name != "internal/store" {
			t.Errorf("imports a datastore: only internal/store does")
		}
		if slices.Contains(pol.pure[name], imp) || pol.pure[name] != nil && strings.Contains(imp, "libp2p") {
			t.Errorf("imports %s: it must stay pure", imp)
		}
	}
	for _, dep := range p.Deps {
		if own, ok := strings.CutPrefix(dep, module+"/"); ok && slices.Contains(pol.deny[name], own) {
			t.Errorf("links %s, which it must not", own)
		}
	}
}

// checkSource walks the package's own files for what an AST can tell.
func checkSource(t *testing.T, p listed) {
	base := filepath.Base(p.Dir)
	if slices.Contains([]string{"util", "utils", "common", "helpers", "misc"}, base) {
		t.Errorf("a package named %s says nothing", base)
	}
	comments := 0
	for _, f := range p.GoFiles {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, f), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if file.Doc != nil {
			comments++
		}
		if n := fset.File(file.Pos()).LineCount(); n > maxFile {
			t.Errorf("%s: %d lines, at most %d", f, n, maxFile)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			checkNode(t, fset, n)
			return true
		})
	}
	if comments > 1 {
		t.Errorf("%d package comments: one is enough", comments)
	}
}

func checkNode(t *testing.T, fset *token.FileSet, n ast.Node) {
	lines := func(n ast.Node) int { return fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1 }
	switch n := n.(type) {
	case *ast.FuncDecl:
		if n.Name.Name == "init" && n.Recv == nil {
			t.Errorf("%s: init", fset.Position(n.Pos()))
		}
		if l := lines(n); l > maxFunction {
			t.Errorf("%s: %s is %d lines, at most %d", fset.Position(n.Pos()), n.Name.Name, l, maxFunction)
		}
	case *ast.InterfaceType:
		if n.Methods.NumFields() > maxInterface {
			t.Errorf("%s: interface of %d methods, at most %d", fset.Position(n.Pos()), n.Methods.NumFields(), maxInterface)
		}
	}
}

// TestNoSleep: tests wait for what they wait for, not for time.
func TestNoSleep(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") || path == "layout_test.go" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := string(b)
		for _, bad := range []string{"t.Skip(", "t.SkipNow("} {
			if strings.Contains(text, bad) {
				t.Errorf("%s: %s", path, bad)
			}
		}
		if strings.Contains(text, "time.Sleep(") && !strings.Contains(text, "synctest") && !strings.Contains(text, "Bubble(") {
			t.Errorf("%s: time.Sleep on the real clock", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func list() ([]listed, error) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Imports,Deps,GoFiles", "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var pkgs []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, p)
	}
}

func readPolicy(name string) (policy, error) {
	f, err := os.Open(name)
	if err != nil {
		return policy{}, err
	}
	defer f.Close()
	pol := policy{map[string][]string{}, map[string][]string{}, map[string][]string{}}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		left, right, ok := strings.Cut(line, ":")
		if !ok {
			return policy{}, fmt.Errorf("%s: no colon in %q", name, line)
		}
		names, values := strings.Fields(left), strings.Fields(right)
		into := pol.allow
		switch names[0] {
		case "deny":
			into, names = pol.deny, names[1:]
		case "pure":
			into, names = pol.pure, names[1:]
		}
		for _, n := range names {
			into[n] = values
		}
	}
	return pol, nil
}
