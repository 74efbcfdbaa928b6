package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/node"
)

type initCmd struct {
	Recover        bool   `help:"The same identity again, from its 24 words."`
	WordsFile      string `help:"Write the recovery words into this new file instead of showing them." placeholder:"FILE"`
	PassphraseFile string `help:"Lock the key file with the passphrase in this file." placeholder:"FILE"`
}

// made is an identity at its creation, the only time its words are shown.
type made struct {
	node.Identity
	Words     string `json:"words"`
	WordsFile string `json:"wordsFile,omitempty"`
}

// Run makes a new identity; it never overwrites one.
func (c *initCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if c.Recover {
		return &failure{
			code: exitFailed, name: "Unsupported",
			message: "init --recover: not built yet: besides the words it needs the identity's log from another of its devices",
			hint:    "keep the 24 words; without --recover, " + a.kith("init") + " makes a new identity",
		}
	}
	if node.Initialised(a.Home) {
		return fmt.Errorf("%s: %w", a.Home, node.ErrIdentityExists)
	}
	pass, err := a.newPassphrase(c.PassphraseFile)
	if err != nil {
		return err
	}
	id, words, err := createIdentity(a.Home, pass, c.WordsFile)
	if err != nil {
		return err
	}
	return a.answer(made{id, words, c.WordsFile}, func(w io.Writer) {
		line(w, "identity", "%s", id.DID)
		line(w, "", "fingerprint %s", id.Fingerprint)
		line(w, "files", "%s", id.Home)
		if c.WordsFile == "" {
			showWords(w, words)
		} else {
			line(w, "words", "in %s: write them down and keep them apart from this machine", c.WordsFile)
		}
		if pass == nil {
			line(w, "note", "no passphrase: whoever gets this disk can read everything")
		}
		line(w, "next", "%s", a.kith("run"))
	})
}

// createIdentity makes an identity. With a words file that file is there
// before the identity is, so that the words cannot be lost to a full disk.
func createIdentity(home string, pass []byte, wordsFile string) (node.Identity, string, error) {
	if wordsFile == "" {
		return node.Init(home, pass)
	}
	f, err := os.OpenFile(wordsFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return node.Identity{}, "", usage("name a file that does not exist", "the file for the recovery words exists already: %s", wordsFile)
	}
	if err != nil {
		return node.Identity{}, "", fmt.Errorf("make the file for the recovery words: %w", err)
	}
	id, words, err := node.Init(home, pass)
	if err != nil {
		return id, "", errors.Join(err, f.Close(), os.Remove(wordsFile))
	}
	_, err = f.WriteString(words + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return id, words, fmt.Errorf("write the recovery words: %w", err)
	}
	return id, words, nil
}

// showWords prints the words six a line.
func showWords(w io.Writer, words string) {
	const perLine = 6
	all := strings.Fields(words)
	label := "words"
	for len(all) > 0 {
		n := min(perLine, len(all))
		line(w, label, "%s", strings.Join(all[:n], " "))
		all, label = all[n:], ""
	}
	line(w, "", "write them down: they are the only way back to this identity, and are not shown again")
}

// newPassphrase is what a new key file is locked with; nil is nothing.
func (a *app) newPassphrase(file string) ([]byte, error) {
	var ask func() ([]byte, error)
	if !a.JSON {
		ask = keyfile.Terminal(a.stdin, a.stderr, "Passphrase for the keys (empty: none): ", true)
	}
	return a.readPassphrase(file, ask)
}

// passphrase is what the key file of the home is locked with; nil if it is not.
func (a *app) passphrase(file string) ([]byte, error) {
	locked, err := node.Locked(a.Home)
	if err != nil || !locked {
		return nil, err
	}
	return a.readPassphrase(file, keyfile.Terminal(a.stdin, a.stderr, "Passphrase for the keys: ", false))
}

func (a *app) readPassphrase(file string, ask func() ([]byte, error)) ([]byte, error) {
	if ask != nil {
		ask = a.interruptible(ask)
	}
	pass, err := keyfile.Passphrase(file, a.env, ask)
	if errors.Is(err, context.Canceled) {
		return nil, err
	}
	if err != nil {
		return nil, &failure{
			code: exitFailed, name: "Passphrase", message: err.Error(),
			hint: "--passphrase-file FILE names a file that holds the passphrase",
		}
	}
	return pass, nil
}

// interruptible ends the wait for an answer when the command is interrupted,
// and gives the terminal its echo back.
func (a *app) interruptible(ask func() ([]byte, error)) func() ([]byte, error) {
	return func() ([]byte, error) {
		fd := int(a.stdin.Fd())
		before, err := term.GetState(fd)
		if err != nil {
			return nil, fmt.Errorf("read the terminal's state: %w", err)
		}
		type reply struct {
			pass []byte
			err  error
		}
		replies := make(chan reply, 1)
		go func() {
			pass, err := ask()
			replies <- reply{pass, err}
		}()
		select {
		case r := <-replies:
			return r.pass, r.err
		case <-a.ctx.Done():
			return nil, errors.Join(a.ctx.Err(), term.Restore(fd, before))
		}
	}
}

type idCmd struct {
	Show  idShowCmd  `cmd:"" hidden:"" default:"1" help:"Show who this is."`
	Words idWordsCmd `cmd:"" help:"Show the recovery words that run left, and wipe them."`
}

type idShowCmd struct{}

// Run shows the identity of the home, whether or not its node runs.
func (*idShowCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	id, err := node.ReadIdentity(a.Home)
	if err != nil {
		return err
	}
	return a.answer(id, func(w io.Writer) {
		line(w, "identity", "%s", id.DID)
		line(w, "", "fingerprint %s", id.Fingerprint)
		line(w, "peer", "%s", id.PeerID)
		for _, d := range id.Devices {
			line(w, "device", "%s", d)
		}
		line(w, "files", "%s", id.Home)
	})
}

type idWordsCmd struct {
	Confirm bool `help:"Yes: show them once and wipe them."`
}

// Run shows the words that a first run without init left, then wipes them. If
// they could not be shown they stay.
func (c *idWordsCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	if !c.Confirm {
		return usage(a.kith("id words --confirm"), "the recovery words are shown once and then wiped from this disk; that needs --confirm")
	}
	name := node.WordsFile(a.Home)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := node.ReadIdentity(a.Home); err != nil {
			return err
		}
		return &failure{
			code: exitNotFound, name: "NoWords", message: "no recovery words lie in " + a.Home + ": init showed them, or they were wiped before",
			hint: "nothing is wrong if you wrote them down",
		}
	}
	if err != nil {
		return fmt.Errorf("read the recovery words: %w", err)
	}
	words := strings.TrimSpace(string(b))
	err = a.answer(map[string]string{"words": words}, func(w io.Writer) { showWords(w, words) })
	if err != nil {
		return err
	}
	if err := wipe(name, len(b)); err != nil {
		return fmt.Errorf("the words were shown but still lie in %s: %w", filepath.Base(name), err)
	}
	a.say("wiped", "%s", name)
	return nil
}

// wipe overwrites a file before it removes it: the best one can do without
// knowing the disk.
func wipe(name string, size int) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, size))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(name))
}
