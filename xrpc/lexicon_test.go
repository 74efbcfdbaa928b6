package xrpc

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
)

// lexicon checks JSON against the schemas of testdata/lexicons: everything
// that is required is there, and everything that is described has its type and
// format. Fields the schema does not know are ours to add.
type lexicon struct {
	t    *testing.T
	docs map[string]map[string]any // by NSID: its defs
}

func readLexicons(t *testing.T) lexicon {
	files, err := filepath.Glob("testdata/lexicons/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d lexicons: %v", len(files), err)
	}
	l := lexicon{t, map[string]map[string]any{}}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			ID   string         `json:"id"`
			Defs map[string]any `json:"defs"`
		}
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		l.docs[doc.ID] = doc.Defs
	}
	return l
}

// def resolves "nsid#name" or "#name" of nsid.
func (l lexicon) def(nsid, ref string) (string, map[string]any) {
	if rest, ok := strings.CutPrefix(ref, "#"); ok {
		ref = nsid + "#" + rest
	}
	id, name, _ := strings.Cut(ref, "#")
	d, ok := l.docs[id][name].(map[string]any)
	if !ok {
		l.t.Fatalf("no schema %s", ref)
	}
	return id, d
}

// output checks the answer of a method.
func (l lexicon) output(nsid string, v any) []string {
	_, main := l.def(nsid, nsid+"#main")
	schema, ok := at(main, "output.schema").(map[string]any)
	if !ok {
		return nil // the method promises no more than that it answers
	}
	return l.check(nsid, schema, v, "output")
}

func (l lexicon) check(nsid string, schema map[string]any, v any, path string) []string {
	wrong := func(format string, args ...any) []string {
		return []string{path + ": " + fmt.Sprintf(format, args...)}
	}
	switch kind := schema["type"]; kind {
	case "object":
		o, ok := v.(map[string]any)
		if !ok {
			return wrong("%T is no object", v)
		}
		return l.object(nsid, schema, o, path)
	case "array":
		list, ok := v.([]any)
		if !ok {
			return wrong("%T is no array", v)
		}
		var errs []string
		for i, e := range list {
			errs = append(errs, l.check(nsid, schema["items"].(map[string]any), e, fmt.Sprint(path, "[", i, "]"))...)
		}
		return errs
	case "ref":
		id, def := l.def(nsid, schema["ref"].(string))
		return l.check(id, def, v, path)
	case "union":
		name, _ := at(v, "$type").(string)
		for _, ref := range schema["refs"].([]any) {
			full := ref.(string)
			if strings.HasPrefix(full, "#") {
				full = nsid + full
			}
			if full == name {
				id, def := l.def(nsid, full)
				return l.check(id, def, v, path)
			}
		}
		return wrong("$type %q is in no union", name)
	case "string":
		s, ok := v.(string)
		if !ok {
			return wrong("%T is no string", v)
		}
		if err := checkFormat(fmt.Sprint(schema["format"]), s); err != nil {
			return wrong("%v", err)
		}
	case "integer":
		if n, ok := v.(float64); !ok || n != float64(int64(n)) {
			return wrong("%v is no integer", v)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return wrong("%v is no boolean", v)
		}
	case "bytes":
		s, ok := at(v, "$bytes").(string)
		if _, err := base64.RawStdEncoding.DecodeString(s); !ok || err != nil {
			return wrong("%v is no bytes", v)
		}
	case "unknown":
		if _, ok := v.(map[string]any); !ok {
			return wrong("%T is no object", v)
		}
	default:
		return wrong("schema type %v", kind)
	}
	return nil
}

func (l lexicon) object(nsid string, schema map[string]any, o map[string]any, path string) []string {
	var errs []string
	required, _ := schema["required"].([]any)
	nullable, _ := schema["nullable"].([]any)
	for _, name := range required {
		if _, ok := o[name.(string)]; !ok {
			errs = append(errs, path+": "+name.(string)+" is missing")
		}
	}
	props, _ := schema["properties"].(map[string]any)
	for name, sub := range props {
		v, ok := o[name]
		if !ok || v == nil && slices.Contains(nullable, any(name)) {
			continue
		}
		errs = append(errs, l.check(nsid, sub.(map[string]any), v, path+"."+name)...)
	}
	return errs
}

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
		if _, err = space.ParseURI(s); err == nil && !strings.HasPrefix(s, "at://") {
			err = fmt.Errorf("%s is not at://", s)
		}
	case "space-ref":
		if _, err = space.ParseID(s); err == nil && !strings.HasPrefix(s, "at://") {
			err = fmt.Errorf("%s is not at://", s)
		}
	case "<nil>":
	default:
		err = fmt.Errorf("format %s", format)
	}
	return err
}

