package lexicon

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kithnet/kith/space"
)

// place is where in a value a check is, whose references it follows, and how
// many it has followed.
type place struct {
	nsid, path string
	depth      int
}

// maxDepth bounds the references that are followed: some lead back to
// themselves.
const maxDepth = 64

func (p place) field(name string) place  { return place{p.nsid, p.path + "." + name, p.depth} }
func (p place) at(i int) place           { return place{p.nsid, fmt.Sprint(p.path, "[", i, "]"), p.depth} }
func (p place) within(nsid string) place { return place{nsid, p.path, p.depth + 1} }

func (p place) wrong(format string, args ...any) []error {
	return []error{fmt.Errorf("%s: %s", p.path, fmt.Sprintf(format, args...))}
}

// check holds a value against a schema.
func (c *Catalog) check(p place, s schema, v any) []error {
	if p.depth > maxDepth {
		return p.wrong("more than %d references within each other", maxDepth)
	}
	switch kind := s["type"]; kind {
	case "object", "record":
		if inner, ok := s["record"].(map[string]any); ok {
			s = inner
		}
		o, ok := v.(map[string]any)
		if !ok {
			return p.wrong("must be an object")
		}
		return c.checkObject(p, s, o)
	case "array":
		return c.checkArray(p, s, v)
	case "ref":
		id, def := c.resolve(p.nsid, s["ref"].(string))
		return c.check(p.within(id), def, v)
	case "union":
		return c.checkUnion(p, s, v)
	case "string", "token":
		text, ok := v.(string)
		if !ok {
			return p.wrong("must be a string")
		}
		return checkString(p, s, text)
	case "integer":
		return checkInteger(p, s, v)
	case "boolean":
		if _, ok := v.(bool); !ok {
			return p.wrong("must be true or false")
		}
	case "bytes":
		text, ok := single(v, "$bytes")
		if _, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "=")); !ok || err != nil {
			return p.wrong("must be {\"$bytes\"}")
		}
	case "cid-link":
		text, ok := single(v, "$link")
		if _, err := space.ParseCID(text); !ok || err != nil {
			return p.wrong("must be {\"$link\"} with a CID")
		}
	case "blob":
		return checkBlob(p, s, v)
	case "unknown":
		if _, ok := v.(map[string]any); !ok {
			return p.wrong("must be an object")
		}
	case "null":
		if v != nil {
			return p.wrong("must be null")
		}
	default:
		return p.wrong("the schema's type %v is not known", kind)
	}
	return nil
}

// single is the text of an object that has this member alone.
func single(v any, key string) (string, bool) {
	o, ok := v.(map[string]any)
	text, isText := o[key].(string)
	return text, ok && isText && len(o) == 1
}

func (c *Catalog) checkObject(p place, s schema, o map[string]any) []error {
	var errs []error
	required, _ := s["required"].([]any)
	nullable, _ := s["nullable"].([]any)
	for _, name := range required {
		if _, ok := o[name.(string)]; !ok {
			errs = append(errs, p.field(name.(string)).wrong("is required")...)
		}
	}
	props, _ := s["properties"].(map[string]any)
	for name, sub := range props {
		v, ok := o[name]
		if !ok || v == nil && slices.Contains(nullable, any(name)) {
			continue
		}
		errs = append(errs, c.check(p.field(name), sub.(map[string]any), v)...)
	}
	return errs
}

func (c *Catalog) checkArray(p place, s schema, v any) []error {
	list, ok := v.([]any)
	if !ok {
		return p.wrong("must be an array")
	}
	if err := within(s, "minLength", "maxLength", len(list)); err != nil {
		return p.wrong("%v elements: %v", len(list), err)
	}
	items, _ := s["items"].(map[string]any)
	var errs []error
	for i, e := range list {
		errs = append(errs, c.check(p.at(i), items, e)...)
	}
	return errs
}

// checkUnion finds the variant by $type. An open union takes others, too.
func (c *Catalog) checkUnion(p place, s schema, v any) []error {
	o, ok := v.(map[string]any)
	if !ok {
		return p.wrong("must be an object")
	}
	name, _ := o["$type"].(string)
	if name == "" {
		return p.wrong("needs a $type")
	}
	refs, _ := s["refs"].([]any)
	wantID, wantDef := cutRef(p.nsid, name)
	for _, ref := range refs {
		if id, def := cutRef(p.nsid, ref.(string)); id == wantID && def == wantDef {
			id, sub := c.resolve(p.nsid, ref.(string))
			return c.check(p.within(id), sub, v)
		}
	}
	if closed, _ := s["closed"].(bool); closed {
		return p.wrong("$type %q is not in the union", name)
	}
	return nil
}

