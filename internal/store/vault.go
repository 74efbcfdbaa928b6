package store

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

// table is the byte after the tag in a row's key.
//
//	table      key after it               value before sealing
//	topic      mac(topic)                 id, count, set hash, tails (recent.go)
//	cert       mac(topic) mac(chain)      certificate
//	head       mac(topic) mac(chain)      topic, id, head, flags
//	segment    mac(chain) seq             envelopes, one after the other
//	ids        mac(chain) seq             their ids
//	thinned     mac(chain) seq             nothing: the envelopes of that row of ids were dropped
//	applied    mac(topic) mac(chain)      chain, sequence, reader state
//	record     mac(author) mac(path)      path, leaf, value
//	repo       mac(author)                author, rev, count, set hash, mark of the statement
//	tip        mac(author)                ops in the repo's row and beyond it; rev, count, mark
//	statement  mac(author)                the author's last
//	ops        mac(author) number         a page of ops
//	pruned     mac(author)                number of the first op kept; rev and place of the last dropped
//	control    seq                        entry
//	outbox     seq                        frame
//	held       seq                        body
//	object     mac(hash)                  ciphertext
//	meta       mac(name)                  name, value
//	setting    mac(table) mac(key)        key, value (of the node, not of a space)
type table byte

const (
	tableTopic   table = 't'
	tableCert    table = 'e'
	tableHead    table = 'c'
	tableFork    table = 'f'
	tableSegment table = 'g'
	tableIDs     table = 'i'
	tableThinned table = 'd'
	tableApplied table = 'a'
	tableRecord  table = 'r'
	tableRepo    table = 'p'
	tableTip     table = 'q'
	tableStmt    table = 's'
	tableOps     table = 'o'
	tablePruned  table = 'l'
	tableControl table = 'k'
	tableOutbox  table = 'x'
	tableHeld    table = 'h'
	tableObject  table = 'j'
	tableMeta    table = 'm'
	tableSetting table = 'n'
)

// The layout of a key: tag 16 ‖ table 1 ‖ group 0 or 12 ‖ MAC 0 or 16 ‖ number
// 0 or 8, big-endian. A value is nonce 17 or more ‖ ciphertext ‖ 16.
const (
	tagSize   = 16
	groupSize = 12 // what rows listed together share
	macSize   = 16
)

// vault seals the rows of one space, or of the node: keys are blinded under
// KDF(dek, "store/idx"), values sealed under KDF(dek, "store/dek").
type vault struct {
	_    [0]func()
	tag  [tagSize]byte // MAC of the id; separates the rows of vaults
	enc  [32]byte
	aead cipher.AEAD
	pool sync.Pool // *blinder
}

func newVault(id, dek [32]byte) *vault {
	idx := space.KDF(dek[:], space.LabelStoreIndex, nil, 32)
	v := &vault{enc: [32]byte(space.KDF(dek[:], space.LabelStoreDEK, nil, 32))}
	aead, err := chacha20poly1305.NewX(v.enc[:])
	if err != nil {
		panic(err) // the key is of the right size
	}
	v.aead = aead
	tag := space.MAC(idx, space.LabelStoreIndex, id[:])
	copy(v.tag[:], tag[:])
	v.pool.New = func() any {
		return &blinder{tag: &v.tag, mac: hmac.New(sha256.New, idx), prefix: space.LabelStoreIndex.Message()}
	}
	return v
}

// errRow: the engine found a value in order that is not what was sealed there.
var errRow = fmt.Errorf("open row: %w", ErrDamaged)

// nonceShared is how many bytes of their nonces the rows of a commit share. The
// other eight count, and are stored as a varint.
const nonceShared = 16

// open gives the plaintext of the value stored at key.
func (v *vault) open(key, value []byte) ([]byte, error) { return v.unseal(key, value, false) }

// openOver is open for a value that the caller owns: the plaintext takes its
// place in memory.
func (v *vault) openOver(key, value []byte) ([]byte, error) { return v.unseal(key, value, true) }

func (v *vault) unseal(key, value []byte, over bool) ([]byte, error) {
	if len(value) < nonceShared {
		return nil, errRow
	}
	count, n := binary.Uvarint(value[nonceShared:])
	if n <= 0 {
		return nil, errRow
	}
	var nonce [chacha20poly1305.NonceSizeX]byte
	copy(nonce[:], value[:nonceShared])
	binary.BigEndian.PutUint64(nonce[nonceShared:], count)
	sealed, to := value[nonceShared+n:], []byte(nil)
	if over {
		to = sealed[:0]
	}
	plain, err := v.aead.Open(to, nonce[:], sealed, key)
	if err != nil {
		return nil, errRow
	}
	return plain, nil
}

// blinder makes keys. It is not safe for concurrent use. The keys it gives
// live until the next. The buffers of rows rest here, between uses.
type blinder struct {
	tag    *[tagSize]byte
	mac    hash.Hash
	prefix []byte
	msg    []byte
	sum    []byte
	key    []byte
	plain  []byte
}

func (v *vault) blinder() *blinder { return v.pool.Get().(*blinder) }

func (v *vault) done(b *blinder) { v.pool.Put(b) }

// all is the prefix of every row of a table.
func (b *blinder) all(t table) []byte {
	b.key = append(append(b.key[:0], b.tag[:]...), byte(t))
	return b.key
}

// begin starts a message to be MACed.
func (b *blinder) begin(t table) { b.msg = append(append(b.msg[:0], b.prefix...), byte(t)) }

