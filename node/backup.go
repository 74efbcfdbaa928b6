package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
	"github.com/kithnet/kith/xrpc"
)

// A backup is one file:
//
//	"kith backup 1\n" ‖ u32 length ‖ backupHead (DRISL) ‖ an age file
//
// The age file is encrypted to a key drawn for this backup, which the head
// holds sealed to the identity key and, if one was given, under a passphrase.
// Within it stand items, each u8 kind ‖ u32 length ‖ name ‖ u32 length ‖
// value: one itemMade, the key records, the sealed parts of blobs, the rows of
// the store as they lie in it, one itemEnd. Version 1 had no blobs.
const (
	backupMagic   = "kith backup 1\n"
	backupVersion = 2
)

type backupHead struct {
	_      struct{} `cbor:",toarray"`
	Ver    uint64
	C      []byte
	Root   []byte // the age identity, sealed to the identity key
	Locked []byte // the same in an age file under a passphrase; empty: none
}

type backupMade struct {
	_      struct{} `cbor:",toarray"`
	AtMs   int64
	Device []byte
	DID    space.DID
}

// The kinds of items.
const (
	itemMade = 1
	itemKey  = 2
	itemRow  = 3
	itemEnd  = 4 // value: u64 items before it
	itemBlob = 5 // a sealed part; its name is the SHA-256 of it
)

// The caps of a backup.
const (
	maxBackupHead = 16 << 10
	maxItemName   = 4 << 10
	maxItemValue  = 32 << 20
)

// Backup writes a backup of this home into file, which must not exist: what
// the store held at one moment, the blobs that were here then, and every key. The passphrase may be empty:
// then the words alone open it.
func (n *Node) Backup(ctx context.Context, file, passphrase string) (xrpc.Backup, error) {
	out := xrpc.Backup{File: file}
	if !filepath.IsAbs(file) {
		return out, fmt.Errorf("backup: %q is not an absolute path: %w", file, space.ErrMalformed)
	}
	if exists(file) {
		return out, fmt.Errorf("backup: %s exists already: %w", file, space.ErrMalformed)
	}
	tmp := file + ".part"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return out, diskError(fmt.Errorf("backup: %w", err))
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = n.writeBackup(ctx, w, passphrase, &out)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, file)
	}
	if err != nil {
		return out, diskError(fmt.Errorf("backup: %w", errors.Join(err, os.Remove(tmp))))
	}
	info, err := os.Stat(file)
	if err != nil {
		return out, fmt.Errorf("backup: %w", err)
	}
	out.Bytes = info.Size()
	return out, nil
}

func (n *Node) writeBackup(ctx context.Context, w io.Writer, passphrase string, out *xrpc.Backup) error {
	once, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	head := backupHead{Ver: backupVersion, C: n.self.c[:], Locked: []byte{}}
	if head.Root, err = n.self.ownState().SealBackup([]byte(once.String())); err != nil {
		return err
	}
	if passphrase != "" {
		if head.Locked, err = lockBackup(once, passphrase); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, backupMagic); err != nil {
		return err
	}
	if err := writeMsg(w, head); err != nil {
		return err
	}
	sealed, err := age.Encrypt(w, once.Recipient())
	if err != nil {
		return err
	}
	if err := n.writeItems(ctx, &items{w: sealed}, out); err != nil {
		return err
	}
	return sealed.Close()
}

// writeItems writes keys, blobs and rows. Which keys there are is read before
// the rows are, what is in them after: keys without rows are idle, rows without
// keys are lost. Blobs are looked for after the rows: what rows refer to was
// there before they were.
func (n *Node) writeItems(ctx context.Context, w *items, out *xrpc.Backup) error {
	names, err := n.keys.List()
	if err != nil {
		return err
	}
	next, stop := iter.Pull2(n.store.Dump())
	defer stop()
	row, err, more := next() // from here on the rows are those of one moment
	id := n.self.device.ID()
	made, merr := space.Marshal(backupMade{AtMs: time.Now().UnixMilli(), Device: id[:], DID: n.self.did})
	if err := errors.Join(err, merr); err != nil {
		return err
	}
	w.put(itemMade, nil, made)
	for _, name := range names {
		b, err := n.keys.Read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // forgotten meanwhile
		}
		if err != nil {
			return err
		}
		w.put(itemKey, []byte(name), b)
	}
	for part, err := range n.blobs.files.all() {
		if err = errors.Join(err, ctx.Err(), w.err); err != nil {
			return err
		}
		sealed, ok, err := n.blobs.files.read(part)
		if err != nil {
			return err
		}
		if !ok {
			continue // swept meanwhile, or damaged: then it is as good as gone
		}
		w.put(itemBlob, part[:], sealed)
		out.BlobParts++
	}
	for ; more; row, err, more = next() {
		if err = errors.Join(err, ctx.Err(), w.err); err != nil {
			return err
		}
		w.put(itemRow, row.Key, row.Value)
		out.Rows++
	}
	out.Spaces = len(n.all())
	w.put(itemEnd, nil, binary.BigEndian.AppendUint64(nil, w.n))
	return w.err
}