func cutRef(nsid, ref string) (id, name string) {
	id, name, _ = strings.Cut(strings.TrimPrefix(ref, "lex:"), "#")
	if id == "" {
		id = nsid
	}
	if name == "" {
		name = "main"
	}
	return id, name
}

func checkString(p place, s schema, text string) []error {
	if err := within(s, "minLength", "maxLength", len(text)); err != nil {
		return p.wrong("%d bytes: %v", len(text), err)
	}
	// Graphemes are not counted: there are never more of them than runes, so
	// this refuses only what the other rule would refuse too.
	if most, ok := s["maxGraphemes"].(float64); ok && utf8.RuneCountInString(text) > int(most)*maxRunesPerGrapheme {
		return p.wrong("at most %v graphemes", most)
	}
	if list, ok := s["enum"].([]any); ok && !slices.Contains(list, any(text)) {
		return p.wrong("%q is none of %v", text, list)
	}
	if want, ok := s["const"].(string); ok && want != text {
		return p.wrong("must be %q", want)
	}
	if format, ok := s["format"].(string); ok {
		if err := checkFormat(format, text); err != nil {
			return p.wrong("%v", err)
		}
	}
	return nil
}

// maxRunesPerGrapheme is what one family emoji has, skin tones included.
const maxRunesPerGrapheme = 11

func checkInteger(p place, s schema, v any) []error {
	n, ok := v.(float64)
	if !ok || n != float64(int64(n)) {
		return p.wrong("must be an integer")
	}
	if err := within(s, "minimum", "maximum", int(n)); err != nil {
		return p.wrong("%v: %v", int(n), err)
	}
	if list, ok := s["enum"].([]any); ok && !slices.Contains(list, v) {
		return p.wrong("%v is none of %v", n, list)
	}
	if want, ok := s["const"].(float64); ok && want != n {
		return p.wrong("must be %v", want)
	}
	return nil
}

// within reports which bound of a schema n breaks.
func within(s schema, least, most string, n int) error {
	if lo, ok := s[least].(float64); ok && n < int(lo) {
		return fmt.Errorf("at least %v", lo)
	}
	if hi, ok := s[most].(float64); ok && n > int(hi) {
		return fmt.Errorf("at most %v", hi)
	}
	return nil
}

func checkBlob(p place, s schema, v any) []error {
	o, _ := v.(map[string]any)
	ref, hasRef := single(o["ref"], "$link")
	media, hasMedia := o["mimeType"].(string)
	size, hasSize := o["size"].(float64)
	if _, err := space.ParseCID(ref); o["$type"] != "blob" || !hasRef || !hasMedia || !hasSize || err != nil {
		return p.wrong("must be a blob: $type, ref, mimeType and size")
	}
	if most, ok := s["maxSize"].(float64); ok && size > most {
		return p.wrong("at most %v bytes", most)
	}
	accept, _ := s["accept"].([]any)
	if len(accept) == 0 {
		return nil
	}
	for _, a := range accept {
		pattern, _ := a.(string)
		if front, ok := strings.CutSuffix(pattern, "*"); pattern == media || ok && strings.HasPrefix(media, front) {
			return nil
		}
	}
	return p.wrong("%q is none of %v", media, accept)
}

// checkFormat checks a string format.
func checkFormat(format, s string) error {
	var err error
	switch format {
	case "did":
		_, err = space.ParseDID(s)
	case "nsid":
		_, err = space.ParseNSID(s)
	case "record-key":
		_, err = space.ParseRecordKey(s)
	case "tid":
		_, err = space.ParseTID(s)
	case "cid":
		_, err = space.ParseCID(s)
	case "at-uri":
		err = checkURI(s)
	case "space-ref":
		_, err = space.ParseID(s)
	case "datetime":
		_, err = time.Parse(time.RFC3339Nano, s)
	case "uri":
		scheme, rest, ok := strings.Cut(s, ":")
		if !ok || scheme == "" || rest == "" || strings.ContainsAny(s, " \t\r\n") {
			err = fmt.Errorf("%q is no uri", s)
		}
	case "at-identifier", "handle", "language":
		if s == "" || strings.ContainsAny(s, " \t\n") {
			err = fmt.Errorf("%q is no %s", s, format)
		}
	default:
		err = fmt.Errorf("the format %s is not known", format)
	}
	return err
}

// checkURI takes a record of a space, or of a public repo.
func checkURI(s string) error {
	if _, err := space.ParseURI(s); err == nil {
		return nil
	}
	if _, err := space.ParseID(s); err == nil {
		return nil
	}
	rest, ok := strings.CutPrefix(s, "at://")
	if !ok || rest == "" || strings.ContainsAny(rest, " #?") {
		return fmt.Errorf("%q is no at-uri", s)
	}
	return nil
}
