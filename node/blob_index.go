package node

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/kithnet/kith/internal/store"
	"github.com/kithnet/kith/space"
)

// blobIndex is which blobs the live records of one author refer to, and where.
// Whoever holds the actor's mu may read it.
type blobIndex struct {
	live map[space.CID]*liveBlob
	at   map[space.Path][]space.CID
}

// liveBlob is a blob that a live record refers to.
type liveBlob struct {
	space.Blob              // no Parts: no op said how it is opened
	paths      []space.Path // where it is referred to
	sound      atomic.Bool  // what the parts hold is what the CID names
}

// set says what the record at a path refers to now: to nothing if it is gone.
func (x *blobIndex) set(p space.Path, cids []space.CID, known func(space.CID) (space.Blob, bool)) {
	for _, cid := range x.at[p] {
		b := x.live[cid]
		if b.paths = slices.DeleteFunc(b.paths, func(q space.Path) bool { return p == q }); len(b.paths) == 0 {
			delete(x.live, cid)
		}
	}
	delete(x.at, p)
	if len(cids) == 0 {
		return
	}
	if x.live == nil {
		x.live, x.at = map[space.CID]*liveBlob{}, map[space.Path][]space.CID{}
	}
	x.at[p] = cids
	for _, cid := range cids {
		b := x.live[cid]
		if blob, ok := known(cid); b == nil || ok && blob.Key != b.Key {
			now := &liveBlob{Blob: space.Blob{CID: cid}}
			if ok {
				now.Blob = blob
			}
			if b != nil {
				now.paths = b.paths
			}
			b, x.live[cid] = now, now
		}
		b.paths = append(b.paths, p)
	}
}

// size is the bytes of all blobs.
func (x *blobIndex) size() (n uint64) {
	for _, b := range x.live {
		n += b.Size
	}
	return n
}

// blobMeta names the row that says how a blob of an author's is opened.
func blobMeta(author space.DID, cid space.CID) string {
	return "blob/" + string(author) + "/" + cid.String()
}

// noteBlobs stages what an op says of its blobs.
func (c *change) noteBlobs(author space.DID, op *space.Op) {
	for _, b := range op.Blobs {
		row, err := b.Encode()
		if err != nil {
			continue // it was decoded, or is about to be refused
		}
		if c.batch.Meta == nil {
			c.batch.Meta = map[string][]byte{}
		}
		c.batch.Meta[blobMeta(author, b.CID)] = row
		if c.blobs == nil {
			c.blobs = map[blobKey]space.Blob{}
		}
		c.blobs[blobKey{author, b.CID}] = b
	}
}

// blobKey is a blob of one author.
type blobKey struct {
	author space.DID
	cid    space.CID
}

// showBlobs brings the indexes up to what the change's records refer to.
func (c *change) showBlobs() {
	for i := range c.batch.Records {
		row := &c.batch.Records[i]
		r := c.a.repos[row.Author]
		cids := row.Value.Blobs()
		if len(cids) == 0 && len(r.blobs.at[row.Path]) == 0 {
			continue
		}
		r.blobs.set(row.Path, cids, func(cid space.CID) (space.Blob, bool) {
			if b, ok := c.blobs[blobKey{row.Author, cid}]; ok {
				return b, true
			}
			b, ok, err := c.a.storedBlob(row.Author, cid)
			if err != nil {
				c.a.log.Error("read how a blob is opened", "err", err)
			}
			return b, ok
		})
	}
}

func (a *actor) storedBlob(author space.DID, cid space.CID) (space.Blob, bool, error) {
	row, ok, err := a.store.Meta(blobMeta(author, cid))
	if err != nil || !ok {
		return space.Blob{}, false, err
	}
	b, err := space.DecodeBlob(row)
	return b, err == nil, err
}

// loadBlobs adds what a stored record refers to.
func (a *actor) loadBlobs(r *repo, rec store.RecordRow) error {
	cids := rec.Value.Blobs()
	if len(cids) == 0 {
		return nil
	}
	var failed error
	r.blobs.set(rec.Path, cids, func(cid space.CID) (space.Blob, bool) {
		b, ok, err := a.storedBlob(rec.Author, cid)
		if err != nil {
			failed = fmt.Errorf("read how a blob is opened: %w", err)
		}
		return b, ok
	})
	return failed
}

// blobOf finds a blob that a live record of the author refers to; "" means the
// owner, else whoever does. The answer does not change any more.
func (a *actor) blobOf(author space.DID, cid space.CID) (*liveBlob, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if author != "" {
		r := a.repos[author]
		if r == nil {
			return nil, false
		}
		b, ok := r.blobs.live[cid]
		return b, ok && len(b.Parts) > 0
	}
	var found *liveBlob
	for _, did := range sortedDIDs(a.repos) {
		if b, ok := a.repos[did].blobs.live[cid]; ok && len(b.Parts) > 0 && (found == nil || did == a.self.did) {
			found = b
		}
	}
	return found, found != nil
}

// sortedDIDs are the authors by name.
func sortedDIDs(repos map[space.DID]*repo) []space.DID {
	all := make([]space.DID, 0, len(repos))
	for did := range repos {
		all = append(all, did)
	}
	slices.SortFunc(all, func(a, b space.DID) int { return strings.Compare(string(a), string(b)) })
	return all
}

// keepsPart reports whether a sealed part belongs to a blob of the space.
func (a *actor) keepsPart(name [32]byte) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, r := range a.repos {
		for _, b := range r.blobs.live {
			if slices.Contains(b.Parts, name) {
				return true
			}
		}
	}
	return false
}

// blobUse is the bytes of the blobs of one author, and of all.
func (a *actor) blobUse(author space.DID) (own, all uint64) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for did, r := range a.repos {
		n := r.blobs.size()
		if all += n; did == author {
			own = n
		}
	}
	return own, all
}
