package xrpc

import (
	"encoding/base64"
	"encoding/json"
	"sort"
	"strings"

	"github.com/kithnet/kith/space"
)

// rawJSON is text that is JSON already.
func rawJSON(s string) json.RawMessage { return json.RawMessage(s) }

// quote is s as JSON text.
func quote(s string) string {
	b, _ := json.Marshal(s) // of a string it cannot fail
	return string(b)
}

// page cuts a page out of a list sorted by a unique key. The cursor, when
// there is more, stands for the key of the page's last row.
func page[T any](c *call, all []T, limit int, key func(T) string) ([]T, string, error) {
	after, err := c.cursor()
	if err != nil {
		return nil, "", err
	}
	if after != "" {
		all = all[sort.Search(len(all), func(i int) bool { return key(all[i]) > after }):]
	}
	if limit <= 0 || len(all) <= limit {
		return all, "", nil
	}
	return all[:limit], base64.RawURLEncoding.EncodeToString([]byte(key(all[limit-1]))), nil
}

// cursor reads the cursor of a list that page cuts. Empty is none.
func (c *call) cursor() (string, error) {
	s, ok, err := c.query.text("cursor")
	if err != nil || !ok || s == "" {
		return "", err
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) > space.MaxURI || !strings.HasPrefix(string(b), "did:") && !strings.HasPrefix(string(b), "ats://") {
		return "", ErrCursor
	}
	return string(b), nil
}
