package keyfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnlockOrder(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flag, env := file("flag", "from flag\n"), file("env", "from env\r\n")
	file(Credential, " from systemd ")
	none := filepath.Join(dir, "none")
	ask := func() ([]byte, error) { return []byte("asked"), nil }
	for _, c := range []struct {
		name, flag, env, creds string
		ask                    func() ([]byte, error)
		want                   string
		err                    error
	}{
		{"flag first", flag, env, dir, ask, "from flag", nil},
		{"then the variable", "", env, dir, ask, "from env", nil},
		{"then systemd, spaces kept", "", "", dir, ask, " from systemd ", nil},
		{"then the terminal", "", "", "", ask, "asked", nil},
		{"systemd without ours", "", "", none, ask, "asked", nil},
		{"nothing", "", "", "", nil, "", nil},
		{"flag names no file", none, env, dir, ask, "", fs.ErrNotExist},
		{"variable names no file", "", none, dir, ask, "", fs.ErrNotExist},
	} {
		vars := map[string]string{EnvFile: c.env, EnvCredentials: c.creds}
		got, err := Passphrase(c.flag, func(k string) string { return vars[k] }, c.ask)
		if string(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v, want %q, %v", c.name, got, err, c.want, c.err)
		}
		if c.want == "" && got != nil {
			t.Errorf("%s: %v, want nil", c.name, got)
		}
	}
	for name, content := range map[string]string{"empty": "", "line": "\n", "long": strings.Repeat("a", maxPassphrase+1)} {
		if got, err := Passphrase(file(name, content), os.Getenv, nil); err == nil {
			t.Errorf("%s file: %q", name, got)
		}
	}
}

func TestAsker(t *testing.T) {
	for _, c := range []struct {
		name    string
		confirm bool
		answers []string
		want    string
		ok      bool
	}{
		{"one answer", false, []string{"pass"}, "pass", true},
		{"none", true, []string{""}, "", true},
		{"twice the same", true, []string{"pass", "pass"}, "pass", true},
		{"twice, different", true, []string{"pass", "past"}, "", false},
		{"end of input", false, nil, "", false},
	} {
		var out bytes.Buffer
		answers := c.answers
		got, err := asker(&out, "Passphrase: ", c.confirm, func() ([]byte, error) {
			if len(answers) == 0 {
				return nil, errors.New("EOF")
			}
			a := answers[0]
			answers = answers[1:]
			return []byte(a), nil
		})()
		if string(got) != c.want || (err == nil) != c.ok || len(answers) != 0 {
			t.Errorf("%s: %q, %v, %d answers unread", c.name, got, err, len(answers))
		}
		if !strings.HasPrefix(out.String(), "Passphrase: ") || strings.Contains(out.String(), "pass\n") {
			t.Errorf("%s: shown %q", c.name, out.String())
		}
	}
}

func TestTerminalOnlyWhenOne(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if Terminal(r, w, "Passphrase: ", false) != nil {
		t.Error("Terminal asks on a pipe")
	}
}
