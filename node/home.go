package node

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// The files of a home besides the store:
//
//	keys/           the key file: every secret, see internal/keyfile
//	identity.json   who this is, for people and scripts; nothing secret
//	api.token       the owner's token for the HTTP API, mode 0600
//	api.addr        where the API listens while the node runs
//	lexicons/       documents that records of their collections are held to, if the owner put any there
//	listen.port     the port drawn for other nodes, see keptListen
//	recovery-words  only after a first start without init; wiped by id words --confirm
//	init.unfinished only while init runs, or after it was killed
const (
	keysDir      = "keys"
	identityFile = "identity.json"
	tokenFile    = "api.token"
	addrFile     = "api.addr"
	wordsFile    = "recovery-words"
	lexiconsDir  = "lexicons"

	// While this stands beside keys, nobody was ever told that they are there.
	unfinishedFile = "init.unfinished"
	storeDir       = "store"
)

// ErrNoIdentity: the home holds no identity yet.
var ErrNoIdentity = errors.New("no identity here; make one with: kith init")

// ErrIdentityExists: Init never overwrites an identity.
var ErrIdentityExists = errors.New("this home already holds an identity, and init never overwrites one; use another --home")

// Identity is what may be told about an identity.
type Identity struct {
	DID         space.DID `json:"did"`
	Commitment  string    `json:"commitment"` // hex
	PeerID      string    `json:"peerId"`
	Fingerprint string    `json:"fingerprint"`
	Devices     []string  `json:"devices"` // hex of their signing keys
	Home        string    `json:"home"`
}

// self is who this node is, with the secrets that prove it.
type self struct {
	did    space.DID
	c      identity.Commitment
	device identity.Device
	didKey atcrypto.PrivateKey
	peer   crypto.PrivKey
	clock  uint16 // the TID clock of this process

	// mu guards what follows: devices come and go while the node runs.
	mu    sync.RWMutex
	puk   identity.PUK
	log   [][]byte
	state identity.State

	twin twinWatch
}

// ownLog is the identity log, ownPUK the newest per-user key that this device
// can open, ownState what the log says.
func (s *self) ownLog() [][]byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.log
}

func (s *self) ownPUK() identity.PUK {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.puk
}

func (s *self) ownState() identity.State {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state
}

// selfRecord is self in the key file.
type selfRecord struct {
	_        struct{} `cbor:",toarray"`
	Device   []byte
	PUK      []byte
	DIDKey   []byte
	Log      [][]byte
	Peer     []byte // libp2p host key
	StoreKey []byte // 32 bytes, what the store is sealed with
}

const selfName = "self"

// Init makes a new identity in home and answers it with its recovery words,
// which are kept nowhere. The passphrase, if any, locks the key file.
func Init(home string, passphrase []byte) (Identity, string, error) {
	if Initialised(home) {
		return Identity{}, "", fmt.Errorf("%s: %w", home, ErrIdentityExists)
	}
	seed, err := identity.NewSeed(rand.Reader)
	if err != nil {
		return Identity{}, "", err
	}
	defer seed.Clear()
	created, err := identity.New(rand.Reader, seed, time.Now().UnixMilli())
	if err != nil {
		return Identity{}, "", fmt.Errorf("make an identity: %w", err)
	}
	hostKey, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return Identity{}, "", err
	}
	id, err := furnish(home, furniture{created: created, hostKey: hostKey, passphrase: passphrase})
	return id, seed.Words(), err
}

// furniture is what a new home is filled with.
type furniture struct {
	created    identity.Created
	hostKey    crypto.PrivKey
	passphrase []byte // locks the key file; nil: not protected
	list       []byte // the sealed list of spaces, if there is one
}

// furnish fills an empty home. It is whole, or it can be filled again.
func furnish(home string, f furniture) (Identity, error) {
	rec, err := newSelfRecord(f.created, f.hostKey)
	if err != nil {
		return Identity{}, err
	}
	keys, err := makeKeys(home, f.passphrase)
	if err != nil {
		return Identity{}, err
	}
	if err := keys.Put(selfName, rec); err != nil {
		return Identity{}, err
	}
	if f.list != nil {
		b, err := space.Marshal(accountRecord{List: f.list, Skipped: [][]byte{}})
		if err == nil {
			err = keys.Put(accountName, b)
		}
		if err != nil {
			return Identity{}, fmt.Errorf("keep the list of spaces: %w", err)
		}
	}
	return complete(home, f.created.State, f.hostKey)
}

// makeKeys makes the key file of a new home and marks the home as unfinished.
func makeKeys(home string, passphrase []byte) (*keyfile.Store, error) {
	if err := makeHome(home); err != nil {
		return nil, err
	}
	if err := clearUnfinished(home); err != nil {
		return nil, err
	}
	return keyfile.Create(filepath.Join(home, keysDir), keyfile.Unlock{Passphrase: passphrase})
}

// complete declares a home whole.
func complete(home string, st identity.State, hostKey crypto.PrivKey) (Identity, error) {
	if err := writeToken(home); err != nil {
		return Identity{}, err
	}
	id, err := describe(home, st, hostKey)
	if err != nil {
		return Identity{}, err
	}
	return id, os.Remove(filepath.Join(home, unfinishedFile))
}

func makeHome(home string) error {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return fmt.Errorf("make the home: %w", err)
	}
	return nil
}

