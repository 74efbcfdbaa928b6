package space

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Level is what a member may do.
type Level uint8

// The levels, each including the ones before it.
const (
	LevelNone     Level = iota
	LevelReadSelf       // read and, if the policy says so, write one's own records
	LevelRead
	LevelWrite
)

var levelNames = [...]string{"none", "read_self", "read", "write"}

// ParseLevel reads "read_self", "read" or "write".
func ParseLevel(s string) (Level, error) {
	for l := LevelReadSelf; l <= LevelWrite; l++ {
		if s == levelNames[l] {
			return l, nil
		}
	}
	return LevelNone, malformed("level", s, "want read_self, read or write")
}

// String is the name ParseLevel reads.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// MarshalText gives the name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the name.
func (l *Level) UnmarshalText(b []byte) (err error) { *l, err = ParseLevel(string(b)); return err }

// UnmarshalCBOR reads the level's number, which Marshal writes.
func (l *Level) UnmarshalCBOR(b []byte) error {
	var v uint8
	if err := decMode.Unmarshal(b, &v); err != nil || Level(v) > LevelWrite {
		return fmt.Errorf("level: want 0 to 3: %w", ErrMalformed)
	}
	*l = Level(v)
	return nil
}

// What the fields of a Policy may say.
const (
	MintMemberList = "member-list" // members get credentials
	MintPublic     = "public"      // everybody does
	MintManaging   = "managing-app"

	AccessOpen      = "open" // any app
	AccessAllowList = "allowList"

	KeysRotate = "rotate" // a new epoch when a reader goes
	KeysStatic = "static"

	HistoryFull     = "full" // newcomers read what was before them
	HistoryFromJoin = "from-join"

	AttributionDV  = "dv"  // deniable: members can tell who wrote, others cannot be shown
	AttributionSig = "sig" // provable to anybody
)

// The caps of a policy.
const (
	MaxDisplayName = 640
	MaxDescription = 3000
	MaxAllow       = 100
	MaxConfig      = 16 << 10
)

// Policy is how a space is run. It is part of the control log.
type Policy struct {
	_                  struct{} `cbor:",toarray"`
	Mint               string   `json:"mint"`
	ManagingApp        string   `json:"managingApp,omitempty"`
	AppAccess          string   `json:"appAccess"`
	Allow              []string `json:"allow,omitempty"`
	KeyPolicy          string   `json:"keyPolicy"`
	History            string   `json:"history"`
	Attribution        string   `json:"attribution"`
	PQ                 bool     `json:"pq,omitempty"`
	SelfWrite          bool     `json:"selfWrite,omitempty"`
	MaxEpochLagSeconds uint32   `json:"maxEpochLagSeconds,omitempty"`
	DisplayName        string   `json:"displayName,omitempty"`
	Description        string   `json:"description,omitempty"`
	// Config is a map of whatever fields applications put there; nil is none.
	Config Record `json:"config,omitempty"`
}

// DefaultPolicy is the policy of a space nobody said anything about.
func DefaultPolicy() Policy {
	return Policy{
		Mint:        MintMemberList,
		AppAccess:   AccessOpen,
		KeyPolicy:   KeysRotate,
		History:     HistoryFull,
		Attribution: AttributionDV,
	}
}

// Validate answers ErrMalformed for a value no version knows and for values
// that contradict each other, ErrTooLarge for one over its cap, and
// ErrUnsupported, naming the option, for one that this version does not carry
// out: nothing is accepted and ignored.
func (p Policy) Validate() error {
	options := []struct {
		name, value string
		built       []string
		known       []string
	}{
		{"mint", p.Mint, []string{MintMemberList, MintPublic, MintManaging}, nil},
		{"appAccess", p.AppAccess, []string{AccessOpen, AccessAllowList}, nil},
		{"keyPolicy", p.KeyPolicy, []string{KeysRotate, KeysStatic}, nil},
		{"history", p.History, []string{HistoryFull, HistoryFromJoin}, nil},
		{"attribution", p.Attribution, []string{AttributionDV}, []string{AttributionSig}},
	}
	var unsupported error
	for _, o := range options {
		switch {
		case slices.Contains(o.built, o.value):
		case !slices.Contains(o.known, o.value):
			return malformed("policy "+o.name, o.value, fmt.Sprintf("want one of %q", append(o.built, o.known...)))
		case unsupported == nil:
			unsupported = fmt.Errorf("policy %s %q: %w", o.name, o.value, ErrUnsupported)
		}
	}
	if err := p.checkSizes(); err != nil {
		return err
	}
	if err := p.checkFlags(); err != nil {
		return err
	}
	if unsupported != nil {
		return unsupported
	}
	return p.checkTogether()
}

