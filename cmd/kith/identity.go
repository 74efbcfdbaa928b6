package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
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
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

type initCmd struct {
	Recover                bool     `help:"The same identity again, from its 24 words."`
	From                   []string `help:"With --recover: address of a node that knows the identity (another device, or anybody you share a space with), or an invite link; again for more." placeholder:"ADDR" sep:"none"`
	WordsFile              string   `help:"Write the recovery words into this new file instead of showing them; with --recover read them from it." placeholder:"FILE"`
	RecoveryFile           string   `help:"With --recover: take the words from the file of id recovery-file." placeholder:"FILE"`
	RecoveryPassphraseFile string   `help:"The passphrase of that file." placeholder:"FILE"`
	PassphraseFile         string   `help:"Lock the key file with the passphrase in this file." placeholder:"FILE"`
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
	if !c.Recover && (len(c.From) > 0 || c.RecoveryFile != "" || c.RecoveryPassphraseFile != "") {
		return usage("add --recover, or leave them out", "--from and --recovery-file belong to init --recover")
	}
	if node.Initialised(a.Home) {
		return fmt.Errorf("%s: %w", a.Home, node.ErrIdentityExists)
	}
	if c.Recover {
		return c.recover(a)
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

// recover makes this machine a device of an identity that exists.
func (c *initCmd) recover(a *app) error {
	if len(c.From) == 0 {
		return usage(
			"--from ADDR: a multiaddr of another device of yours, of a keeper, or of anybody you share a space with (their kith status shows it), or an invite link to a space of yours",
			"init --recover needs a node that knows the identity: its log must be fetched before it goes on here, or it would fork")
	}
	seed, err := c.seed(a)
	if err != nil {
		return err
	}
	defer seed.Clear()
	pass, err := a.newPassphrase(c.PassphraseFile)
	if err != nil {
		return err
	}
	a.say("asking", "%d addresses for the identity", len(c.From))
	r, err := node.Machine{Home: a.Home, Passphrase: pass, Log: a.logger()}.Recover(a.ctx, seed, c.From)
	if errors.Is(err, node.ErrNoSource) {
		return &failure{
			code: exitUnreachable, name: "NoSource", message: err.Error(),
			hint: "start another device of yours, or ask somebody you share a space with to keep a node running, and name its address with --from",
		}
	}
	if errors.Is(err, space.ErrMalformed) {
		return usage("--from /ip4/…/p2p/PEERID, or --from kith:j#…", "--from: %s", reason(err))
	}
	if err != nil {
		return err
	}
	return a.answer(r, func(w io.Writer) {
		line(w, "recovered", "%s", r.DID)
		line(w, "", "fingerprint %s", r.Fingerprint)
		line(w, "files", "%s", r.Home)
		for i, uri := range r.Spaces {
			line(w, first(i, "spaces"), "%s", uri)
		}
		if r.Missing != "" {
			line(w, "note", "%s", r.Missing)
		}
		if r.Others > 0 {
			line(w, "note", "%d other devices may still act for you: kith device list, then kith device revoke what is lost", r.Others)
		}
		line(w, "next", "%s brings the spaces here", a.kith("run"))
	})
}

// seed is what the words say, or the recovery file.
func (c *initCmd) seed(a *app) (identity.Seed, error) {
	if c.RecoveryFile == "" {
		return a.words(c.WordsFile)
	}
	if c.WordsFile != "" {
		return identity.Seed{}, usage("one of them is enough", "--words-file and --recovery-file: give one")
	}
	b, err := os.ReadFile(c.RecoveryFile)
	if err != nil {
		return identity.Seed{}, usage("name the file that id recovery-file wrote", "--recovery-file: %v", err)
	}
	pass, err := a.secret("recovery", c.RecoveryPassphraseFile, "Passphrase of the recovery file: ", false)
	if err != nil {
		return identity.Seed{}, err
	}
	seed, err := identity.OpenSeed(b, pass)
	if err != nil {
		return seed, &failure{
			code: exitDenied, name: "RecoveryLocked", message: reason(err),
			hint: "--recovery-passphrase-file FILE with the passphrase it was made with, or the 24 words",
		}
	}
	return seed, nil
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
	Show         idShowCmd         `cmd:"" hidden:"" default:"1" help:"Show who this is."`
	Words        idWordsCmd        `cmd:"" help:"Show the recovery words that run left, and wipe them."`
	RecoveryFile idRecoveryFileCmd `cmd:"" help:"Seal the recovery words under a passphrase, in a file."`
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

type idRecoveryFileCmd struct {
	File                   string `arg:"" help:"The file to write; it must not exist."`
	WordsFile              string `help:"Read the 24 words from this file. Standard: the ones run left, else standard input." placeholder:"FILE"`
	RecoveryPassphraseFile string `help:"The passphrase that is to open the file." placeholder:"FILE"`
}

// Run seals the words of this identity under a passphrase.
func (c *idRecoveryFileCmd) Run(a *app) error {
	if err := a.hereOnly(); err != nil {
		return err
	}
	id, err := node.ReadIdentity(a.Home)
	if err != nil {
		return err
	}
	from := c.WordsFile
	if left := node.WordsFile(a.Home); from == "" && fileExists(left) {
		from = left
	}
	seed, err := a.words(from)
	if err != nil {
		return err
	}
	defer seed.Clear()
	if of := seed.Commitment(); hex.EncodeToString(of[:]) != id.Commitment {
		return &failure{
			code: exitDenied, name: "OtherIdentity", message: "these words are another identity's",
			hint: a.kith("id") + " shows whose words are wanted",
		}
	}
	pass, err := a.secret("recovery", c.RecoveryPassphraseFile, "Passphrase for the recovery file: ", true)
	if err != nil {
		return err
	}
	if len(pass) < identity.MinRecoveryPassphrase {
		return usage("six words drawn by dice are a good one; --recovery-passphrase-file FILE",
			"whoever gets the file can guess: its passphrase has at least %d characters", identity.MinRecoveryPassphrase)
	}
	b, err := identity.SealSeed(rand.Reader, seed, pass)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return usage("name a file that does not exist", "recovery file: %v", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the recovery file: %w", err)
	}
	return a.answer(map[string]string{"file": c.File, "did": string(id.DID)}, func(w io.Writer) {
		line(w, "sealed", "%s", c.File)
		line(w, "note", "keep it away from the machine, and its passphrase in your head: together they are the identity")
		line(w, "next", "kith init --recover --recovery-file %s --from ADDR", filepath.Base(c.File))
	})
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
