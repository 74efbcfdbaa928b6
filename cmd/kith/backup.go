package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/space/identity"
)

type backupCmd struct {
	Create  backupCreateCmd  `cmd:"" help:"Write all of this home into one encrypted file, while the node runs."`
	Restore backupRestoreCmd `cmd:"" help:"Fill an empty home from such a file."`
}

type backupCreateCmd struct {
	File                 string `arg:"" help:"The file to write; it must not exist."`
	BackupPassphraseFile string `help:"Let the passphrase in this file open it, too, besides the 24 words." placeholder:"FILE"`
}

// Run has the running node write a backup.
func (c *backupCreateCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	file, err := filepath.Abs(c.File)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if _, err := os.Stat(file); err == nil {
		return usage("name a file that does not exist", "the file for the backup exists already: %s", c.File)
	}
	pass, err := a.secret("backup", c.BackupPassphraseFile, "Passphrase for the backup (empty: the 24 words alone open it): ", true)
	if err != nil {
		return err
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	b, err := api.Backup(a.ctx, file, string(pass))
	if err != nil {
		return err
	}
	return a.answer(b, func(w io.Writer) {
		line(w, "backup", "%s", b.File)
		line(w, "", "%d spaces, %d rows, %d parts of blobs, %d bytes", b.Spaces, b.Rows, b.BlobParts, b.Bytes)
		if len(pass) == 0 {
			line(w, "note", "only the 24 words open it")
		}
		line(w, "next", "keep it on another disk; elsewhere: kith backup restore %s", filepath.Base(b.File))
	})
}

type backupRestoreCmd struct {
	File                 string `arg:"" help:"The backup."`
	WordsFile            string `help:"Open it with the 24 words in this file." placeholder:"FILE"`
	BackupPassphraseFile string `help:"Open it with the passphrase in this file." placeholder:"FILE"`
	PassphraseFile       string `help:"Lock the key file with the passphrase in this file." placeholder:"FILE"`
}

// Run fills an empty home.
func (c *backupRestoreCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.WordsFile != "" && c.BackupPassphraseFile != "" {
		return usage("one of them opens it", "--words-file and --backup-passphrase-file: give one")
	}
	if node.Initialised(a.Home) {
		return fmt.Errorf("%s: %w", a.Home, node.ErrIdentityExists)
	}
	u, err := c.opener(a)
	if err != nil {
		return err
	}
	pass, err := a.newPassphrase(c.PassphraseFile)
	if err != nil {
		return err
	}
	r, err := node.Restore(a.Home, c.File, u, pass)
	switch {
	case errors.Is(err, node.ErrBackup):
		return &failure{
			code: exitDenied, name: "BackupLocked", message: err.Error(),
			hint: "--words-file FILE with the 24 words of that identity, or --backup-passphrase-file FILE",
		}
	case errors.Is(err, fs.ErrNotExist):
		return &failure{code: exitNotFound, name: "NoBackup", message: err.Error(), hint: "name the file that backup create wrote"}
	case err != nil:
		return err
	}
	return a.answer(r, func(w io.Writer) {
		line(w, "restored", "%s", r.DID)
		line(w, "", "%d spaces, %d rows, %d parts of blobs, as of %s UTC", r.Spaces, r.Rows, r.BlobParts, time.UnixMilli(r.MadeMs).UTC().Format(time.DateTime))
		line(w, "files", "%s", r.Home)
		line(w, "note", "this is a copy: do not run the node it was made of beside it")
		line(w, "next", "%s", a.kith("run"))
	})
}

func (c *backupRestoreCmd) opener(a *app) (node.Unseal, error) {
	if c.WordsFile == "" {
		pass, err := a.secret("backup", c.BackupPassphraseFile, "Passphrase of the backup (empty: open it with the 24 words): ", false)
		if err != nil || len(pass) > 0 {
			return node.Unseal{Passphrase: string(pass)}, err
		}
	}
	seed, err := a.words(c.WordsFile)
	return node.Unseal{Seed: &seed}, err
}

// secret is a passphrase out of a file or from the terminal; nil: none.
func (a *app) secret(what, file, prompt string, confirm bool) ([]byte, error) {
	var ask func() ([]byte, error)
	if !a.JSON {
		if ask = keyfile.Terminal(a.stdin, a.stderr, prompt, confirm); ask != nil {
			ask = a.interruptible(ask)
		}
	}
	none := func(string) string { return "" } // KITH_PASSPHRASE_FILE locks keys, not files that leave the home
	pass, err := keyfile.Passphrase(file, none, ask)
	if err != nil && a.ctx.Err() == nil {
		return nil, &failure{
			code: exitFailed, name: "Passphrase", message: err.Error(),
			hint: "--" + what + "-passphrase-file FILE names a file that holds the passphrase",
		}
	}
	return pass, err
}

// maxWords bounds what is read of a file or the terminal as words.
const maxWords = 4096

// words reads the 24 words: out of a file, else from standard input.
func (a *app) words(file string) (identity.Seed, error) {
	var from io.Reader = a.stdin
	if file != "" {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			return identity.Seed{}, usage("name the file that holds the 24 words", "--words-file: %v", err)
		}
		if err != nil {
			return identity.Seed{}, fmt.Errorf("read the words: %w", err)
		}
		defer f.Close()
		from = f
	} else if term.IsTerminal(int(a.stdin.Fd())) {
		fmt.Fprintln(a.stderr, "The 24 words, then Ctrl-D:")
	}
	b, err := io.ReadAll(io.LimitReader(from, maxWords+1))
	if err != nil {
		return identity.Seed{}, fmt.Errorf("read the words: %w", err)
	}
	defer clear(b)
	if strings.TrimSpace(string(b)) == "" {
		return identity.Seed{}, usage("--words-file FILE, or give them on standard input", "the 24 words are missing")
	}
	seed, err := identity.SeedFromWords(string(b))
	if err != nil {
		return identity.Seed{}, &failure{
			code: exitUsage, name: "BadWords", message: reason(err),
			hint: "24 words of the English BIP-39 list, in their order",
		}
	}
	return seed, nil
}
