package identity

import (
	"bytes"
	"crypto/cipher"
	"crypto/hpke"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
)

// A recovery file is two lines of text: its header, and the base64 of
// salt 16 ‖ nonce 24 ‖ XChaCha20-Poly1305 of the seed under
// Argon2id(passphrase, salt, m = 256 MiB, t = 3, p = 4), with the header as
// AAD. Whoever has the file can guess at the passphrase, half a second a guess
// on one core: the file is not for publishing.
const recoveryHeader = "kith recovery file 1"

// Argon2id's parameters in version 1 of the file.
const (
	argonMemory  = 256 << 10 // KiB
	argonTime    = 3
	argonThreads = 4
	argonSalt    = 16
)

// MinRecoveryPassphrase is the least length of a passphrase in bytes. It keeps
// out what falls to a dictionary in an hour, no more.
const MinRecoveryPassphrase = 12

const (
	recoverySize    = argonSalt + chacha20poly1305.NonceSizeX + 32 + chacha20poly1305.Overhead
	maxRecoveryFile = 4096
)

// SealSeed makes a recovery file. It takes the time and memory of Argon2id.
func SealSeed(rand io.Reader, s Seed, passphrase []byte) ([]byte, error) {
	if len(passphrase) < MinRecoveryPassphrase {
		return nil, fmt.Errorf("recovery file: %w: a passphrase of %d characters, want %d or more",
			space.ErrMalformed, len(passphrase), MinRecoveryPassphrase)
	}
	b := make([]byte, argonSalt+chacha20poly1305.NonceSizeX, recoverySize)
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, fmt.Errorf("recovery file: %w", err)
	}
	b = recoveryAEAD(passphrase, b[:argonSalt]).Seal(b, b[argonSalt:], s.keys().secret[:], []byte(recoveryHeader))
	return []byte(recoveryHeader + "\n" + base64.StdEncoding.EncodeToString(b) + "\n"), nil
}

// OpenSeed opens a recovery file. space.ErrForged: another passphrase, or a
// file that was changed.
func OpenSeed(file, passphrase []byte) (Seed, error) {
	if len(file) > maxRecoveryFile {
		return Seed{}, fmt.Errorf("recovery file: %w: %d bytes", space.ErrTooLarge, len(file))
	}
	head, rest, _ := strings.Cut(string(bytes.ReplaceAll(file, []byte("\r\n"), []byte("\n"))), "\n")
	if head != recoveryHeader {
		return Seed{}, fmt.Errorf("recovery file: %w: it does not begin with %q", space.ErrMalformed, recoveryHeader)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(rest, "\n"))
	if err != nil || len(b) != recoverySize {
		return Seed{}, fmt.Errorf("recovery file: %w", space.ErrMalformed)
	}
	body := b[argonSalt:]
	plain, err := recoveryAEAD(passphrase, b[:argonSalt]).Open(nil,
		body[:chacha20poly1305.NonceSizeX], body[chacha20poly1305.NonceSizeX:], []byte(recoveryHeader))
	if err != nil {
		return Seed{}, fmt.Errorf("recovery file: %w: another passphrase, or the file was changed", space.ErrForged)
	}
	defer clear(plain)
	return seedOf([32]byte(plain)), nil
}

func recoveryAEAD(passphrase, salt []byte) cipher.AEAD {
	key := argon2.IDKey(passphrase, salt, argonTime, argonMemory, argonThreads, chacha20poly1305.KeySize)
	defer clear(key)
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(fmt.Sprintf("identity: %v", err)) // the key is 32 bytes
	}
	return a
}

// SealBackup seals the key of a backup to the identity key: HPKE with info
// "sp/v1/backup" 0x00 ‖ C. The words open it.
func (s State) SealBackup(secret []byte) ([]byte, error) {
	kem, err := parseKEMPublic(s.KEMPub)
	if err != nil {
		return nil, fmt.Errorf("seal a backup's key: %w", err)
	}
	b, err := hpke.Seal(kem, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), space.LabelBackup.Message(s.C[:]), secret)
	if err != nil {
		return nil, fmt.Errorf("seal a backup's key: %w", err)
	}
	return b, nil
}

// OpenBackup opens what SealBackup sealed. space.ErrForged: other words, or a
// file that was changed.
func (s Seed) OpenBackup(sealed []byte) ([]byte, error) {
	k := s.keys()
	b, err := hpke.Open(k.kem, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), space.LabelBackup.Message(k.c[:]), sealed)
	if err != nil {
		return nil, fmt.Errorf("open a backup's key: %w", space.ErrForged)
	}
	return b, nil
}
