package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/seal"
	"github.com/kithnet/kith/xrpc"
)

const (
	blobsDir     = "blobs"
	uploadsTable = "blob-uploads"

	// blobWindow is how long an upload waits for a record, and for how long
	// parts that nothing refers to stay.
	blobWindow = time.Hour
	blobTend   = 15 * time.Minute // between two sweeps
	// blobHands bounds how many uploads and fetches go on at once: each holds a
	// part or two in memory.
	blobHands = 16
)

// The quotas where Config says none.
const (
	userBlobBytes  = 1 << 30 // of one author's blobs in a space; and of uploads that wait
	spaceBlobBytes = 4 << 30
)

// blobs is what the node knows of the bytes of blobs.
type blobs struct {
	files blobFiles
	hands chan struct{}

	mu      sync.Mutex // guards what follows
	uploads map[uploadKey]upload
	waiting uint64 // bytes of uploads, those under way included
}

// uploadKey is a blob as it was sealed for one space; zero: for none yet. Two
// spaces never share ciphertext: whoever serves both would see that they share
// a blob.
type uploadKey struct {
	cid   space.CID
	space [32]byte
}

type upload struct {
	space.Blob
	at time.Time
}

type uploadRecord struct {
	_     struct{} `cbor:",toarray"`
	AtMs  int64
	Space []byte // 32 bytes
	Blob  []byte
}

func (u uploadKey) bytes() []byte { return append(bytes.Clone(u.cid.Bytes()), u.space[:]...) }

// openBlobs reads which uploads wait.
func openBlobs(home string, s *store.Store) (*blobs, error) {
	b := &blobs{
		files: blobFiles{filepath.Join(home, blobsDir)}, hands: make(chan struct{}, blobHands),
		uploads: map[uploadKey]upload{},
	}
	for kv, err := range s.List(uploadsTable) {
		if err != nil {
			return nil, fmt.Errorf("read the uploads: %w", err)
		}
		var rec uploadRecord
		if err := space.Unmarshal(kv.Value, &rec); err != nil {
			return nil, fmt.Errorf("read the uploads: %w", err)
		}
		blob, err := space.DecodeBlob(rec.Blob)
		if err == nil && len(rec.Space) != 32 {
			err = space.ErrMalformed
		}
		if err != nil {
			return nil, fmt.Errorf("read the uploads: %w", err)
		}
		b.uploads[uploadKey{blob.CID, [32]byte(rec.Space)}] = upload{blob, time.UnixMilli(rec.AtMs)}
		b.waiting += blob.Size
	}
	return b, nil
}

