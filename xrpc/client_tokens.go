package xrpc

import (
	"context"
)

// CreateToken makes a token; its text is shown this once. Without a DID it is
// the owner's.
func (c *Client) CreateToken(ctx context.Context, t Token) (string, Token, error) {
	in := map[string]string{"scope": t.Scope.String()}
	if t.DID != "" {
		in["did"] = string(t.DID)
	}
	if t.Note != "" {
		in["note"] = t.Note
	}
	if t.ExpiresMs != 0 {
		in["expiresAt"] = timeText(t.ExpiresMs * 1000)
	}
	var out tokenAnswer
	if err := c.procedure(ctx, "dev.kith.token.create", in, &out); err != nil {
		return "", Token{}, err
	}
	made, err := out.Info.token()
	return out.Token, made, err
}

// Tokens lists the tokens that still work, the oldest first.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	var out tokensAnswer
	if err := c.query(ctx, "dev.kith.token.list", nil, &out); err != nil {
		return nil, err
	}
	all := make([]Token, len(out.Tokens))
	for i, o := range out.Tokens {
		var err error
		if all[i], err = o.token(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// RevokeToken ends a token.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.procedure(ctx, "dev.kith.token.revoke", map[string]string{"id": id}, &done{})
}

// Session is whose the client's own token is.
func (c *Client) Session(ctx context.Context) (Session, error) {
	var out Session
	err := c.query(ctx, "dev.kith.server.getSession", nil, &out)
	return out, err
}

func (o tokenObject) token() (t Token, err error) {
	t = Token{ID: o.ID, DID: o.DID, Note: o.Note}
	if t.Scope, err = ParseScope(o.Scope); err != nil {
		return t, err
	}
	if t.CreatedMs, err = millis(o.CreatedAt); err == nil && o.ExpiresAt != "" {
		t.ExpiresMs, err = millis(o.ExpiresAt)
	}
	return t, err
}