// end appends the first n bytes of the message's MAC to the key.
func (b *blinder) end(n int) {
	b.mac.Reset()
	b.mac.Write(b.msg)
	b.sum = b.mac.Sum(b.sum[:0])
	b.key = append(b.key, b.sum[:n]...)
}

func (b *blinder) number(n uint64) []byte {
	b.key = binary.BigEndian.AppendUint64(b.key, n)
	return b.key
}

func (b *blinder) numbered(t table, n uint64) []byte {
	b.all(t)
	return b.number(n)
}

func (b *blinder) topic(id envelope.TopicID) []byte {
	b.all(tableTopic)
	b.begin(tableTopic)
	b.msg = append(b.msg, id[:]...)
	b.end(macSize)
	return b.key
}

// chains is the prefix of the rows about the chains of a topic.
func (b *blinder) chains(t table, id envelope.TopicID) []byte {
	b.all(t)
	b.begin(t)
	b.msg = append(b.msg, id[:]...)
	b.end(groupSize)
	return b.key
}

func (b *blinder) chain(t table, topic envelope.TopicID, chain envelope.ChainID) []byte {
	b.chains(t, topic)
	b.msg = append(b.msg, chain[:]...)
	b.end(macSize)
	return b.key
}

// run is the prefix of the segments, or their ids, of a chain.
func (b *blinder) run(t table, topic envelope.TopicID, chain envelope.ChainID) []byte {
	b.all(t)
	b.begin(t)
	b.msg = append(append(b.msg, topic[:]...), chain[:]...)
	b.end(macSize)
	return b.key
}

func (b *blinder) author(t table, did space.DID, n int) []byte {
	b.all(t)
	b.begin(t)
	b.msg = append(b.msg, did...)
	b.end(n)
	return b.key
}

func (b *blinder) record(did space.DID, p space.Path) []byte {
	b.author(tableRecord, did, groupSize)
	// No part can hold a zero byte.
	b.msg = append(append(b.msg, 0), p.Collection...)
	b.msg = append(append(b.msg, 0), p.Key...)
	b.end(macSize)
	return b.key
}

// recordOf is record where the key's first group bytes are those of the
// author's records already.
func (b *blinder) recordOf(group int, did space.DID, p space.Path) []byte {
	b.key = b.key[:group]
	b.begin(tableRecord)
	b.msg = append(b.msg, did...)
	b.msg = append(append(b.msg, 0), p.Collection...)
	b.msg = append(append(b.msg, 0), p.Key...)
	b.end(macSize)
	return b.key
}

func (b *blinder) object(hash [32]byte) []byte {
	b.all(tableObject)
	b.begin(tableObject)
	b.msg = append(b.msg, hash[:]...)
	b.end(macSize)
	return b.key
}

func (b *blinder) name(name string) []byte {
	b.all(tableMeta)
	b.begin(tableMeta)
	b.msg = append(b.msg, name...)
	b.end(macSize)
	return b.key
}

func (b *blinder) settings(name string) []byte {
	b.all(tableSetting)
	b.begin(tableSetting)
	b.msg = append(b.msg, name...)
	b.end(groupSize)
	return b.key
}

func (b *blinder) setting(name string, key []byte) []byte {
	b.settings(name)
	b.msg = append(b.msg, key...)
	b.end(macSize)
	return b.key
}

// rows gathers sealed rows into a batch. The 24-byte nonces of one rows share
// 16 random bytes and count in the other 8, so that XChaCha20's first step,
// which sees only those 16, is done once.
type rows struct {
	v *vault
	*blinder
	batch *batch
	aead  cipher.AEAD
	nonce [nonceShared]byte
	count uint64
}

func (v *vault) rows() (*rows, error) { return v.rowsFrom(&commitBatches) }

func (v *vault) rowsFrom(pool *batchPool) (*rows, error) {
	r := &rows{v: v, blinder: v.blinder(), batch: pool.get()}
	rand.Read(r.nonce[:])
	sub, err := chacha20.HChaCha20(v.enc[:], r.nonce[:])
	if err != nil {
		return nil, err
	}
	r.aead, err = chacha20poly1305.New(sub)
	return r, err
}

func (r *rows) free() {
	if cap(r.plain) > pooledBytes {
		r.plain = nil
	}
	r.v.done(r.blinder)
	if r.batch != nil {
		r.batch.free()
	}
}

// keep takes the batch out of r, for longer than r lives.
func (r *rows) keep() *batch {
	b := r.batch
	r.batch = nil
	return b
}

// put seals plain at key.
func (r *rows) put(key, plain []byte) {
	nonce := r.start(key, len(plain))
	b := r.batch
	b.raw = r.aead.Seal(b.raw, nonce[:], plain, key)
}

// lay is put of the n bytes that write appends, which are sealed where they are
// written.
func (r *rows) lay(key []byte, n int, write func(to []byte) []byte) {
	nonce := r.start(key, n)
	b := r.batch
	from := len(b.raw)
	b.raw = write(b.raw)
	b.raw = r.aead.Seal(b.raw[:from], nonce[:], b.raw[from:], key)
}

// start writes a row up to its ciphertext, of which n bytes are sealed.
func (r *rows) start(key []byte, n int) (nonce [chacha20poly1305.NonceSize]byte) {
	r.count++
	var head [nonceShared + binary.MaxVarintLen64]byte
	copy(head[:], r.nonce[:])
	size := nonceShared + binary.PutUvarint(head[nonceShared:], r.count)
	binary.BigEndian.PutUint64(nonce[4:], r.count)
	r.batch.begin(key, size+n+r.aead.Overhead())
	r.batch.raw = append(r.batch.raw, head[:size]...)
	return nonce
}