func lockBackup(id *age.X25519Identity, passphrase string) ([]byte, error) {
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	r.SetWorkFactor(keyfile.DefaultWorkFactor)
	var b bytes.Buffer
	w, err := age.Encrypt(&b, r)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, id.String()); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// items writes items until one fails.
type items struct {
	w   io.Writer
	n   uint64
	err error
}

func (w *items) put(kind byte, name, value []byte) {
	head := append([]byte{kind}, binary.BigEndian.AppendUint32(nil, uint32(len(name)))...)
	head = append(append(head, name...), binary.BigEndian.AppendUint32(nil, uint32(len(value)))...)
	for _, b := range [][]byte{head, value} {
		if w.err == nil {
			_, w.err = w.w.Write(b)
		}
	}
	w.n++
}

type item struct {
	kind        byte
	name, value []byte
}

// readItem reads what put wrote.
func readItem(r io.Reader) (item, error) {
	var it item
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return it, noEOF(err)
	}
	it.kind = kind[0]
	var err error
	if it.name, err = readPart(r, maxItemName); err == nil {
		it.value, err = readPart(r, maxItemValue)
	}
	return it, err
}

func readPart(r io.Reader, limit uint32) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, noEOF(err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > limit {
		return nil, fmt.Errorf("an item of %d bytes: %w", n, space.ErrTooLarge)
	}
	// Grown as it comes: a length alone takes no memory.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		return nil, noEOF(err)
	}
	return b.Bytes(), nil
}

// noEOF: nothing may end before itemEnd.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the file ends early: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// ErrBackup: not a backup, or not with these words or this passphrase.
var ErrBackup = errors.New("the backup does not open")

// Unseal opens a backup: with the seed, or with the passphrase it was made
// with.
type Unseal struct {
	Seed       *identity.Seed
	Passphrase string
}

// Restored tells what came back.
type Restored struct {
	Identity
	MadeMs int64  `json:"madeMs"` // when the backup was made
	Spaces int    `json:"spaces"`
	Rows   uint64 `json:"rows"`
	// BlobParts are the files of blobs.
	BlobParts uint64 `json:"blobParts"`
}

// Restore fills an empty home from a backup. It gets a host key, a port and an
// API token of its own, every process start begins new chains, and the home
// knows that it is a copy: until another node has said that nothing is
// missing it appends to no control log and not to its identity log.
func Restore(home, file string, u Unseal, passphrase []byte) (Restored, error) {
	if err := (Machine{Home: home}).vacant(); err != nil {
		return Restored{}, err
	}
	f, err := os.Open(file)
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	defer f.Close()
	r, err := openBackup(bufio.NewReaderSize(f, 1<<20), u)
	if err != nil {
		return Restored{}, fmt.Errorf("restore %s: %w", file, err)
	}
	out, err := restoreItems(home, r, passphrase)
	if err != nil {
		return out, diskError(fmt.Errorf("restore %s: %w", file, err))
	}
	return out, nil
}

// openBackup reads the head and opens what stands behind it.
func openBackup(r io.Reader, u Unseal) (io.Reader, error) {
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != backupMagic {
		return nil, fmt.Errorf("%w: it is not a backup of kith", ErrBackup)
	}
	var head backupHead
	if err := readMsg(r, maxBackupHead, &head); err != nil {
		return nil, fmt.Errorf("%w: head: %w", ErrBackup, err)
	}
	if head.Ver < 1 || head.Ver > backupVersion {
		return nil, fmt.Errorf("%w: version %d: %w", ErrBackup, head.Ver, space.ErrUnsupported)
	}
	once, err := u.key(head)
	if err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(r, once)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	return plain, nil
}

