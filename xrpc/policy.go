package xrpc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kithnet/kith/space"
)

// readPatch reads what a request says of the policy, in any spelling. A null
// clears a text, a list or the config; where nothing can be cleared it is as
// if the field were not there, but in the unions, which must say what they are.
func readPatch(o object) (PolicyPatch, error) {
	var u PolicyPatch
	for _, step := range []func(object, *PolicyPatch) error{readAccess, readMint, readTexts, readOptions, readConfig} {
		if err := step(o, &u); err != nil {
			return u, err
		}
	}
	return u, nil
}

// patched is what a policy becomes, if a node carries it out.
func (u PolicyPatch) patched(p space.Policy) (space.Policy, error) {
	access := space.DefaultPolicy()
	access.AppAccess, access.Allow = p.AppAccess, p.Allow
	if u.AppAccess != nil && *u.AppAccess == space.AccessOpen {
		access.Allow = nil
	}
	set(&access.AppAccess, u.AppAccess)
	set(&access.Allow, u.Allow)
	if err := access.Validate(); err != nil {
		return p, unsupported(errAppAccess, err)
	}
	p, err := u.Apply(p)
	if err != nil {
		return p, inField("config", err)
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

func readAccess(o object, u *PolicyPatch) error {
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
	u.AppAccess, u.Allow = &kind, &allow
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

func readMint(o object, u *PolicyPatch) error {
	mint, named, err := o.text("mintPolicy")
	if err != nil {
		return err
	}
	if named {
		u.Mint = &mint
	}
	for _, field := range []string{"managingAppDid", "managingApp"} {
		if err := readClearable(o, field, &u.ManagingApp); err != nil {
			return err
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
	u.Mint = &kind
	return readClearable(union, "managingApp", &u.ManagingApp)
}

// readClearable reads a text that null clears.
func readClearable(o object, name string, to **string) error {
	s, ok, err := o.text(name)
	if err == nil && (ok || o.has(name)) {
		*to = &s
	}
	return err
}

func readTexts(o object, u *PolicyPatch) error {
	for name, to := range map[string]**string{"displayName": &u.DisplayName, "description": &u.Description} {
		if err := readClearable(o, name, to); err != nil {
			return err
		}
	}
	for name, to := range map[string]**string{"keyPolicy": &u.KeyPolicy, "history": &u.History, "attribution": &u.Attribution} {
		s, ok, err := o.text(name)
		if err != nil {
			return err
		}
		if ok {
			*to = &s
		}
	}
	return nil
}

func readOptions(o object, u *PolicyPatch) error {
	for name, to := range map[string]**bool{"pq": &u.PQ, "selfWrite": &u.SelfWrite} {
		v, ok, err := o.boolean(name)
		if err != nil {
			return err
		}
		if ok {
			*to = &v
		}
	}
	lag, ok, err := o.number("maxEpochLagSeconds", 0, 1<<31)
	if ok && err == nil {
		u.MaxEpochLagSeconds = new(uint32(lag))
	}
	return err
}

// flagFields are the flags in their spellings, the one that wins last.
var flagFields = []struct{ flag, field string }{
	{FlagMembershipPublic, "membershipPublic"},
	{FlagMembershipPublic, "membership_public"},
	{FlagRecordsPublic, "recordsPublic"},
	{FlagRecordsPublic, "records_public"},
	{FlagNoRevocation, "acknowledgeNoRevocation"},
}

// readConfig reads the free fields, and the flags: clients send those in the
// config and beside it. What HappyView would keep there and no node carries
// out is refused.
func readConfig(o object, u *PolicyPatch) error {
	config, ok, err := o.object("config")
	if err != nil {
		return err
	}
	if config.has("allowedCollections") {
		return faultf(errPolicy, "config.allowedCollections: not supported yet, leave it out")
	}
	fields := []string{}
	for _, f := range flagFields {
		fields = append(fields, f.field)
	}
	if o.has("config") {
		u.Config = new(space.Record)
	}
	if text := fieldsText(config, fields...); ok && text != "" {
		if *u.Config, err = space.RecordFromJSON([]byte("{" + text + "}")); err != nil {
			return inField("config", err)
		}
	}
	for _, from := range []object{config, o} {
		for _, f := range flagFields {
			on, ok, err := from.boolean(f.field)
			if err != nil {
				return err
			}
			if ok {
				u.Flags = append(slices.DeleteFunc(u.Flags, func(x Flag) bool { return x.Name == f.flag }), Flag{f.flag, on})
			}
		}
	}
	return nil
}
