package xrpc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kithnet/kith/space"
)

// readPolicy reads the policy in any spelling and refuses what is not built.
func readPolicy(o object) (space.Policy, error) {
	p := space.DefaultPolicy()
	for _, step := range []func(object, *space.Policy) error{readAccess, readMint, readTexts, readOptions, readConfig} {
		if err := step(o, &p); err != nil {
			return p, err
		}
	}
	if err := p.Validate(); err != nil {
		return p, unsupported(errPolicy, err)
	}
	return p, nil
}

// unsupported gives a policy's error the name of its kind.
func unsupported(kind, err error) error {
	if errors.Is(err, space.ErrTooLarge) {
		kind = errRequest
	}
	return &fault{kind, err.Error()}
}

func readAccess(o object, p *space.Policy) error {
	if !o.has("appAccess") {
		return nil
	}
	access, _, err := o.object("appAccess")
	if err != nil {
		return err
	}
	kind, err := unionType(access, "appAccess", "type", map[string]string{
		"com.atproto.simplespace.defs#open":      space.AccessOpen,
		"com.atproto.simplespace.defs#allowList": space.AccessAllowList,
	})
	if err != nil {
		return &fault{errAppAccess, err.Error()}
	}
	allow, err := access.texts("allowed", space.MaxAllow)
	if err != nil {
		return err
	}
	only := space.DefaultPolicy()
	only.AppAccess, only.Allow = kind, allow
	if err := only.Validate(); err != nil {
		return unsupported(errAppAccess, err)
	}
	p.AppAccess, p.Allow = kind, allow
	return nil
}

// unionType reads which variant an object is: atproto's $type or HappyView's
// plain name. The object must say it: nothing falls back to a default.
func unionType(o object, field, plain string, variants map[string]string) (string, error) {
	full, isFull, err := o.text("$type")
	if err != nil {
		return "", err
	}
	name, isPlain, err := o.text(plain)
	if err != nil {
		return "", err
	}
	if !isFull && !isPlain {
		return "", fmt.Errorf("%s: needs a $type", field)
	}
	if isFull {
		known, ok := variants[strings.TrimPrefix(full, "lex:")]
		if !ok || isPlain && known != name {
			return "", fmt.Errorf("%s: %q is not supported", field, clip(full))
		}
		return known, nil
	}
	return name, nil
}

func readMint(o object, p *space.Policy) error {
	mint, named, err := o.text("mintPolicy")
	if err != nil {
		return err
	}
	if named {
		p.Mint = mint
	}
	for _, field := range []string{"managingAppDid", "managingApp"} {
		app, ok, err := o.text(field)
		if err != nil {
			return err
		}
		if ok {
			p.ManagingApp = app
		}
	}
	if !o.has("policy") {
		return nil
	}
	union, _, err := o.object("policy")
	if err != nil {
		return err
	}
	kind, err := unionType(union, "policy", "type", map[string]string{
		"com.atproto.simplespace.defs#memberListPolicy":  space.MintMemberList,
		"com.atproto.simplespace.defs#publicPolicy":      space.MintPublic,
		"com.atproto.simplespace.defs#managingAppPolicy": space.MintManaging,
	})
	if err != nil {
		return &fault{errPolicy, err.Error()}
	}
	if named && kind != mint {
		return faultf(errRequest, "policy: says %s, mintPolicy says %s", kind, clip(mint))
	}
	p.Mint = kind
	app, ok, err := union.text("managingApp")
	if ok {
		p.ManagingApp = app
	}
	return err
}

func readTexts(o object, p *space.Policy) error {
	for _, f := range []struct {
		name string
		to   *string
	}{
		{"displayName", &p.DisplayName},
		{"description", &p.Description},
		{"keyPolicy", &p.KeyPolicy},
		{"history", &p.History},
		{"attribution", &p.Attribution},
	} {
		s, ok, err := o.text(f.name)
		if err != nil {
			return err
		}
		if ok {
			*f.to = s
		}
	}
	return nil
}

func readOptions(o object, p *space.Policy) (err error) {
	if p.PQ, _, err = o.boolean("pq"); err != nil {
		return err
	}
	if p.SelfWrite, _, err = o.boolean("selfWrite"); err != nil {
		return err
	}
	lag, _, err := o.number("maxEpochLagSeconds", 0, 1<<31)
	p.MaxEpochLagSeconds = uint32(lag)
	return err
}

// readConfig reads the free fields. Those that would mean something to
// HappyView and are not carried out here are refused, unless they ask for what
// is so anyway; clients send them in the config and beside it.
func readConfig(o object, p *space.Policy) error {
	config, ok, err := o.object("config")
	if err != nil {
		return err
	}
	for _, from := range []object{o, config} {
		for _, f := range []string{"membershipPublic", "membership_public", "recordsPublic", "records_public"} {
			on, _, err := from.boolean(f)
			if err != nil {
				return err
			}
			if on {
				return faultf(errPolicy, "%s: not supported yet, leave it out or false", f)
			}
		}
	}
	if config.has("allowedCollections") {
		return faultf(errPolicy, "config.allowedCollections: not supported yet, leave it out")
	}
	if !ok {
		return nil
	}
	raw, _ := o.raw("config")
	if p.Config, err = space.RecordFromJSON(raw); err != nil {
		return inField("config", err)
	}
	return nil
}
