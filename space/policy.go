package space

import (
	"fmt"
	"slices"
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

// Validate answers ErrMalformed for a value no version knows, ErrTooLarge for
// one over its cap, and ErrUnsupported, naming the option, for one that this
// version does not carry out: nothing is accepted and ignored.
func (p Policy) Validate() error {
	options := []struct {
		name, value string
		built       string
		known       []string
	}{
		{"mint", p.Mint, MintMemberList, []string{MintPublic, MintManaging}},
		{"appAccess", p.AppAccess, AccessOpen, []string{AccessAllowList}},
		{"keyPolicy", p.KeyPolicy, KeysRotate, []string{KeysStatic}},
		{"history", p.History, HistoryFull, []string{HistoryFromJoin}},
		{"attribution", p.Attribution, AttributionDV, []string{AttributionSig}},
	}
	var unsupported error
	for _, o := range options {
		switch {
		case o.value == o.built:
		case !slices.Contains(o.known, o.value):
			return malformed("policy "+o.name, o.value, fmt.Sprintf("want %q or one of %q", o.built, o.known))
		case unsupported == nil:
			unsupported = fmt.Errorf("policy %s %q: %w", o.name, o.value, ErrUnsupported)
		}
	}
	if err := p.checkSizes(); err != nil {
		return err
	}
	if unsupported != nil {
		return unsupported
	}
	return p.checkExtras()
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
	}
	if p.Config != nil {
		if err := p.Config.check(); err != nil {
			return fmt.Errorf("policy config: %w", err)
		}
	}
	return nil
}

// checkExtras refuses the options that mean something only beside a value
// that is not built yet, or are not built themselves.
func (p Policy) checkExtras() error {
	option := ""
	switch {
	case p.ManagingApp != "":
		option = "managingApp"
	case len(p.Allow) > 0:
		option = "allow"
	case p.PQ:
		option = "pq"
	case p.SelfWrite:
		option = "selfWrite"
	case p.MaxEpochLagSeconds != 0:
		option = "maxEpochLagSeconds"
	default:
		return nil
	}
	return fmt.Errorf("policy %s: %w", option, ErrUnsupported)
}
