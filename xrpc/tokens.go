package xrpc

import (
	"time"

	"github.com/kithnet/kith/space"
)

// maxNote bounds what a token says about itself.
const maxNote = 200

type tokenAnswer struct {
	Token string      `json:"token"`
	Info  tokenObject `json:"info"`
}

type tokenObject struct {
	ID        string    `json:"id"`
	DID       space.DID `json:"did"`
	Scope     string    `json:"scope"`
	Note      string    `json:"note,omitempty"`
	CreatedAt string    `json:"createdAt"`
	ExpiresAt string    `json:"expiresAt,omitempty"`
}

type tokensAnswer struct {
	Tokens []tokenObject `json:"tokens"`
}

func objectOfToken(t Token) tokenObject {
	o := tokenObject{ID: t.ID, DID: t.DID, Scope: t.Scope.String(), Note: t.Note, CreatedAt: timeText(t.CreatedMs * 1000)}
	if t.ExpiresMs != 0 {
		o.ExpiresAt = timeText(t.ExpiresMs * 1000)
	}
	return o
}

// createToken makes a token for a DID, the owner's if it names none.
func createToken(c *call) (any, error) {
	did, err := c.did("did")
	if err != nil {
		return nil, err
	}
	t := Token{DID: did}
	if t.DID == "" {
		t.DID = c.s.Owner
	}
	scope, err := c.required("scope")
	if err != nil {
		return nil, err
	}
	if t.Scope, err = ParseScope(scope); err != nil {
		return nil, err
	}
	if t.DID != c.s.Owner && (t.Scope.Manage || t.Scope.Node) {
		return nil, faultf(errRequest, "scope: manage and node are for tokens of the owner's")
	}
	if t.Note, _, err = c.body.text("note"); err != nil {
		return nil, err
	}
	if len(t.Note) > maxNote {
		return nil, faultf(errRequest, "note: at most %d bytes", maxNote)
	}
	at, given, err := optional(c.in, "expiresAt", parseTime)
	if err != nil {
		return nil, err
	}
	if given {
		if t.ExpiresMs = int64(at); t.ExpiresMs <= time.Now().UnixMilli() {
			return nil, faultf(errRequest, "expiresAt: has passed already")
		}
	}
	text, t, err := c.s.Tokens.CreateToken(c.ctx(), t)
	return tokenAnswer{text, objectOfToken(t)}, err
}

// listTokens lists the oldest first. Nothing in it opens anything.
func listTokens(c *call) (any, error) {
	all, err := c.s.Tokens.Tokens(c.ctx())
	if err != nil {
		return nil, err
	}
	out := tokensAnswer{[]tokenObject{}}
	for _, t := range sorted(all, func(t Token) string { return timeText(t.CreatedMs*1000) + t.ID }) {
		out.Tokens = append(out.Tokens, objectOfToken(t))
	}
	return out, nil
}

func revokeToken(c *call) (any, error) {
	id, err := c.hexID("id")
	if err != nil {
		return nil, err
	}
	return done{true}, c.s.Tokens.RevokeToken(c.ctx(), id)
}