// Every com.atproto method that is built and has a lexicon answers in its
// shape.
func TestLexiconShapes(t *testing.T) {
	l := readLexicons(t)
	asked := map[string][]string{
		"com.atproto.simplespace.createSpace":  {`{"type":"com.example.forum","skey":"x","policy":{"$type":"com.atproto.simplespace.defs#memberListPolicy"},"appAccess":{"$type":"com.atproto.simplespace.defs#open"}}`},
		"com.atproto.simplespace.getSpace":     {"space=$S"},
		"com.atproto.simplespace.listMembers":  {"space=$S", "space=$S&limit=1"},
		"com.atproto.simplespace.addMember":    {`{"space":"$S","did":"did:key:zQ3shnewcomer"}`, `{"space":"$S","did":"did:key:zQ3shother"}`},
		"com.atproto.simplespace.removeMember": {`{"space":"$S","did":"did:key:zQ3shother"}`, `{"space":"$S","did":"did:key:zQ3shstranger"}`},
		"com.atproto.simplespace.updateSpace":  {`{"space":"$S","policy":{"$type":"com.atproto.simplespace.defs#publicPolicy"}}`, `{"space":"$S"}`},
		"com.atproto.simplespace.deleteSpace":  {`{"space":"$S"}`},
		"com.atproto.space.createRecord":       {`{"space":"$S","repo":"did:key:zQ3showner","collection":"com.example.note","record":{}}`},
		"com.atproto.space.putRecord":          {`{"space":"$S","repo":"did:key:zQ3showner","collection":"com.example.note","rkey":"a","record":{}}`},
		"com.atproto.space.deleteRecord":       {`{"space":"$S","repo":"did:key:zQ3showner","collection":"com.example.note","rkey":"a"}`},
		"com.atproto.space.applyWrites": {`{"space":"$S","repo":"did:key:zQ3showner","writes":[
			{"$type":"com.atproto.space.applyWrites#create","collection":"com.example.note","value":{}},
			{"$type":"com.atproto.space.applyWrites#update","collection":"com.example.note","rkey":"a","value":{}},
			{"$type":"com.atproto.space.applyWrites#delete","collection":"com.example.note","rkey":"a"}]}`},
		"com.atproto.space.getRecord":   {"space=$S&repo=did:key:zQ3showner&collection=com.example.note&rkey=a"},
		"com.atproto.space.listRecords": {"space=$S&repo=did:key:zQ3showner", "space=$S&repo=did:key:zQ3showner&limit=1"},
		"com.atproto.space.listRepoOps": {"space=$S&repo=did:key:zQ3showner", "space=$S&repo=did:key:zQ3showner&limit=1"},
		"com.atproto.space.listRepos":   {"space=$S", "space=$S&limit=1"},
		"com.atproto.space.listSpaces":  {"", "limit=1"},
	}
	for nsid, m := range methods {
		if m.handle != nil && l.docs[nsid] != nil && asked[nsid] == nil {
			t.Errorf("%s has a lexicon and no test", nsid)
		}
	}
	for nsid, inputs := range asked {
		for _, in := range inputs {
			s := newServer(seeded(t))
			s.Dialect = ATProto
			w := ask(s, methods[nsid].verb, nsid, spelled(ATProto, methods[nsid].verb, in))
			if w.Code != 200 {
				t.Errorf("%s: %d %s", nsid, w.Code, w.Body)
				continue
			}
			for _, wrong := range l.output(nsid, any(decoded(t, w))) {
				t.Errorf("%s %s: %s", nsid, in, wrong)
			}
		}
	}
}

// The errors a lexicon names are names we use.
func TestLexiconErrors(t *testing.T) {
	ours := map[string]bool{"RepoTakendown": true, "RepoSuspended": true, "RepoDeactivated": true} // of accounts, which a node has not
	for _, r := range rows {
		ours[r.name] = true
	}
	for nsid, defs := range readLexicons(t).docs {
		errs, _ := at(defs, "main.errors").([]any)
		for _, e := range errs {
			if name := at(e, "name").(string); !ours[name] {
				t.Errorf("%s: %s is not in the table", nsid, name)
			}
		}
	}
}
