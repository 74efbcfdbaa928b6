package local

import (
	"bufio"
	"context"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/sync/lthash"
)

// The bare loop: entries as u32 length ‖ nonce 24 ‖ ciphertext, of recordSize
// bytes for each record; then a length of zero and a signature of the set hash
// over the SHA-256 of each ciphertext.
const (
	bareChunk = 250 // entries of one piece of work
	bareDepth = 8   // pieces under way
)

func bareSeal() (cipher.AEAD, error) { return chacha20poly1305.NewX(fixed("bare seal")) }

func bareKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(fixed("bare key")) }

// bareReplication measures the bare loop once.
func bareReplication(ctx context.Context, kith, dir string, entries, batch int) (_ time.Duration, err error) {
	home, err := os.MkdirTemp(dir, "bare-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	child, _, err := spawn("the bare sender", filepath.Join(dir, "bare.log"), kith, []string{
		"bench", "replicate-peer", l.Addr().String(), strconv.Itoa(entries), strconv.Itoa(batch),
	}, nil)
	if err != nil {
		return 0, err
	}
	defer child.kill()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	conn, err := l.Accept() // the entries are sealed by now
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	start := time.Now()
	if err := receiveBare(bufio.NewReaderSize(conn, 1<<20), filepath.Join(home, "db"), entries/batch); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// barePiece is some entries on their way through the loop.
type barePiece struct {
	raw  [][]byte // nonce ‖ ciphertext
	done chan error
	db   leveldb.Batch
}

// receiveBare reads, opens, hashes and stores.
func receiveBare(r io.Reader, name string, entries int) error {
	db, err := leveldb.OpenFile(name, &opt.Options{WriteBuffer: 64 << 20, BlockCacheCapacity: 64 << 20})
	if err != nil {
		return err
	}
	defer db.Close()
	workers := runtime.GOMAXPROCS(0)
	todo, order := make(chan *barePiece, bareDepth), make(chan *barePiece, bareDepth)
	states := make([]lthash.State, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for p := range todo {
				p.done <- p.open(&states[i])
			}
		})
	}
	stored := make(chan error, 1)
	go func() {
		var err error
		for p := range order {
			if err = errors.Join(err, <-p.done); err == nil {
				err = db.Write(&p.db, nil)
			}
		}
		stored <- err
	}()
	err = readBare(r, entries, todo, order)
	close(todo)
	close(order)
	wg.Wait()
	if err = errors.Join(err, <-stored); err != nil {
		return err
	}
	var sum lthash.State
	for i := range states {
		sum.Merge(&states[i])
	}
	digest := sum.Sum()
	var sig [ed25519.SignatureSize]byte
	if _, err := io.ReadFull(r, sig[:]); err != nil {
		return err
	}
	if !ed25519.Verify(bareKey().Public().(ed25519.PublicKey), digest[:], sig[:]) {
		return errors.New("the digest differs")
	}
	return db.Put([]byte("end"), digest[:], &opt.WriteOptions{Sync: true})
}

func readBare(r io.Reader, entries int, todo, order chan<- *barePiece) error {
	p := &barePiece{done: make(chan error, 1)}
	for entries >= 0 {
		var n [4]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(n[:])
		if size > 0 {
			b := make([]byte, size)
			if _, err := io.ReadFull(r, b); err != nil {
				return err
			}
			p.raw = append(p.raw, b)
		}
		entries--
		if len(p.raw) == bareChunk || size == 0 && len(p.raw) > 0 {
			todo <- p
			order <- p
			p = &barePiece{done: make(chan error, 1)}
		}
	}
	return nil
}

// open opens and hashes the entries of a piece and makes rows of them.
func (p *barePiece) open(s *lthash.State) error {
	aead, err := bareSeal()
	if err != nil {
		return err
	}
	for _, raw := range p.raw {
		id := sha256.Sum256(raw)
		s.Add(id[:])
		body, err := aead.Open(nil, raw[:chacha20poly1305.NonceSizeX], raw[chacha20poly1305.NonceSizeX:], nil)
		if err != nil {
			return err
		}
		for i := 0; len(body) > 0; i++ {
			key := binary.BigEndian.AppendUint32(append([]byte(nil), id[:]...), uint32(i))
			p.db.Put(key, body[:recordSize])
			body = body[recordSize:]
		}
	}
	return nil
}

// ReplicatePeer is the sender of the bare loop: args are the address to connect
// to once everything is sealed, records, and records of one entry.
func ReplicatePeer(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("replicate-peer: want ADDR ENTRIES BATCH")
	}
	entries, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("replicate-peer: %w", err)
	}
	batch, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("replicate-peer: %w", err)
	}
	aead, err := bareSeal()
	if err != nil {
		return err
	}
	var out []byte
	var sum lthash.State
	body := make([]byte, batch*recordSize)
	random := rand.NewChaCha8([32]byte(fixed("records")))
	for i := range entries / batch {
		random.Read(body)
		at := len(out)
		out = binary.BigEndian.AppendUint32(out, uint32(chacha20poly1305.NonceSizeX+len(body)+aead.Overhead()))
		nonce := fixed("nonce", i)[:chacha20poly1305.NonceSizeX]
		out = aead.Seal(append(out, nonce...), nonce, body, nil)
		id := sha256.Sum256(out[at+4:])
		sum.Add(id[:])
	}
	digest := sum.Sum()
	out = append(append(out, 0, 0, 0, 0), ed25519.Sign(bareKey(), digest[:])...)
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(out)
	return err
}
