package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

var _ xrpc.Settings = (*Node)(nil)

// desk is what the API keeps for itself.
type desk struct {
	tokens   *tokens
	settings *settings
}

func openDesk(keys *keyfile.Store, env map[string]string) (d desk, err error) {
	if d.tokens, err = openTokens(keys); err != nil {
		return d, err
	}
	d.settings, err = openSettings(keys, env)
	return d, err
}

// settingsName is the record of the settings in the key file.
const settingsName = "settings"

// maxSettings bounds the settings that are kept.
const maxSettings = 256

// settings are what the owner changed while the node ran, over what the
// environment says. mu guards what follows it; it is held while they are
// written.
type settings struct {
	keys *keyfile.Store
	env  map[string]string

	mu   sync.RWMutex
	kept map[string]string
}

func openSettings(keys *keyfile.Store, env map[string]string) (*settings, error) {
	s := &settings{keys: keys, env: env, kept: map[string]string{}}
	b, err := keys.Read(settingsName)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = space.Unmarshal(b, &s.kept)
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	return s, nil
}

func (s *settings) change(f func(map[string]string) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(s.kept)
	if err := f(next); err != nil {
		return err
	}
	b, err := space.Marshal(next)
	if err == nil {
		err = s.keys.Put(settingsName, b)
	}
	if err != nil {
		return diskError(fmt.Errorf("keep the settings: %w", err))
	}
	s.kept = next
	return nil
}

// Setting is what a setting is now.
func (n *Node) Setting(key string) (xrpc.Setting, bool) {
	s := n.settings
	s.mu.RLock()
	defer s.mu.RUnlock()
	if v, ok := s.kept[key]; ok {
		return xrpc.Setting{Key: key, Value: v, Source: xrpc.SourceDatabase}, true
	}
	v, ok := s.env[key]
	return xrpc.Setting{Key: key, Value: v, Source: xrpc.SourceEnv}, ok
}

// Settings lists them by key.
func (n *Node) Settings(context.Context) ([]xrpc.Setting, error) {
	s := n.settings
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []xrpc.Setting
	for k, v := range s.env {
		if _, ok := s.kept[k]; !ok {
			out = append(out, xrpc.Setting{Key: k, Value: v, Source: xrpc.SourceEnv})
		}
	}
	for k, v := range s.kept {
		out = append(out, xrpc.Setting{Key: k, Value: v, Source: xrpc.SourceDatabase})
	}
	slices.SortFunc(out, func(a, b xrpc.Setting) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}

// SetSetting makes a setting durable.
func (n *Node) SetSetting(_ context.Context, key, value string) error {
	return n.settings.change(func(all map[string]string) error {
		if _, there := all[key]; !there && len(all) >= maxSettings {
			return fmt.Errorf("setting: %w: %d are kept already", space.ErrNoSpaceLeft, len(all))
		}
		all[key] = value
		return nil
	})
}

// DeleteSetting goes back to what the environment says, or to the standard.
func (n *Node) DeleteSetting(_ context.Context, key string) error {
	return n.settings.change(func(all map[string]string) error {
		if _, there := all[key]; !there {
			return fmt.Errorf("setting '%s': %w", key, xrpc.ErrSettingNotFound)
		}
		delete(all, key)
		return nil
	})
}