// clearUnfinished removes what is left of an Init that was killed before it
// could show its words, or of a restore, and marks this one as unfinished.
func clearUnfinished(home string) error {
	mark, keys := filepath.Join(home, unfinishedFile), filepath.Join(home, keysDir)
	if exists(mark) {
		if err := errors.Join(os.RemoveAll(keys), os.RemoveAll(filepath.Join(home, storeDir))); err != nil {
			return fmt.Errorf("clear up after an init that did not finish: %w", err)
		}
	} else if exists(keys) {
		return fmt.Errorf("%s holds keys and no %s: %w", home, identityFile, ErrIdentityExists)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return fmt.Errorf("make the home: %w", err)
	}
	return nil
}

func newSelfRecord(created identity.Created, hostKey crypto.PrivKey) ([]byte, error) {
	peerKey, err := crypto.MarshalPrivateKey(hostKey)
	if err != nil {
		return nil, fmt.Errorf("encode the host key: %w", err)
	}
	storeKey := make([]byte, 32)
	rand.Read(storeKey)
	return space.Marshal(selfRecord{
		Device: created.Device.Marshal(), PUK: created.PUK.Marshal(), DIDKey: created.DIDKey.Bytes(),
		Log: created.Log, Peer: peerKey, StoreKey: storeKey,
	})
}

// describe writes identity.json: the last act of filling a home, so that one
// with this file is whole.
func describe(home string, s identity.State, hostKey crypto.PrivKey) (Identity, error) {
	pid, err := peer.IDFromPrivateKey(hostKey)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{
		DID: s.DID, Commitment: hex.EncodeToString(s.C[:]), PeerID: pid.String(),
		Fingerprint: identity.Fingerprint(s.C), Home: home,
	}
	for d := range s.Devices {
		id.Devices = append(id.Devices, hex.EncodeToString(d[:]))
	}
	slices.Sort(id.Devices)
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return Identity{}, err
	}
	// It is written again whenever a device comes or goes: whole or not at all.
	name := filepath.Join(home, identityFile)
	if err := os.WriteFile(name+".part", append(b, '\n'), 0o600); err != nil {
		return id, err
	}
	return id, os.Rename(name+".part", name)
}

// Initialised reports whether home holds an identity.
func Initialised(home string) bool {
	_, err := os.Stat(filepath.Join(home, identityFile))
	return err == nil
}

// ReadIdentity tells who home belongs to, without opening any secret.
func ReadIdentity(home string) (Identity, error) {
	b, err := os.ReadFile(filepath.Join(home, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("%s: %w", home, ErrNoIdentity)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read the identity: %w", err)
	}
	var id Identity
	if err := json.Unmarshal(b, &id); err != nil {
		return Identity{}, fmt.Errorf("read %s: %w", identityFile, err)
	}
	id.Home = home
	return id, nil
}

func writeToken(home string) error {
	var t [32]byte
	rand.Read(t[:])
	name := filepath.Join(home, tokenFile)
	if err := os.WriteFile(name, []byte(base64.RawURLEncoding.EncodeToString(t[:])+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the API token: %w", err)
	}
	return nil
}

// TokenFile is where the API token of home lies.
func TokenFile(home string) string { return filepath.Join(home, tokenFile) }

// AddrFile is where a running node writes its API address.
func AddrFile(home string) string { return filepath.Join(home, addrFile) }

// WordsFile is where a first start without init leaves the recovery words.
func WordsFile(home string) string { return filepath.Join(home, wordsFile) }

func readToken(home string) (string, error) {
	b, err := os.ReadFile(filepath.Join(home, tokenFile))
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeToken(home); err != nil {
			return "", err
		}
		b, err = os.ReadFile(filepath.Join(home, tokenFile))
	}
	if err != nil {
		return "", fmt.Errorf("read the API token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// openSelf reads who this node is and the key of its store.
func openSelf(keys *keyfile.Store) (*self, [32]byte, error) {
	var storeKey [32]byte
	b, err := keys.Read(selfName)
	if err != nil {
		return nil, storeKey, fmt.Errorf("open the identity: %w", err)
	}
	var rec selfRecord
	if err := space.Unmarshal(b, &rec); err != nil {
		return nil, storeKey, fmt.Errorf("read the identity: %w", err)
	}
	s := &self{log: rec.Log}
	if s.state, err = identity.Verify(rec.Log); err != nil {
		return nil, storeKey, fmt.Errorf("own identity log: %w", err)
	}
	s.did, s.c = s.state.DID, s.state.C
	if s.device, err = identity.UnmarshalDevice(rec.Device); err != nil {
		return nil, storeKey, err
	}
	if s.puk, err = identity.UnmarshalPUK(rec.PUK); err != nil {
		return nil, storeKey, err
	}
	if s.didKey, err = atcrypto.ParsePrivateBytesK256(rec.DIDKey); err != nil {
		return nil, storeKey, fmt.Errorf("read the DID key: %w", err)
	}
	if s.peer, err = crypto.UnmarshalPrivateKey(rec.Peer); err != nil {
		return nil, storeKey, fmt.Errorf("read the host key: %w", err)
	}
	if len(rec.StoreKey) != len(storeKey) {
		return nil, storeKey, errors.New("read the store key: not 32 bytes")
	}
	copy(storeKey[:], rec.StoreKey)
	var clock [2]byte
	rand.Read(clock[:])
	s.clock = (uint16(clock[0])<<8 | uint16(clock[1])) & 0x3ff
	return s, storeKey, nil
}
