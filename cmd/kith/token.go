package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type tokenCmd struct {
	Create tokenCreateCmd `cmd:"" help:"Let an app, or somebody else, call this node's API."`
	List   tokenListCmd   `cmd:"" help:"List the tokens that work."`
	Revoke tokenRevokeCmd `cmd:"" help:"End a token."`
}

type tokenCreateCmd struct {
	DID     string `help:"Whose view the token gives. Standard: your own." name:"did" placeholder:"DID"`
	Scope   string `help:"What it is good for: read_self, read or write in the spaces its person belongs to; manage, node (yours only)." required:"" placeholder:"WORDS"`
	Expires span   `help:"How long it works: 30d, 12h. Standard: until it is revoked." placeholder:"DUR"`
	Note    string `help:"What it is for." placeholder:"TEXT"`
	File    string `help:"Write the token into this new file, not to the terminal." placeholder:"FILE"`
}

// tokenView is a token as scripts see it.
type tokenView struct {
	Token     string     `json:"token,omitempty"`
	File      string     `json:"file,omitempty"`
	ID        string     `json:"id"`
	DID       space.DID  `json:"did"`
	Scope     xrpc.Scope `json:"scope"`
	Note      string     `json:"note,omitempty"`
	CreatedAt string     `json:"createdAt"`
	ExpiresAt string     `json:"expiresAt,omitempty"`
}

func viewOfToken(t xrpc.Token) tokenView {
	v := tokenView{ID: t.ID, DID: t.DID, Scope: t.Scope, Note: t.Note, CreatedAt: timestamp(t.CreatedMs)}
	if t.ExpiresMs != 0 {
		v.ExpiresAt = timestamp(t.ExpiresMs)
	}
	return v
}

// Run makes a token. Its text is told once and kept nowhere.
func (c *tokenCreateCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	t := xrpc.Token{Note: c.Note}
	if t.Scope, err = xrpc.ParseScope(c.Scope); err != nil {
		return usage("--scope read", "--%s", reason(err))
	}
	if c.DID != "" {
		if t.DID, err = space.ParseDID(c.DID); err != nil {
			return usage("--did did:key:…", "--did: %s", reason(err))
		}
	}
	if c.Expires > 0 {
		t.ExpiresMs = time.Now().Add(time.Duration(c.Expires)).UnixMilli()
	}
	text, t, err := api.CreateToken(a.ctx, t)
	if err != nil {
		return err
	}
	v := viewOfToken(t)
	v.Token = text
	if c.File != "" {
		if err := writeSecret(c.File, text); err != nil {
			return fmt.Errorf("%w; end the token that was made: %s", err, a.kith("token revoke %s", t.ID))
		}
		v.Token, v.File = "", c.File
	}
	return a.answer(v, func(w io.Writer) {
		if v.File != "" {
			line(w, "token", "in %s", v.File)
		} else {
			line(w, "token", "%s", v.Token)
		}
		line(w, "for", "%s, %s", v.DID, v.Scope)
		if v.ExpiresAt != "" {
			line(w, "until", "%s", v.ExpiresAt)
		}
		line(w, "end it", "%s", a.kith("token revoke %s", v.ID))
	})
}

// writeSecret writes a line into a file that must not exist.
func writeSecret(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the token: %w", err)
	}
	_, err = f.WriteString(text + "\n")
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

type tokenListCmd struct{}

// Run lists the tokens, without their texts.
func (*tokenListCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	all, err := api.Tokens(a.ctx)
	if err != nil {
		return err
	}
	views := make([]tokenView, len(all))
	for i, t := range all {
		views[i] = viewOfToken(t)
	}
	return a.answer(map[string]any{"tokens": views}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "TOKEN\tFOR\tSCOPE\tSINCE\tUNTIL\t")
		for _, v := range views {
			until := v.ExpiresAt
			if until == "" {
				until = "revoked"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", v.ID, v.DID, v.Scope, v.CreatedAt, until, v.Note)
		}
		t.Flush()
	})
}

type tokenRevokeCmd struct {
	ID string `arg:"" help:"The token's id, as list shows it."`
}

// Run ends a token at once.
func (c *tokenRevokeCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	if err := api.RevokeToken(a.ctx, strings.ToLower(c.ID)); err != nil {
		return err
	}
	return a.answer(map[string]any{"id": c.ID, "revoked": true}, func(w io.Writer) { line(w, "revoked", "%s", c.ID) })
}