// hand waits for its turn.
func (b *blobs) hand(ctx context.Context) (done func(), err error) {
	select {
	case b.hands <- struct{}{}:
		return func() { <-b.hands }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reserve counts bytes that come in, or with less than none go.
func (b *blobs) reserve(n int64, most uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > 0 && b.waiting+uint64(n) > most {
		return fmt.Errorf("uploads that no record refers to yet may have %d bytes: %w", most, space.ErrTooLarge)
	}
	b.waiting += uint64(n)
	return nil
}

func (n *Node) userQuota() uint64  { return orElse(n.cfg.BlobsPerUser, userBlobBytes) }
func (n *Node) spaceQuota() uint64 { return orElse(n.cfg.BlobsPerSpace, spaceBlobBytes) }

func orElse(n, standard uint64) uint64 {
	if n == 0 {
		return standard
	}
	return n
}

// PutBlob seals what it reads, part by part. Until a record refers to the blob,
// nobody gets to see it; after a while it goes.
func (n *Node) PutBlob(ctx context.Context, mediaType string, r io.Reader) (xrpc.BlobRef, error) {
	if err := space.CheckMediaType(mediaType); err != nil {
		return xrpc.BlobRef{}, err
	}
	done, err := n.blobs.hand(ctx)
	if err != nil {
		return xrpc.BlobRef{}, err
	}
	defer done()
	blob, err := n.seal(r, mediaType)
	if err != nil {
		return xrpc.BlobRef{}, fmt.Errorf("upload: %w", err)
	}
	if err := n.keepUpload(uploadKey{cid: blob.CID}, blob); err != nil {
		return xrpc.BlobRef{}, fmt.Errorf("upload: %w", err)
	}
	return xrpc.BlobRef{CID: blob.CID, Type: blob.Type, Size: blob.Size}, nil
}

// seal makes files of what it reads. Their bytes are counted as waiting; on
// an error nothing of them stays.
func (n *Node) seal(r io.Reader, mediaType string) (blob space.Blob, err error) {
	blob.Type = mediaType
	rand.Read(blob.Key[:])
	defer func() {
		if err == nil {
			return
		}
		_ = n.blobs.reserve(-int64(blob.Size), 0)
		for _, p := range blob.Parts {
			err = errors.Join(err, n.blobs.files.remove(p))
		}
	}()
	in := bufio.NewReaderSize(r, 32<<10)
	sum := sha256.New()
	buf := make([]byte, space.BlobPart)
	for last := false; !last; {
		size, err := io.ReadFull(in, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return blob, err
		}
		// A reader that broke off says so again, one that is at its end does not.
		if _, err := in.Peek(1); err == io.EOF {
			last = true
		} else if err != nil {
			return blob, err
		}
		if blob.Size+uint64(size) > space.MaxBlob {
			return blob, fmt.Errorf("a blob has at most %d bytes: %w", space.MaxBlob, space.ErrTooLarge)
		}
		if err := n.blobs.reserve(int64(size), n.userQuota()); err != nil {
			return blob, err
		}
		blob.Size += uint64(size)
		sum.Write(buf[:size])
		sealed, err := seal.SealBlobPart(blob.Key, uint64(len(blob.Parts)), last, buf[:size])
		if err != nil {
			return blob, err
		}
		name := seal.ObjectName(sealed)
		if err := n.blobs.files.put(name, sealed); err != nil {
			return blob, err
		}
		blob.Parts = append(blob.Parts, name)
	}
	blob.CID, err = rawCID(sum)
	return blob, err
}

// rawCID is the CID of the bytes that h has read.
func rawCID(h hash.Hash) (space.CID, error) {
	return space.CIDFromBytes(h.Sum([]byte{1, 0x55, 0x12, 0x20}))
}

// keepUpload makes an upload known. One of the same bytes gives way: its parts
// go with the next sweep.
func (n *Node) keepUpload(key uploadKey, blob space.Blob) error {
	row, err := blob.Encode()
	if err != nil {
		return err
	}
	now := time.Now()
	rec, err := space.Marshal(uploadRecord{AtMs: now.UnixMilli(), Space: key.space[:], Blob: row})
	if err != nil {
		return err
	}
	if err := n.store.Put(uploadsTable, key.bytes(), rec, store.Own); err != nil {
		return diskError(err)
	}
	b := n.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.uploads[key]; ok {
		b.waiting -= old.Size
	}
	b.uploads[key] = upload{blob, now}
	return nil
}

// dropUpload forgets an upload that waited in vain, or that a space has now.
func (n *Node) dropUpload(key uploadKey) error {
	if err := n.store.Delete(uploadsTable, key.bytes(), store.Derived); err != nil {
		return diskError(err)
	}
	b := n.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting -= b.uploads[key].Size
	delete(b.uploads, key)
	return nil
}

func (b *blobs) upload(key uploadKey) (space.Blob, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u, ok := b.uploads[key]
	return u.Blob, ok
}

// blobsFor finds how the blobs are opened to which writes refer. A blob object
// of bytes that were never uploaded fails with xrpc.ErrBlobNotFound; other links
// to raw bytes may be anything's.
func (n *Node) blobsFor(ctx context.Context, a *actor, writes []xrpc.Write) (map[space.CID]space.Blob, error) {
	var found map[space.CID]space.Blob
	for i := range writes {
		cids := writes[i].Value.Blobs()
		if len(cids) == 0 {
			continue
		}
		needed := writes[i].Value.TypedBlobs()
		for _, cid := range cids {
			if _, ok := found[cid]; ok {
				continue
			}
			b, ok, err := n.ownBlob(ctx, a, cid)
			if err != nil {
				return nil, err
			}
			if !ok && slices.Contains(needed, cid) {
				return nil, fmt.Errorf("blob %s was not uploaded here, or too long ago: %w", cid, xrpc.ErrBlobNotFound)
			}
			if ok {
				if found == nil {
					found = map[space.CID]space.Blob{}
				}
				found[cid] = b
			}
		}
	}
	return found, nil
}

// ownBlob finds one of the owner's blobs as it is sealed for a space, and
// seals it for that space if it is sealed for another.
func (n *Node) ownBlob(ctx context.Context, a *actor, cid space.CID) (space.Blob, bool, error) {
	if b, ok := a.blobOf(a.self.did, cid); ok {
		return b.Blob, true, nil
	}
	here := uploadKey{cid, a.sid}
	if b, ok := n.blobs.upload(here); ok {
		return b, true, nil
	}
	fresh := uploadKey{cid: cid}
	if b, ok := n.blobs.upload(fresh); ok {
		if err := n.blobs.reserve(int64(b.Size), n.userQuota()+b.Size); err != nil {
			return b, false, err
		}
		if err := n.keepUpload(here, b); err != nil {
			return b, false, err
		}
		return b, true, n.dropUpload(fresh)
	}
	for _, r := range n.all() {
		elsewhere, ok := r.blobOf(a.self.did, cid)
		if !ok {
			continue
		}
		done, err := n.blobs.hand(ctx)
		if err != nil {
			return space.Blob{}, false, err
		}
		defer done()
		if err := n.fetchBlob(ctx, r.actor, elsewhere); err != nil {
			return space.Blob{}, false, err
		}
		b, err := n.seal(&blobReader{files: n.blobs.files, blob: elsewhere.Blob}, elsewhere.Type)
		if err != nil {
			return b, false, err
		}
		return b, true, n.keepUpload(here, b)
	}
	return space.Blob{}, false, nil
}

// attachBlobs gives ops what their readers need, and holds the quotas.
func (a *actor) attachBlobs(ops []space.Op, known map[space.CID]space.Blob, perUser, perSpace uint64) error {
	if len(known) == 0 {
		return nil
	}
	own, all := a.blobUse(a.self.did)
	var more uint64
	for i := range ops {
		for _, cid := range ops[i].Value.Blobs() {
			b, ok := known[cid]
			if !ok {
				continue
			}
			ops[i].Blobs = append(ops[i].Blobs, b)
			if _, live := a.blobOf(a.self.did, cid); !live {
				more += b.Size
			}
		}
	}
	switch {
	case more > 0 && own+more > perUser:
		return fmt.Errorf("your blobs in this space may have %d bytes: %w", perUser, space.ErrTooLarge)
	case more > 0 && all+more > perSpace:
		return fmt.Errorf("the blobs of this space may have %d bytes: %w", perSpace, space.ErrTooLarge)
	}
	return nil
}

// Blob opens a blob that a live record of the author refers to, "" meaning any
// author. What is not here yet is fetched from other members.
func (n *Node) Blob(ctx context.Context, id space.ID, author space.DID, cid space.CID) (*xrpc.Blob, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	b, ok := a.blobOf(author, cid)
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", cid, xrpc.ErrBlobNotFound)
	}
	done, err := n.blobs.hand(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := n.fetchBlob(ctx, a, b); err != nil {
		return nil, err
	}
	return &xrpc.Blob{
		BlobRef: xrpc.BlobRef{CID: cid, Type: b.Type, Size: b.Size},
		Content: &blobReader{files: n.blobs.files, blob: b.Blob},
	}, nil
}

// fetchBlob gets the parts of a blob that are not here, and checks once that
// all of them are what its CID names.
func (n *Node) fetchBlob(ctx context.Context, a *actor, b *liveBlob) error {
	missing := slices.DeleteFunc(slices.Clone(b.Parts), n.blobs.files.has)
	if len(missing) == 0 && b.sound.Load() {
		return nil
	}
	own, all := a.blobUse(a.self.did)
	if len(missing) > 0 && (all-own > n.spaceQuota() || b.Size > n.userQuota()) {
		return fmt.Errorf("the blobs of this space are more than this node takes: %w", space.ErrUnavailable)
	}
	err := each(len(missing), func(from, to int) error {
		for _, name := range missing[from:to] {
			if err := n.fetchPart(ctx, a, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, &blobReader{files: n.blobs.files, blob: b.Blob}); err != nil {
		return err
	}
	if cid, err := rawCID(sum); err != nil || cid != b.CID {
		return fmt.Errorf("blob %s: its author sealed other bytes: %w", b.CID, space.ErrUnavailable)
	}
	b.sound.Store(true)
	return nil
}

// fetchPart asks the connected peers of the space for a sealed part.
func (n *Node) fetchPart(ctx context.Context, a *actor, name [32]byte) error {
	a.mu.RLock()
	e := a.now
	a.mu.RUnlock()
	if e == nil {
		return fmt.Errorf("blob: no epoch yet: %w", space.ErrUnavailable)
	}
	err := fmt.Errorf("blob: nobody who is connected has all of it: %w", space.ErrUnavailable)
	for _, p := range n.book.of(a.sid) {
		if n.host.Network().Connectedness(p.ID) != network.Connected {
			continue
		}
		data, askErr := n.askObject(ctx, p.ID, e, name)
		if askErr == nil {
			return n.blobs.files.put(name, data)
		}
		err = errors.Join(err, askErr)
	}
	return err
}

// ListBlobs lists the blobs that live records of an author refer to, by the
// text of their CIDs.
func (n *Node) ListBlobs(_ context.Context, id space.ID, author space.DID, q xrpc.BlobQuery) ([]space.CID, error) {
	a, err := n.byID(id)
	if err != nil {
		return nil, err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	r := a.repos[author]
	if r == nil {
		return nil, nil
	}
	var out []space.CID
	for cid, b := range r.blobs.live {
		if len(b.Parts) == 0 || cid.String() <= q.After {
			continue
		}
		if q.Since == 0 || slices.ContainsFunc(b.paths, func(p space.Path) bool {
			leaf, _ := r.Leaf(p)
			return leaf.Stamp.Rev > q.Since
		}) {
			out = append(out, cid)
		}
	}
	slices.SortFunc(out, func(a, b space.CID) int { return strings.Compare(a.String(), b.String()) })
	return out[:min(len(out), q.Limit)], nil
}

// tendBlobs sweeps now and then.
func (n *Node) tendBlobs(ctx context.Context) {
	tick := time.NewTicker(blobTend)
	defer tick.Stop()
	for {
		if gone, err := n.sweepBlobs(time.Now()); err != nil {
			n.log.Warn("blobs are not swept", "err", err)
		} else if gone > 0 {
			n.log.Info("swept blobs that nothing refers to", "files", gone)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweepBlobs forgets uploads that waited too long and removes parts to which
// nothing refers, neither a live record nor an upload. While a space did not
// open, nobody knows what it refers to: then everything stays.
func (n *Node) sweepBlobs(now time.Time) (gone int, err error) {
	if n.stats.Unopened.Load() > 0 {
		return 0, nil
	}
	b := n.blobs
	b.mu.Lock()
	var late []uploadKey
	keep := map[[32]byte]bool{}
	for key, u := range b.uploads {
		if now.Sub(u.at) > blobWindow {
			late = append(late, key)
			continue
		}
		for _, p := range u.Parts {
			keep[p] = true
		}
	}
	b.mu.Unlock()
	for _, key := range late {
		if err := n.dropUpload(key); err != nil {
			return 0, err
		}
	}
	for _, r := range n.all() {
		r.mu.RLock()
		for _, repo := range r.repos {
			for _, blob := range repo.blobs.live {
				for _, p := range blob.Parts {
					keep[p] = true
				}
			}
		}
		r.mu.RUnlock()
	}
	return b.files.sweep(func(name [32]byte) bool { return keep[name] }, now.Add(-blobWindow))
}
