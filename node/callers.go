package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/control"
	"github.com/kithnet/kith/xrpc"
)

var (
	_ xrpc.Access = (*Node)(nil)
	_ xrpc.Tokens = (*Node)(nil)
)

// Level is what somebody may do in a space: by its roster, or by that of a
// child space which this node holds too. A deleted space is shown as such to
// those who belonged to it.
func (n *Node) Level(_ context.Context, id space.ID, who space.DID) (space.Level, error) {
	a := n.anyByID(id)
	if a == nil || a.place() == gone {
		return space.LevelNone, fmt.Errorf("%s: %w", id, space.ErrSpaceNotFound)
	}
	level, err := control.Resolve(a.sid, func(sid [32]byte) (control.Node, error) {
		return n.levelsOf(sid, who), nil
	})
	if err == nil && level != space.LevelNone && a.place() == deleted {
		err = fmt.Errorf("%s: %w", id, space.ErrSpaceDeleted)
	}
	return level, err
}

// levelsOf is what one space's roster gives somebody; nothing if the space is
// not here.
func (n *Node) levelsOf(sid [32]byte, who space.DID) (out control.Node) {
	a := n.bySpace(sid)
	if a == nil {
		return out
	}
	st := a.control()
	if m, ok := st.MemberByDID(who); ok {
		out.Level = m.Level
	}
	for d := range st.Delegations() {
		out.Edges = append(out.Edges, control.Edge{Child: d.Child, Level: d.Level})
	}
	return out
}

// tokensName is the record of the tokens in the key file.
const tokensName = "tokens"

// maxTokens bounds the tokens that are kept.
const maxTokens = 10_000

// tokenRecord is one token in the key file. The text itself is kept nowhere.
type tokenRecord struct {
	_         struct{} `cbor:",toarray"`
	Hash      []byte   // SHA-256 of the text
	ID        string
	DID       string
	Scope     string
	Note      string
	CreatedMs int64
	ExpiresMs int64
}

// tokens are those beside the owner's own. mu guards what follows it; it is
// held while the key file is written, so that no answer precedes the disk.
type tokens struct {
	keys *keyfile.Store

	mu     sync.RWMutex
	byHash map[[32]byte]xrpc.Token
}

func openTokens(keys *keyfile.Store) (*tokens, error) {
	t := &tokens{keys: keys, byHash: map[[32]byte]xrpc.Token{}}
	b, err := keys.Read(tokensName)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	var recs []tokenRecord
	if err == nil {
		err = space.Unmarshal(b, &recs)
	}
	if err != nil {
		return nil, fmt.Errorf("read the API tokens: %w", err)
	}
	for _, r := range recs {
		scope, err := xrpc.ParseScope(r.Scope)
		if err != nil || len(r.Hash) != sha256.Size {
			return nil, fmt.Errorf("read the API tokens: %w", errors.Join(space.ErrMalformed, err))
		}
		t.byHash[[32]byte(r.Hash)] = xrpc.Token{
			ID: r.ID, DID: space.DID(r.DID), Scope: scope, Note: r.Note, CreatedMs: r.CreatedMs, ExpiresMs: r.ExpiresMs,
		}
	}
	return t, nil
}

// change writes what the tokens are after f, and keeps it once it is written.
// What has expired goes with it.
func (t *tokens) change(f func(map[[32]byte]xrpc.Token) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := maps.Clone(t.byHash)
	maps.DeleteFunc(next, func(_ [32]byte, x xrpc.Token) bool { return expired(x, time.Now()) })
	if err := f(next); err != nil {
		return err
	}
	recs := make([]tokenRecord, 0, len(next))
	for hash, x := range next {
		recs = append(recs, tokenRecord{
			Hash: hash[:], ID: x.ID, DID: string(x.DID), Scope: x.Scope.String(), Note: x.Note, CreatedMs: x.CreatedMs, ExpiresMs: x.ExpiresMs,
		})
	}
	slices.SortFunc(recs, func(a, b tokenRecord) int { return cmp.Compare(a.ID, b.ID) })
	b, err := space.Marshal(recs)
	if err == nil {
		err = t.keys.Put(tokensName, b)
	}
	if err != nil {
		return diskError(fmt.Errorf("keep the API tokens: %w", err))
	}
	t.byHash = next
	return nil
}

func expired(t xrpc.Token, now time.Time) bool {
	return t.ExpiresMs != 0 && now.UnixMilli() >= t.ExpiresMs
}

// CreateToken draws a token of 32 random bytes.
func (n *Node) CreateToken(_ context.Context, t xrpc.Token) (string, xrpc.Token, error) {
	now := time.Now()
	if expired(t, now) {
		return "", t, fmt.Errorf("token: %w: it would have expired already", space.ErrMalformed)
	}
	var secret [32]byte
	var id [8]byte
	rand.Read(secret[:])
	rand.Read(id[:])
	text := "kith_" + base64.RawURLEncoding.EncodeToString(secret[:])
	t.ID, t.CreatedMs = hex.EncodeToString(id[:]), now.UnixMilli()
	err := n.tokens.change(func(all map[[32]byte]xrpc.Token) error {
		if len(all) >= maxTokens {
			return fmt.Errorf("token: %w: %d are kept already, revoke some", space.ErrNoSpaceLeft, len(all))
		}
		all[sha256.Sum256([]byte(text))] = t
		return nil
	})
	return text, t, err
}

// Tokens lists the tokens that still work.
func (n *Node) Tokens(context.Context) ([]xrpc.Token, error) {
	n.tokens.mu.RLock()
	defer n.tokens.mu.RUnlock()
	var out []xrpc.Token
	for _, t := range n.tokens.byHash {
		if !expired(t, time.Now()) {
			out = append(out, t)
		}
	}
	return out, nil
}

// RevokeToken ends a token at once.
func (n *Node) RevokeToken(_ context.Context, id string) error {
	return n.tokens.change(func(all map[[32]byte]xrpc.Token) error {
		for hash, t := range all {
			if t.ID == id {
				delete(all, hash)
				return nil
			}
		}
		return fmt.Errorf("token %s: %w", id, xrpc.ErrTokenNotFound)
	})
}

// Caller finds the token of a text by its hash: how long that takes says
// nothing of a text that is not known.
func (n *Node) Caller(_ context.Context, text string) (xrpc.Token, error) {
	hash := sha256.Sum256([]byte(text))
	n.tokens.mu.RLock()
	t, ok := n.tokens.byHash[hash]
	n.tokens.mu.RUnlock()
	if !ok || expired(t, time.Now()) {
		return xrpc.Token{}, xrpc.ErrTokenNotFound
	}
	return t, nil
}
