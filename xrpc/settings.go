package xrpc

import (
	"context"
	"net/http"
	"strings"
)

// Settings are the node's switches that can be turned while it runs. Keys and
// values are text; a key that means nothing to the node is kept for clients.
type Settings interface {
	// Setting is what a key is set to; asked on every request.
	Setting(key string) (Setting, bool)
	Settings(ctx context.Context) ([]Setting, error)
	SetSetting(ctx context.Context, key, value string) error
	// DeleteSetting fails with ErrSettingNotFound for a key that the
	// environment alone sets.
	DeleteSetting(ctx context.Context, key string) error
}

// Setting is one setting and where it comes from.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Source string `json:"source"`
}

// The sources: set through the API, or by the environment.
const (
	SourceDatabase = "database"
	SourceEnv      = "env"
)

// The settings that mean something to the node.
const (
	// SettingSpaces turns the methods of spaces on ("true", and without the
	// setting) or off (anything else). Nodes sync on without them.
	SettingSpaces = "feature.spaces_enabled"
	// SettingURI is how answers name spaces where the request does not say:
	// "ats" (and without the setting) or "at".
	SettingURI = "uri_scheme"
)

// The caps of a setting, in bytes.
const (
	maxSettingKey   = 128
	maxSettingValue = 4096
)

// spacesOn reports whether the methods of spaces are served.
func (s *Server) spacesOn() bool {
	if s.Settings == nil {
		return true
	}
	v, ok := s.Settings.Setting(SettingSpaces)
	return !ok || strings.EqualFold(v.Value, "true")
}

// dialect is that of a request which does not say.
func (s *Server) dialect() Dialect {
	if s.Settings != nil {
		switch v, _ := s.Settings.Setting(SettingURI); v.Value {
		case "at":
			return ATProto
		case "ats":
			return HappyView
		}
	}
	return s.Dialect
}

// ofSpaces reports whether the feature flag covers a method.
func ofSpaces(nsid string) bool {
	for _, family := range []string{"com.atproto.space.", "com.atproto.simplespace.", "dev.happyview.space.", "dev.kith.space.", "com.atproto.repo.uploadBlob"} {
		if strings.HasPrefix(nsid, family) {
			return true
		}
	}
	return false
}

type configAnswer struct {
	Version  string `json:"version"`
	Features struct {
		Spaces bool `json:"spaces"`
	} `json:"features"`
}

type featureFlag struct {
	Key         string `json:"key"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Enabled     bool   `json:"enabled"`
}

// config is what everybody may know of the node's features.
func (c *call) config() error {
	if err := c.verbs(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	out := configAnswer{Version: c.s.Version}
	out.Features.Spaces = c.s.spacesOn()
	c.answer(http.StatusOK, out)
	return nil
}

// admin serves the paths below /admin/ to the owner.
func (c *call) admin(path string) error {
	var err error
	if c.caller, err = c.s.identify(c.r); err != nil {
		return err
	}
	if !c.caller.full && !(c.isOwner() && c.caller.Scope.Node) {
		return faultf(errPermission, "Missing permission: settings:manage")
	}
	if c.s.Settings == nil {
		return faultf(errNotBuilt, "this node has no settings")
	}
	key, one := strings.CutPrefix(path, "settings/")
	switch {
	case path == "feature-flags":
		return c.featureFlags()
	case path == "settings":
		return c.listSettings()
	case one:
		return c.setting(key)
	}
	return faultf(errNSID, "nothing is served at this path")
}

func (c *call) featureFlags() error {
	if err := c.verbs(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	c.answer(http.StatusOK, []featureFlag{{
		SettingSpaces, "Permissioned Spaces", "The methods of spaces. Nodes sync on while they are off.", c.s.spacesOn(),
	}})
	return nil
}

func (c *call) listSettings() error {
	if err := c.verbs(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	all, err := c.s.Settings.Settings(c.ctx())
	if err != nil {
		return err
	}
	c.answer(http.StatusOK, orEmpty(all))
	return nil
}

func (c *call) setting(key string) error {
	switch key {
	case "logo", "db-info", "xrpc-proxy":
		return faultf(errNotBuilt, "%s: this node has none", key)
	}
	if !settingKey(key) {
		return faultf(errRequest, "key: want 1 to %d of a-z, A-Z, 0-9, '.', '_' and '-'", maxSettingKey)
	}
	if err := c.verbs(http.MethodPut, http.MethodDelete, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	switch c.r.Method {
	case http.MethodPut:
		return c.putSetting(key)
	case http.MethodDelete:
		if err := c.s.Settings.DeleteSetting(c.ctx(), key); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	v, ok := c.s.Settings.Setting(key)
	if !ok {
		return faultf(ErrSettingNotFound, "setting '%s' not found", key)
	}
	c.answer(http.StatusOK, v)
	return nil
}

func (c *call) putSetting(key string) error {
	buf, err := c.takeBody()
	if err != nil {
		return err
	}
	defer release(buf)
	value, err := c.required("value")
	switch {
	case err != nil:
		return err
	case len(value) > maxSettingValue:
		return faultf(errRequest, "value: at most %d bytes", maxSettingValue)
	case key == SettingURI && value != "at" && value != "ats":
		return faultf(errRequest, "value: want at or ats")
	}
	if err := c.s.Settings.SetSetting(c.ctx(), key, value); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func settingKey(key string) bool {
	if key == "" || len(key) > maxSettingKey {
		return false
	}
	for _, r := range key {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-') {
			return false
		}
	}
	return true
}
