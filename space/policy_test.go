package space

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestPolicyValidate(t *testing.T) {
	if err := DefaultPolicy().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Policy)
		want   error
		names  string
	}{
		"named, with config":   {func(p *Policy) { p.DisplayName, p.Config = "Home", Record("\xa0") }, nil, ""},
		"public":               {func(p *Policy) { p.Mint = MintPublic }, nil, ""},
		"managing app":         {func(p *Policy) { p.Mint, p.ManagingApp = MintManaging, "did:web:a.example#space" }, nil, ""},
		"no managing app":      {func(p *Policy) { p.Mint = MintManaging }, ErrMalformed, "managingApp"},
		"app, no fragment":     {func(p *Policy) { p.Mint, p.ManagingApp = MintManaging, "did:web:a.example" }, ErrMalformed, "managingApp"},
		"app, empty fragment":  {func(p *Policy) { p.Mint, p.ManagingApp = MintManaging, "did:web:a.example#" }, ErrMalformed, "managingApp"},
		"app, odd fragment":    {func(p *Policy) { p.Mint, p.ManagingApp = MintManaging, "did:web:a.example#a b" }, ErrMalformed, "managingApp"},
		"app, no DID":          {func(p *Policy) { p.Mint, p.ManagingApp = MintManaging, "app#a" }, ErrMalformed, "managingApp"},
		"an app":               {func(p *Policy) { p.ManagingApp = "did:web:a.example#space" }, ErrMalformed, "managingApp"},
		"allow list":           {func(p *Policy) { p.AppAccess, p.Allow = AccessAllowList, []string{"https://a.example/client"} }, nil, ""},
		"empty allow list":     {func(p *Policy) { p.AppAccess = AccessAllowList }, nil, ""},
		"empty app":            {func(p *Policy) { p.AppAccess, p.Allow = AccessAllowList, []string{""} }, ErrMalformed, "allow"},
		"apps":                 {func(p *Policy) { p.Allow = []string{"x"} }, ErrMalformed, "allow"},
		"static keys":          {func(p *Policy) { p.KeyPolicy = KeysStatic }, ErrMalformed, "keyPolicy"},
		"static, public":       {func(p *Policy) { p.KeyPolicy, p.Mint = KeysStatic, MintPublic }, nil, ""},
		"static, acknowledged": {func(p *Policy) { p.KeyPolicy, p.Config = KeysStatic, record(t, `{"acknowledgeNoRevocation":true}`) }, nil, ""},
		"static, not so":       {func(p *Policy) { p.KeyPolicy, p.Config = KeysStatic, record(t, `{"acknowledgeNoRevocation":false}`) }, ErrMalformed, "keyPolicy"},
		"static, nearly so":    {func(p *Policy) { p.KeyPolicy, p.Config = KeysStatic, record(t, `{"acknowledgeNoRevocation":"yes"}`) }, ErrMalformed, "acknowledgeNoRevocation"},
		"from join":            {func(p *Policy) { p.History = HistoryFromJoin }, nil, ""},
		"signatures":           {func(p *Policy) { p.Attribution = AttributionSig }, ErrUnsupported, "attribution"},
		"pq":                   {func(p *Policy) { p.PQ = true }, ErrUnsupported, "pq"},
		"self write":           {func(p *Policy) { p.SelfWrite = true }, nil, ""},
		"epoch lag":            {func(p *Policy) { p.MaxEpochLagSeconds = 600 }, nil, ""},
		"public members":       {func(p *Policy) { p.Config = record(t, `{"membershipPublic":true}`) }, nil, ""},
		"public members, odd":  {func(p *Policy) { p.Config = record(t, `{"membershipPublic":1}`) }, ErrMalformed, "membershipPublic"},
		"public records":       {func(p *Policy) { p.Mint, p.Config = MintPublic, record(t, `{"recordsPublic":true}`) }, nil, ""},
		"records of members":   {func(p *Policy) { p.Config = record(t, `{"recordsPublic":true}`) }, ErrMalformed, "recordsPublic"},
		"unknown mint":         {func(p *Policy) { p.Mint = "anyone" }, ErrMalformed, `mint "anyone"`},
		"no history":           {func(p *Policy) { p.History = "" }, ErrMalformed, "history"},
		"unknown, unsupported": {func(p *Policy) { p.Attribution, p.History = AttributionSig, "x" }, ErrMalformed, "history"},
		"long name":            {func(p *Policy) { p.DisplayName = strings.Repeat("x", 641) }, ErrTooLarge, "displayName"},
		"long description":     {func(p *Policy) { p.Description = strings.Repeat("x", 3001) }, ErrTooLarge, "description"},
		"name not UTF-8":       {func(p *Policy) { p.DisplayName = "\xff" }, ErrMalformed, "UTF-8"},
		"config a list":        {func(p *Policy) { p.Config = Record("\x80") }, ErrMalformed, "config"},
		"config too large":     {func(p *Policy) { p.Config = make(Record, MaxConfig+1) }, ErrTooLarge, "config"},
		"many apps":            {func(p *Policy) { p.Allow = make([]string, MaxAllow+1) }, ErrTooLarge, "allow"},
	} {
		p := DefaultPolicy()
		c.change(&p)
		err := p.Validate()
		if !errors.Is(err, c.want) || c.want != nil && !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: %v, want %v naming %s", name, err, c.want, c.names)
		}
	}
}

