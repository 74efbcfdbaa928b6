package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"filippo.io/age"
)

// identityName is the file everything else is sealed to.
const identityName = "identity.age"

// ageMagic begins an age file: an identity that begins so is locked.
const ageMagic = "age-encryption.org/"

// DefaultWorkFactor is scrypt's log2 N: about a second, and 256 MiB.
const DefaultWorkFactor = 18

// maxWorkFactor is what Open puts up with.
const maxWorkFactor = 22

// IsProtected reports whether the identity in dir needs a passphrase, so that a
// caller knows whether to ask. An error wraps fs.ErrNotExist if there is none.
func IsProtected(dir string) (bool, error) {
	b, err := readFile(filepath.Join(dir, identityName))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = readFile(filepath.Join(dir, identityName+previous))
	}
	if err != nil {
		return false, noIdentity(dir, err)
	}
	return isLocked(b), nil
}

func isLocked(b []byte) bool { return bytes.HasPrefix(b, []byte(ageMagic)) }

func noIdentity(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open keys: no %s in %s: make an identity there, or restore it from the recovery words: %w", identityName, dir, fs.ErrNotExist)
	}
	return fmt.Errorf("open keys: %w", err)
}

// encodeIdentity is the identity's file: text as age-keygen writes it, or that
// text sealed with the passphrase.
func encodeIdentity(id *age.X25519Identity, u Unlock) ([]byte, error) {
	text := []byte("# the key to the other files here: whoever has it reads them\n" + id.String() + "\n")
	if u.Passphrase == nil {
		return text, nil
	}
	r, err := age.NewScryptRecipient(string(u.Passphrase))
	if err != nil {
		return nil, fmt.Errorf("lock keys: %w", err)
	}
	r.SetWorkFactor(DefaultWorkFactor)
	if u.WorkFactor != 0 {
		r.SetWorkFactor(u.WorkFactor)
	}
	b, err := seal(text, r)
	clear(text)
	if err != nil {
		return nil, fmt.Errorf("lock keys: %w", err)
	}
	return b, nil
}

// decodeIdentity reads what encodeIdentity wrote. ErrLocked is about the
// passphrase; every other error means that the file is damaged.
func decodeIdentity(b []byte, u Unlock) (*age.X25519Identity, error) {
	if isLocked(b) {
		if len(u.Passphrase) == 0 {
			return nil, fmt.Errorf("%w: they are protected and no passphrase was given: use --passphrase-file FILE or %s", ErrLocked, EnvFile)
		}
		i, err := age.NewScryptIdentity(string(u.Passphrase))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrLocked, err)
		}
		i.SetMaxWorkFactor(maxWorkFactor)
		text, err := unseal(b, i)
		if wrong := new(age.NoIdentityMatchError); errors.As(err, &wrong) {
			return nil, fmt.Errorf("%w: the passphrase does not open them: give the one they were made with", ErrLocked)
		}
		if err != nil {
			return nil, err
		}
		defer clear(text)
		b = text
	}
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		// The error may quote the line, which may be the key.
		return nil, errors.New("not an age identity")
	}
	id, ok := ids[0].(*age.X25519Identity)
	if !ok || len(ids) != 1 {
		return nil, errors.New("not one X25519 identity")
	}
	return id, nil
}

func seal(plain []byte, r age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func unseal(sealed []byte, i age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), i)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// checkName keeps names to what every file system takes and away from ours.
func checkName(name string) error {
	ok := name != "" && len(name) <= 64 && name[0] != '.' && name[0] != '-' &&
		name != identityName && !strings.HasSuffix(name, previous) && !strings.HasSuffix(name, temporary)
	for i := range len(name) {
		c := name[i]
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return fmt.Errorf("key file name %q: want 1 to 64 of a-z 0-9 . _ -, not %s and not ending in %s or %s", name, identityName, previous, temporary)
	}
	return nil
}
