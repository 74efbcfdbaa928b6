package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/term"
)

// Where a passphrase may be found, besides a flag and the terminal.
const (
	EnvFile        = "KITH_PASSPHRASE_FILE"
	EnvCredentials = "CREDENTIALS_DIRECTORY" // set by systemd
	Credential     = "kith-passphrase"       // the credential's name
)

// maxPassphrase bytes are read of a file.
const maxPassphrase = 4096

// Passphrase finds the passphrase: flagFile (--passphrase-file), then the file
// KITH_PASSPHRASE_FILE names, then systemd's credential, then ask, which is
// Terminal's result or nil. A file named by the flag or the variable must
// exist; a missing credential is passed over. nil and no error: there is none.
func Passphrase(flagFile string, env func(string) string, ask func() ([]byte, error)) ([]byte, error) {
	if flagFile != "" {
		return passphraseFile("--passphrase-file", flagFile)
	}
	if name := env(EnvFile); name != "" {
		return passphraseFile(EnvFile, name)
	}
	if dir := env(EnvCredentials); dir != "" {
		b, err := passphraseFile("systemd credential", filepath.Join(dir, Credential))
		if !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
	}
	if ask != nil {
		return ask()
	}
	return nil, nil
}

// passphraseFile reads a file but for the line end after its last line.
func passphraseFile(source, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("passphrase from %s: %w", source, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassphrase+1))
	if err != nil {
		return nil, fmt.Errorf("passphrase from %s: %w", source, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("passphrase from %s: %s is empty: write the passphrase into it, or name no file to go without", source, name)
	case len(b) > maxPassphrase:
		return nil, fmt.Errorf("passphrase from %s: %s is longer than %d bytes: is it the right file?", source, name, maxPassphrase)
	}
	return b, nil
}

// Terminal asks on the terminal: prompt goes to out, the answer is not shown.
// It is nil if in is not a terminal. With confirm it asks twice, for a new
// passphrase. An empty answer means none.
func Terminal(in *os.File, out io.Writer, prompt string, confirm bool) func() ([]byte, error) {
	fd := int(in.Fd())
	if !term.IsTerminal(fd) {
		return nil
	}
	return asker(out, prompt, confirm, func() ([]byte, error) { return term.ReadPassword(fd) })
}

func asker(out io.Writer, prompt string, confirm bool, read func() ([]byte, error)) func() ([]byte, error) {
	one := func(prompt string) ([]byte, error) {
		fmt.Fprint(out, prompt)
		b, err := read()
		fmt.Fprintln(out)
		if err != nil {
			return nil, fmt.Errorf("passphrase from the terminal: %w", err)
		}
		return b, nil
	}
	return func() ([]byte, error) {
		b, err := one(prompt)
		if err != nil || len(b) == 0 {
			return nil, err
		}
		if confirm {
			again, err := one("Again: ")
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(b, again) {
				return nil, errors.New("passphrase from the terminal: the two differ: try again")
			}
		}
		return b, nil
	}
}
