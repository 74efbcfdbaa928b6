package xrpc

import (
	"fmt"
	"slices"

	"github.com/kithnet/kith/space"
)

// PolicyPatch changes a policy: nil leaves a field as it is.
type PolicyPatch struct {
	Mint, ManagingApp        *string
	AppAccess                *string
	Allow                    *[]string
	KeyPolicy, History       *string
	Attribution              *string
	PQ, SelfWrite            *bool
	MaxEpochLagSeconds       *uint32
	DisplayName, Description *string
	Config                   *space.Record // replaces all of it, flags too
	Flags                    []Flag        // of the config, set after it
}

// Flag is a field of the config that means something to a node.
type Flag struct {
	Name string
	On   bool
}

// The flags, as the config of a space.Policy spells them.
const (
	FlagMembershipPublic = space.ConfigMembershipPublic
	FlagRecordsPublic    = space.ConfigRecordsPublic
	FlagNoRevocation     = space.ConfigAcknowledgeNoRevocation
)

// Apply is p with the patch's fields. A mint other than managing-app drops the
// managing app and open app access the list, unless the patch names them too.
// What comes out is for space.Policy.Validate to judge.
func (u PolicyPatch) Apply(p space.Policy) (space.Policy, error) {
	if u.Mint != nil && *u.Mint != space.MintManaging {
		p.ManagingApp = ""
	}
	if u.AppAccess != nil && *u.AppAccess == space.AccessOpen {
		p.Allow = nil
	}
	set(&p.Mint, u.Mint)
	set(&p.ManagingApp, u.ManagingApp)
	set(&p.AppAccess, u.AppAccess)
	if u.Allow != nil {
		p.Allow = slices.Clone(*u.Allow)
	}
	set(&p.KeyPolicy, u.KeyPolicy)
	set(&p.History, u.History)
	set(&p.Attribution, u.Attribution)
	set(&p.PQ, u.PQ)
	set(&p.MaxEpochLagSeconds, u.MaxEpochLagSeconds)
	set(&p.DisplayName, u.DisplayName)
	set(&p.Description, u.Description)
	set(&p.Config, u.Config)
	fields := map[string]string{} // to their JSON; "" leaves one out
	for _, f := range u.Flags {
		fields[f.Name] = onlyTrue(f.On)
	}
	if u.SelfWrite != nil {
		p.SelfWrite = *u.SelfWrite
		fields[space.ConfigSelfWrite] = ""
		if !p.SelfWrite && p.Mint == space.MintPublic {
			fields[space.ConfigSelfWrite] = "false" // there it is the default
		}
	}
	for name, raw := range fields {
		var err error
		if p.Config, err = withField(p.Config, name, raw); err != nil {
			return p, fmt.Errorf("config: %w", err)
		}
	}
	return p, nil
}

// onlyTrue is the JSON of a flag that is left out where it is off.
func onlyTrue(on bool) string {
	if on {
		return "true"
	}
	return ""
}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// empty reports whether the patch says nothing.
func (u PolicyPatch) empty() bool {
	return u.Mint == nil && u.ManagingApp == nil && u.AppAccess == nil && u.Allow == nil && u.KeyPolicy == nil &&
		u.History == nil && u.Attribution == nil && u.PQ == nil && u.SelfWrite == nil && u.MaxEpochLagSeconds == nil &&
		u.DisplayName == nil && u.Description == nil && u.Config == nil && len(u.Flags) == 0
}

// withField sets a field of a config to some JSON, or leaves it out. A config
// without fields is nil.
func withField(r space.Record, name, raw string) (space.Record, error) {
	text, err := configText(r, name)
	if err != nil {
		return nil, err
	}
	if raw != "" {
		text = appendField(text, quote(name), raw)
	}
	if text == "" {
		return nil, nil
	}
	return space.RecordFromJSON([]byte("{" + text + "}"))
}

// configText is a config as JSON without its braces and without some fields.
func configText(r space.Record, without ...string) (string, error) {
	if r == nil {
		return "", nil
	}
	b, err := r.JSON()
	if err != nil {
		return "", err
	}
	o, err := parseObject(b)
	if err != nil {
		return "", err
	}
	return fieldsText(o, without...), nil
}

func fieldsText(o object, without ...string) string {
	text := ""
	for _, m := range o.members {
		if !slices.Contains(without, string(m.key)) {
			text = appendField(text, quote(string(m.key)), string(m.raw))
		}
	}
	return text
}

func appendField(text, key, raw string) string {
	if text != "" {
		text += ","
	}
	return text + key + ":" + raw
}

// flagOf reads a flag of a config.
func flagOf(r space.Record, name string) bool {
	if r == nil {
		return false
	}
	b, err := r.JSON()
	if err != nil {
		return false
	}
	o, err := parseObject(b)
	if err != nil {
		return false
	}
	on, _, err := o.boolean(name)
	return on && err == nil
}
