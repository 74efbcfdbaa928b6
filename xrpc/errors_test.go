package xrpc

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
)

// sentinels are the exported errors the table must have a row for. A name that
// stands in the source and not here fails the test, and so does one without a
// row.
var sentinels = map[string]error{
	"space.ErrMalformed":       space.ErrMalformed,
	"space.ErrNotCanonical":    space.ErrNotCanonical,
	"space.ErrTooLarge":        space.ErrTooLarge,
	"space.ErrForged":          space.ErrForged,
	"space.ErrNoKey":           space.ErrNoKey,
	"space.ErrSpaceNotFound":   space.ErrSpaceNotFound,
	"space.ErrSpaceExists":     space.ErrSpaceExists,
	"space.ErrRepoNotFound":    space.ErrRepoNotFound,
	"space.ErrRecordNotFound":  space.ErrRecordNotFound,
	"space.ErrRecordExists":    space.ErrRecordExists,
	"space.ErrSwap":            space.ErrSwap,
	"space.ErrNotMember":       space.ErrNotMember,
	"space.ErrForbidden":       space.ErrForbidden,
	"space.ErrUnsupported":     space.ErrUnsupported,
	"space.ErrInvite":          space.ErrInvite,
	"space.ErrNoSpaceLeft":     space.ErrNoSpaceLeft,
	"space.ErrUnavailable":     space.ErrUnavailable,
	"space.ErrUnknownDID":      space.ErrUnknownDID,
	"space.ErrMemberExists":    space.ErrMemberExists,
	"space.ErrMemberNotFound":  space.ErrMemberNotFound,
	"space.ErrLastAuthority":   space.ErrLastAuthority,
	"space.ErrInviteNotFound":  space.ErrInviteNotFound,
	"space.ErrRequestNotFound": space.ErrRequestNotFound,
	"space.ErrSpaceDeleted":    space.ErrSpaceDeleted,
	"space.ErrFrozen":          space.ErrFrozen,
	"space.ErrNotSequencer":    space.ErrNotSequencer,
	"space.ErrDelegationCycle": space.ErrDelegationCycle,
	"space.ErrDelegationDepth": space.ErrDelegationDepth,
	"space.ErrStaleDescriptor": space.ErrStaleDescriptor,
	"xrpc.ErrPeerNotFound":     ErrPeerNotFound,
	"xrpc.ErrDeviceNotFound":   ErrDeviceNotFound,
	"xrpc.ErrSettingNotFound":  ErrSettingNotFound,
	"xrpc.ErrTokenNotFound":    ErrTokenNotFound,
	"xrpc.ErrLastDevice":       ErrLastDevice,
	"xrpc.ErrAmbiguous":        ErrAmbiguous{},
	"xrpc.ErrPetnameTaken":     ErrPetnameTaken,
	"xrpc.ErrCursor":           ErrCursor,
	"xrpc.ErrBlobNotFound":     ErrBlobNotFound,
	"xrpc.ErrConsumerTooSlow":  ErrConsumerTooSlow,
	"xrpc.ErrOutdatedCursor":   ErrOutdatedCursor,
	"xrpc.ErrFutureCursor":     ErrFutureCursor,
	"xrpc.ErrStillWaiting":     ErrStillWaiting,
}

// clientOnly never reach a server.
var clientOnly = map[string]bool{"xrpc.ErrUnreachable": true, "xrpc.ErrRevRollback": true}

// exportedErrors finds the package-level names that begin with Err.
func exportedErrors(t *testing.T, name, dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %d files", dir, err, len(files))
	}
	var found []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range gen.Specs {
				for _, id := range specNames(spec) {
					if rest, ok := strings.CutPrefix(id, "Err"); ok && rest != "or" {
						found = append(found, name+"."+id)
					}
				}
			}
		}
	}
	return found
}

func specNames(spec ast.Spec) []string {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		names := make([]string, len(s.Names))
		for i, id := range s.Names {
			names[i] = id.Name
		}
		return names
	case *ast.TypeSpec:
		return []string{s.Name.Name}
	}
	return nil
}

func TestEveryErrorHasARow(t *testing.T) {
	found := append(exportedErrors(t, "space", "../space"), exportedErrors(t, "xrpc", ".")...)
	if len(found) < len(sentinels) {
		t.Errorf("the source has %d errors, the test knows %d: %v", len(found), len(sentinels), found)
	}
	for _, name := range found {
		err, known := sentinels[name]
		switch {
		case clientOnly[name]:
		case !known:
			t.Errorf("%s: add it to the row table and to this test", name)
		case rowOf(err).err == errInternal:
			t.Errorf("%s has no row", name)
		case rowOf(fmt.Errorf("step: %w", err)).name != rowOf(err).name:
			t.Errorf("%s loses its row when wrapped", name)
		}
	}
}

// A server's error, read by the client, is the error again.
func TestErrorsComeBack(t *testing.T) {
	for name, sentinel := range sentinels {
		for dialect, d := range both {
			f := newFake(t)
			f.fail = fmt.Errorf("step: %w", sentinel)
			w := ask(newServer(f), get, "com.atproto.space.getSpace", spelled(d, get, "space=$S"))
			row := rowOf(sentinel)
			if w.Code != row.status[d] {
				t.Errorf("%s in %s: status %d, want %d", name, dialect, w.Code, row.status[d])
			}
			e := errorOf(w.Code, w.Body.Bytes())
			if !errors.Is(e, sentinel) || e.Message == "" {
				t.Errorf("%s in %s comes back as %v", name, dialect, e)
			}
			for other, err := range sentinels {
				if o := rowOf(err); (o.name != row.name || o.status[d] != row.status[d]) && errors.Is(e, err) {
					t.Errorf("%s comes back as %s too", name, other)
				}
			}
			if w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After", name)
			}
		}
	}
}

func TestAmbiguousComesBackWithAuthors(t *testing.T) {
	f := newFake(t)
	f.fail = fmt.Errorf("record: %w", ErrAmbiguous{[]space.DID{other, stranger}})
	w := ask(newServer(f), get, "com.atproto.space.getSpace", "space="+home.String())
	a, ok := errors.AsType[ErrAmbiguous](errorOf(w.Code, w.Body.Bytes()))
	if !ok || len(a.Authors) != 2 {
		t.Errorf("got %v, %v", a, ok)
	}
}

// What the table does not know says nothing to the caller.
func TestUnknownErrorsSayNothing(t *testing.T) {
	for _, err := range []error{errors.New("open /home/alice/kith/store: secret"), &fs.PathError{Op: "open", Path: "secret", Err: fs.ErrPermission}} {
		f := newFake(t)
		f.fail = err
		s := newServer(f)
		log := logTo(s)
		w := ask(s, get, "dev.kith.node.status", "")
		body := decoded(t, w)
		id, _ := body["correlationId"].(string)
		if w.Code != 500 || body["error"] != "InternalServerError" || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
		if len(id) != 16 || !strings.Contains(log.String(), id) || !strings.Contains(log.String(), "secret") {
			t.Errorf("id %q, log %s", id, log)
		}
	}
}

func TestErrorOfForeignAnswers(t *testing.T) {
	for _, body := range []string{"", "<html>", `{}`, `[]`, `{"error":1}`, strings.Repeat("\xff", 1000)} {
		if e := errorOf(502, []byte(body)); e.Name != "UnexpectedAnswer" || e.Status != 502 || len(e.Message) > 1000 {
			t.Errorf("%q: %v", clip(body), e)
		}
	}
}
