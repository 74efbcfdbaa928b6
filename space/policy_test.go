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
		"public":               {func(p *Policy) { p.Mint = MintPublic }, ErrUnsupported, `mint "public"`},
		"managing app":         {func(p *Policy) { p.Mint = MintManaging }, ErrUnsupported, "mint"},
		"allow list":           {func(p *Policy) { p.AppAccess = AccessAllowList }, ErrUnsupported, "appAccess"},
		"static keys":          {func(p *Policy) { p.KeyPolicy = KeysStatic }, ErrUnsupported, "keyPolicy"},
		"from join":            {func(p *Policy) { p.History = HistoryFromJoin }, ErrUnsupported, "history"},
		"signatures":           {func(p *Policy) { p.Attribution = AttributionSig }, ErrUnsupported, "attribution"},
		"pq":                   {func(p *Policy) { p.PQ = true }, ErrUnsupported, "pq"},
		"self write":           {func(p *Policy) { p.SelfWrite = true }, ErrUnsupported, "selfWrite"},
		"epoch lag":            {func(p *Policy) { p.MaxEpochLagSeconds = 600 }, ErrUnsupported, "maxEpochLagSeconds"},
		"an app":               {func(p *Policy) { p.ManagingApp = "did:web:a.example" }, ErrUnsupported, "managingApp"},
		"apps":                 {func(p *Policy) { p.Allow = []string{"x"} }, ErrUnsupported, "allow"},
		"unknown mint":         {func(p *Policy) { p.Mint = "anyone" }, ErrMalformed, `mint "anyone"`},
		"no history":           {func(p *Policy) { p.History = "" }, ErrMalformed, "history"},
		"unknown, unsupported": {func(p *Policy) { p.Mint, p.History = MintPublic, "x" }, ErrMalformed, "history"},
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