func (p Policy) checkSizes() error {
	switch {
	case len(p.DisplayName) > MaxDisplayName:
		return fmt.Errorf("policy displayName: %d bytes: %w", len(p.DisplayName), ErrTooLarge)
	case len(p.Description) > MaxDescription:
		return fmt.Errorf("policy description: %d bytes: %w", len(p.Description), ErrTooLarge)
	case len(p.Allow) > MaxAllow:
		return fmt.Errorf("policy allow: %d entries: %w", len(p.Allow), ErrTooLarge)
	case len(p.ManagingApp) > MaxDID:
		return fmt.Errorf("policy managingApp: %d bytes: %w", len(p.ManagingApp), ErrTooLarge)
	case len(p.Config) > MaxConfig:
		return fmt.Errorf("policy config: %d bytes: %w", len(p.Config), ErrTooLarge)
	case !utf8.ValidString(p.DisplayName), !utf8.ValidString(p.Description):
		return fmt.Errorf("policy: text is not UTF-8: %w", ErrMalformed)
	}
	for _, app := range p.Allow {
		if len(app) > MaxDID {
			return fmt.Errorf("policy allow: entry of %d bytes: %w", len(app), ErrTooLarge)
		}
		if app == "" || !utf8.ValidString(app) {
			return malformed("policy allow", app, "want the client id of an app")
		}
	}
	if p.Config != nil {
		if err := p.Config.check(); err != nil {
			return fmt.Errorf("policy config: %w", err)
		}
	}
	return nil
}

// The fields of Config that the node itself reads. Each is true or false.
const (
	ConfigMembershipPublic        = "membershipPublic" // the roster is for everybody
	ConfigRecordsPublic           = "recordsPublic"    // records are for everybody; only with mint public
	ConfigSelfWrite               = "selfWrite"        // false takes the default away that mint public gives
	ConfigAcknowledgeNoRevocation = "acknowledgeNoRevocation"
)

// MembershipPublic reports whether everybody may see the roster.
func (p Policy) MembershipPublic() bool { return p.flag(ConfigMembershipPublic, false) }

// RecordsPublic reports whether everybody may read through a node's HTTP.
func (p Policy) RecordsPublic() bool { return p.flag(ConfigRecordsPublic, false) }

// SelfWrites reports whether members of read_self write their own records: if
// SelfWrite says so, and under mint public unless the config says no.
func (p Policy) SelfWrites() bool {
	return p.SelfWrite || p.Mint == MintPublic && p.flag(ConfigSelfWrite, true)
}

func (p Policy) flag(key string, otherwise bool) bool {
	if v, ok, err := p.Config.flag(key); ok && err == nil {
		return v
	}
	return otherwise
}

// checkFlags wants a boolean wherever the node looks for one.
func (p Policy) checkFlags() error {
	for _, key := range []string{ConfigMembershipPublic, ConfigRecordsPublic, ConfigSelfWrite, ConfigAcknowledgeNoRevocation} {
		if _, _, err := p.Config.flag(key); err != nil {
			return fmt.Errorf("policy config: %s: %w", key, err)
		}
	}
	return nil
}

// checkTogether refuses what one option says without another.
func (p Policy) checkTogether() error {
	app := p.ManagingApp
	did, fragment, _ := strings.Cut(app, "#")
	_, err := ParseDID(did)
	switch {
	case p.Mint == MintManaging && (err != nil || !validFragment(fragment)):
		return malformed("policy managingApp", app, "mint managing-app wants a DID with the fragment of a service: did:web:app.example#service")
	case p.Mint != MintManaging && app != "":
		return malformed("policy managingApp", app, "only mint managing-app has one")
	case p.AppAccess != AccessAllowList && len(p.Allow) > 0:
		return malformed("policy allow", p.Allow[0], "only appAccess allowList has a list")
	case p.KeyPolicy == KeysStatic && p.Mint != MintPublic && !p.flag(ConfigAcknowledgeNoRevocation, false):
		return malformed("policy keyPolicy", p.KeyPolicy, "whoever is removed reads on: mint public, or a config with acknowledgeNoRevocation: true")
	case p.RecordsPublic() && p.Mint != MintPublic:
		return malformed("policy recordsPublic", "true", "only with mint public")
	case p.PQ:
		return fmt.Errorf("policy pq: %w", ErrUnsupported)
	}
	return nil
}

func validFragment(s string) bool { return s != "" && all(s, isKeyChar) }

// flag is the boolean under a key of the record, if there is anything.
func (r Record) flag(key string) (value, ok bool, err error) {
	if len(r) == 0 {
		return false, false, nil
	}
	if err := r.check(); err != nil {
		return false, false, err
	}
	c := checker{b: r, maxDepth: MaxDepth}
	_, n, _ := c.head()
	for range n {
		k, _ := c.key()
		start := c.off
		if err := c.item(1); err != nil {
			return false, false, err
		}
		if string(k) != key {
			continue
		}
		switch v := r[start:c.off]; {
		case len(v) == 1 && v[0] == 0xf5:
			return true, true, nil
		case len(v) == 1 && v[0] == 0xf4:
			return false, true, nil
		}
		return false, false, fmt.Errorf("want true or false: %w", ErrMalformed)
	}
	return false, false, nil
}
