package xrpc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kithnet/kith/space"
)

var (
	_ Access   = (*fake)(nil)
	_ Tokens   = (*fake)(nil)
	_ Settings = (*fake)(nil)
)

func (f *fake) Level(_ context.Context, id space.ID, who space.DID) (space.Level, error) {
	s, err := f.space(id)
	if err != nil {
		return space.LevelNone, err
	}
	for _, m := range s.members {
		if m.DID == who && s.deleted {
			return m.Level, space.ErrSpaceDeleted
		}
		if m.DID == who {
			return m.Level, nil
		}
	}
	return space.LevelNone, s.endless
}

// issue gives somebody a token.
func (f *fake) issue(who space.DID, scope string) string {
	s, err := ParseScope(scope)
	if err != nil {
		f.t.Fatal(err)
	}
	text, _, _ := f.CreateToken(f.t.Context(), Token{DID: who, Scope: s})
	return text
}

func (f *fake) CreateToken(_ context.Context, t Token) (string, Token, error) {
	if err := f.gate(); err != nil {
		return "", t, err
	}
	t.ID = fmt.Sprintf("%04x", len(f.tokens)+1)
	t.CreatedMs = f.now / 1000
	text := "kith_" + t.ID + string(t.DID)
	if f.tokens == nil {
		f.tokens = map[string]Token{}
	}
	f.tokens[text] = t
	return text, t, nil
}

func (f *fake) Tokens(context.Context) ([]Token, error) {
	return slices.Collect(maps.Values(f.tokens)), f.gate()
}

func (f *fake) RevokeToken(_ context.Context, id string) error {
	if err := f.gate(); err != nil {
		return err
	}
	for text, t := range f.tokens {
		if t.ID == id {
			delete(f.tokens, text)
			return nil
		}
	}
	return fmt.Errorf("token %s: %w", id, ErrTokenNotFound)
}

func (f *fake) Caller(_ context.Context, text string) (Token, error) {
	t, ok := f.tokens[text]
	if !ok {
		return t, ErrTokenNotFound
	}
	return t, nil
}

func (f *fake) Setting(key string) (Setting, bool) {
	v, ok := f.settings[key]
	return Setting{key, v, SourceDatabase}, ok
}

func (f *fake) Settings(context.Context) ([]Setting, error) {
	var all []Setting
	for k, v := range f.settings {
		all = append(all, Setting{k, v, SourceDatabase})
	}
	slices.SortFunc(all, func(a, b Setting) int { return strings.Compare(a.Key, b.Key) })
	return all, f.gate()
}

func (f *fake) SetSetting(_ context.Context, key, value string) error {
	if err := f.gate(); err != nil {
		return err
	}
	if f.settings == nil {
		f.settings = map[string]string{}
	}
	f.settings[key] = value
	return nil
}

func (f *fake) DeleteSetting(_ context.Context, key string) error {
	if _, ok := f.settings[key]; !ok {
		return fmt.Errorf("setting '%s' not found: %w", key, ErrSettingNotFound)
	}
	delete(f.settings, key)
	return f.gate()
}
