package xrpc

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
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

// pageByDID answers lists of people: sorted by DID, all of it to HappyView's
// clients, who know no pages, unless they ask for one.
func pageByDID[T any](c *call, list func(context.Context, space.ID) ([]T, error), did func(T) space.DID) ([]T, string, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, "", err
	}
	standard := 100
	if c.d == HappyView {
		standard = 0
	}
	limit, err := c.limit(standard, 1000)
	if err != nil {
		return nil, "", err
	}
	all, err := list(c.ctx(), id)
	if err != nil {
		return nil, "", err
	}
	key := func(t T) string { return string(did(t)) }
	return page(c, sorted(all, key), limit, key)
}

// sorted is a copy of a list in the order of a key.
func sorted[T any](all []T, key func(T) string) []T {
	return slices.SortedFunc(slices.Values(all), func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}

// rowCursor begins the keys of lists that are neither of people nor of spaces.
const rowCursor = "row:"

// cursor reads the cursor of a list that page cuts. Empty is none.
func (c *call) cursor() (string, error) {
	s, ok, err := c.query.text("cursor")
	if err != nil || !ok || s == "" {
		return "", err
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) > space.MaxURI || !slices.ContainsFunc([]string{"did:", "ats://", rowCursor}, func(kind string) bool { return strings.HasPrefix(string(b), kind) }) {
		return "", ErrCursor
	}
	return string(b), nil
}
