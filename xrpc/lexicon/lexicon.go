// Package lexicon reads atproto's lexicon documents and checks JSON values
// against them: inputs, outputs and parameters of methods, and records.
//
// It promises to name every place that is wrong, by its path, and to say
// nothing of what a schema does not describe: lexicons are open, so a field
// that a schema has not is no fault. Unknown lists those fields for who wants
// none.
//
// It refuses documents that are not lexicon version 1, and references to
// nothing. It fetches nothing: what is not in the catalog is not known.
//
// A Catalog is safe for concurrent use. Values are what encoding/json makes of
// JSON in an any.
package lexicon

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Catalog holds documents by NSID.
type Catalog struct {
	docs map[string]map[string]schema
}

// schema is one definition as it stands in the document.
type schema map[string]any

// Read reads all documents of a file system whose names end in .json.
func Read(fsys fs.FS) (*Catalog, error) {
	c := &Catalog{docs: map[string]map[string]schema{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".json" {
			return err
		}
		text, err := fs.ReadFile(fsys, name)
		if err == nil {
			err = c.add(text)
		}
		if err != nil {
			return fmt.Errorf("lexicon %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, c.checkRefs()
}

func (c *Catalog) add(text []byte) error {
	var doc struct {
		Lexicon int               `json:"lexicon"`
		ID      string            `json:"id"`
		Defs    map[string]schema `json:"defs"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	switch {
	case doc.Lexicon != 1:
		return fmt.Errorf("lexicon %d: want version 1", doc.Lexicon)
	case doc.ID == "" || len(doc.Defs) == 0:
		return fmt.Errorf("id and defs are required")
	case c.docs[doc.ID] != nil:
		return fmt.Errorf("%s stands in two files", doc.ID)
	}
	c.docs[doc.ID] = doc.Defs
	return nil
}

// checkRefs finds references to nothing, and types that this package does not
// know.
func (c *Catalog) checkRefs() error {
	for _, nsid := range c.NSIDs() {
		for name, def := range c.docs[nsid] {
			if err := c.checkDef(nsid, def); err != nil {
				return fmt.Errorf("lexicon %s#%s: %w", nsid, name, err)
			}
		}
	}
	return nil
}

// checkDef makes sure of what the checks of values take for granted.
func (c *Catalog) checkDef(nsid string, s schema) error {
	refs, _ := s["refs"].([]any)
	if ref, ok := s["ref"]; ok || s["type"] == "ref" {
		refs = append(slices.Clone(refs), ref)
	}
	for _, ref := range refs {
		text, ok := ref.(string)
		if _, def := c.resolve(nsid, text); !ok || def == nil {
			return fmt.Errorf("no definition %q", text)
		}
	}
	for _, key := range []string{"required", "nullable"} {
		list, _ := s[key].([]any)
		for _, name := range list {
			if _, ok := name.(string); !ok {
				return fmt.Errorf("%s: want names", key)
			}
		}
	}
	props, _ := s["properties"].(map[string]any)
	for name, sub := range props {
		if _, ok := sub.(map[string]any); !ok {
			return fmt.Errorf("property %s: want a schema", name)
		}
	}
	for _, v := range s {
		if err := c.checkBelow(nsid, v); err != nil {
			return err
		}
	}
	return nil
}

func (c *Catalog) checkBelow(nsid string, v any) error {
	switch x := v.(type) {
	case map[string]any:
		return c.checkDef(nsid, x)
	case []any:
		for _, e := range x {
			if err := c.checkBelow(nsid, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// NSIDs lists the documents.
func (c *Catalog) NSIDs() []string { return slices.Sorted(maps.Keys(c.docs)) }

// Kind is the type of a document's main definition: "query", "procedure",
// "subscription", "record", another, or "" if there is none.
func (c *Catalog) Kind(nsid string) string {
	kind, _ := c.docs[nsid]["main"]["type"].(string)
	return kind
}

// Errors are the names of the errors that a method lists.
func (c *Catalog) Errors(nsid string) []string {
	list, _ := c.docs[nsid]["main"]["errors"].([]any)
	var names []string
	for _, e := range list {
		o, _ := e.(map[string]any)
		if name, ok := o["name"].(string); ok {
			names = append(names, name)
		}
	}
	return names
}

// Input checks the body of a procedure, Output the answer of a method, both
// JSON. A method without a schema takes everything.
func (c *Catalog) Input(nsid string, v any) []error { return c.side(nsid, "input", v) }

// Output: see Input.
func (c *Catalog) Output(nsid string, v any) []error { return c.side(nsid, "output", v) }

func (c *Catalog) side(nsid, side string, v any) []error {
	s := c.sideSchema(nsid, side)
	if s == nil {
		return nil
	}
	return c.check(place{nsid: nsid, path: side}, s, v)
}

func (c *Catalog) sideSchema(nsid, side string) schema {
	body, _ := c.docs[nsid]["main"][side].(map[string]any)
	s, _ := body["schema"].(map[string]any)
	return s
}

// Params checks the parameters of a query, each as text, as the URL has them.
func (c *Catalog) Params(nsid string, v map[string][]string) []error {
	s, _ := c.docs[nsid]["main"]["parameters"].(map[string]any)
	if s == nil {
		return nil
	}
	o := map[string]any{}
	props, _ := s["properties"].(map[string]any)
	for name, texts := range v {
		prop, _ := props[name].(map[string]any)
		if prop != nil && len(texts) > 0 {
			o[name] = paramValue(prop, texts)
		}
	}
	object := maps.Clone(schema(s))
	object["type"] = "object"
	return c.check(place{nsid: nsid, path: "parameters"}, object, o)
}

// paramValue is a parameter as the schema's type has it, or its text.
func paramValue(prop map[string]any, texts []string) any {
	if prop["type"] == "array" {
		items, _ := prop["items"].(map[string]any)
		list := make([]any, len(texts))
		for i, t := range texts {
			list[i] = paramValue(items, []string{t})
		}
		return list
	}
	var v any
	if kind := prop["type"]; (kind == "integer" || kind == "boolean") && json.Unmarshal([]byte(texts[0]), &v) == nil {
		return v
	}
	return texts[0]
}

// Record checks a record of the collection. known is false if there is no
// lexicon of it.
func (c *Catalog) Record(nsid string, v any) (known bool, errs []error) {
	if c == nil || c.Kind(nsid) != "record" {
		return false, nil
	}
	s, _ := c.docs[nsid]["main"]["record"].(map[string]any)
	return true, c.check(place{nsid: nsid, path: "record"}, s, v)
}

// Unknown lists the fields of an output that its schema does not describe.
func (c *Catalog) Unknown(nsid string, v any) []string {
	s := c.sideSchema(nsid, "output")
	if s == nil {
		return nil
	}
	return c.unknown(place{nsid: nsid, path: "output"}, s, v)
}

func (c *Catalog) unknown(p place, s schema, v any) []string {
	if p.depth > maxDepth {
		return nil
	}
	switch s["type"] {
	case "ref":
		id, def := c.resolve(p.nsid, s["ref"].(string))
		return c.unknown(p.within(id), def, v)
	case "array":
		var out []string
		list, _ := v.([]any)
		items, _ := s["items"].(map[string]any)
		for i, e := range list {
			out = append(out, c.unknown(p.at(i), items, e)...)
		}
		return out
	case "object":
		o, _ := v.(map[string]any)
		props, _ := s["properties"].(map[string]any)
		if props == nil {
			return nil // a map of anything
		}
		var out []string
		for _, name := range slices.Sorted(maps.Keys(o)) {
			prop, ok := props[name].(map[string]any)
			if !ok {
				out = append(out, p.field(name).path)
				continue
			}
			out = append(out, c.unknown(p.field(name), prop, o[name])...)
		}
		return out
	}
	return nil
}

// resolve finds "nsid#name", "nsid" or "#name" of nsid.
func (c *Catalog) resolve(nsid, ref string) (string, schema) {
	id, name, ok := strings.Cut(strings.TrimPrefix(ref, "lex:"), "#")
	if id == "" {
		id = nsid
	}
	if !ok {
		name = "main"
	}
	return id, c.docs[id][name]
}