func (u Unseal) key(head backupHead) (*age.X25519Identity, error) {
	var text []byte
	switch {
	case u.Seed != nil:
		b, err := u.Seed.OpenBackup(head.Root)
		if err != nil {
			return nil, fmt.Errorf("%w with these words: they are another identity's", ErrBackup)
		}
		text = b
	case len(head.Locked) == 0:
		return nil, fmt.Errorf("%w with a passphrase: it was made without one, the 24 words open it", ErrBackup)
	default:
		i, err := age.NewScryptIdentity(u.Passphrase)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBackup, err)
		}
		r, err := age.Decrypt(bytes.NewReader(head.Locked), i)
		if err == nil {
			text, err = io.ReadAll(io.LimitReader(r, maxSmall))
		}
		if err != nil {
			return nil, fmt.Errorf("%w with this passphrase", ErrBackup)
		}
	}
	once, err := age.ParseX25519Identity(string(text))
	clear(text)
	if err != nil {
		return nil, fmt.Errorf("%w: its key is damaged", ErrBackup)
	}
	return once, nil
}

// restoreItems makes a home out of items.
func restoreItems(home string, r io.Reader, passphrase []byte) (Restored, error) {
	var out Restored
	it, err := readItem(r)
	if err != nil {
		return out, err
	}
	var made backupMade
	if it.kind != itemMade {
		return out, fmt.Errorf("it does not begin as a backup: %w", space.ErrMalformed)
	}
	if err := space.Unmarshal(it.value, &made); err != nil {
		return out, err
	}
	out.MadeMs = made.AtMs
	keys, err := makeKeys(home, passphrase)
	if err != nil {
		return out, err
	}
	count := uint64(1)
	for it, err = readItem(r); err == nil && it.kind == itemKey; it, err = readItem(r) {
		if err := keys.Put(string(it.name), it.value); err != nil {
			return out, err
		}
		if len(it.name) > len(spaceKeyPrefix) && string(it.name[:len(spaceKeyPrefix)]) == spaceKeyPrefix {
			out.Spaces++
		}
		count++
	}
	if err == nil {
		out.BlobParts, err = restoreBlobs(blobFiles{filepath.Join(home, blobsDir)}, r, &it)
		count += out.BlobParts
	}
	if err != nil {
		return out, err
	}
	storeKey, err := renewHost(keys)
	if err != nil {
		return out, err
	}
	if err := keepCopy(keys, copyRecord{MadeMs: made.AtMs, RestoredMs: time.Now().UnixMilli()}); err != nil {
		return out, err
	}
	rows := &rowReader{r: r, it: it, n: count}
	if err := store.Restore(filepath.Join(home, storeDir), storeKey, rows.all()); err != nil {
		return out, err
	}
	out.Rows = rows.n - count
	s, _, err := openSelf(keys)
	if err != nil {
		return out, err
	}
	out.Identity, err = complete(home, s.state, s.peer)
	return out, err
}

// restoreBlobs keeps the parts of blobs from it on, and leaves in it what comes
// after them.
func restoreBlobs(files blobFiles, r io.Reader, it *item) (n uint64, err error) {
	for ; it.kind == itemBlob; *it, err = readItem(r) {
		if err != nil {
			return n, err
		}
		sum := sha256.Sum256(it.value)
		if len(it.value) > store.MaxObject || !bytes.Equal(it.name, sum[:]) {
			return n, fmt.Errorf("a part of a blob is not what its name says: %w", space.ErrMalformed)
		}
		if err := files.put(sum, it.value); err != nil {
			return n, err
		}
		n++
	}
	return n, err
}

// rowReader gives the rows of a backup, up to its end.
type rowReader struct {
	r  io.Reader
	it item // the next one
	n  uint64
}

func (x *rowReader) all() iter.Seq2[store.Row, error] {
	return func(yield func(store.Row, error) bool) {
		var err error
		for ; err == nil && x.it.kind == itemRow; x.it, err = readItem(x.r) {
			x.n++
			if !yield(store.Row{Key: x.it.name, Value: x.it.value}, nil) {
				return
			}
		}
		if err == nil && (x.it.kind != itemEnd || len(x.it.value) != 8 || binary.BigEndian.Uint64(x.it.value) != x.n) {
			err = fmt.Errorf("items are missing: %w", space.ErrMalformed)
		}
		if err != nil {
			yield(store.Row{}, err)
		}
	}
}