func TestPolicyFlags(t *testing.T) {
	for config, want := range map[string][3]bool{ // members, records, self writes under mint public
		`{}`:                           {false, false, true},
		`{"membershipPublic":true}`:    {true, false, true},
		`{"recordsPublic":true}`:       {false, true, true},
		`{"selfWrite":false}`:          {false, false, false},
		`{"a":{"recordsPublic":true}}`: {false, false, true},
	} {
		p := DefaultPolicy()
		p.Mint, p.Config = MintPublic, record(t, config)
		if got := [3]bool{p.MembershipPublic(), p.RecordsPublic(), p.SelfWrites()}; got != want {
			t.Errorf("%s: %v, want %v", config, got, want)
		}
		if p.Mint = MintMemberList; p.SelfWrites() {
			t.Errorf("%s: self writes without mint public", config)
		}
		if p.SelfWrite = true; !p.SelfWrites() {
			t.Errorf("%s: no self writes though the policy says so", config)
		}
	}
	if p := DefaultPolicy(); p.MembershipPublic() || p.RecordsPublic() || p.SelfWrites() {
		t.Error("the default policy opens something")
	}
}

func TestPolicyEncodings(t *testing.T) {
	for _, p := range []Policy{DefaultPolicy(), {Mint: MintPublic, Allow: []string{"a"}, PQ: true, MaxEpochLagSeconds: 5, Config: record(t, `{"a":{"b":1}}`)}} {
		b, err := Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back Policy
		if err := Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, p) {
			t.Errorf("DRISL: %+v, %v, want %+v", back, err, p)
		}
		j, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		back = Policy{}
		if err := json.Unmarshal(j, &back); err != nil || !reflect.DeepEqual(back, p) {
			t.Errorf("JSON: %s: %+v, %v, want %+v", j, back, err, p)
		}
	}
}

func TestLevels(t *testing.T) {
	if !(LevelNone < LevelReadSelf && LevelReadSelf < LevelRead && LevelRead < LevelWrite) {
		t.Error("levels are not ordered")
	}
	for _, l := range []Level{LevelReadSelf, LevelRead, LevelWrite} {
		if back, err := ParseLevel(l.String()); err != nil || back != l {
			t.Errorf("%s: %v, %v", l, back, err)
		}
	}
	for _, s := range []string{"", "none", "admin", "Read"} {
		if l, err := ParseLevel(s); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q is %v, %v", s, l, err)
		}
	}
	j, err := json.Marshal(map[string]Level{"level": LevelReadSelf})
	if err != nil || string(j) != `{"level":"read_self"}` {
		t.Errorf("%s, %v", j, err)
	}
	if s := Level(9).String(); s != "level(9)" {
		t.Error(s)
	}
}
