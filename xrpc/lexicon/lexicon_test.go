package lexicon

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

const note = `{"lexicon":1,"id":"com.example.note","defs":{
	"main":{"type":"record","record":{"type":"object","required":["text"],"nullable":["due"],"properties":{
		"text":{"type":"string","maxLength":10,"minLength":1},
		"kind":{"type":"string","enum":["a","b"]},
		"due":{"type":"string","format":"datetime"},
		"n":{"type":"integer","minimum":1,"maximum":5},
		"tags":{"type":"array","maxLength":2,"items":{"type":"string"}},
		"done":{"type":"boolean"},
		"sub":{"type":"ref","ref":"#sub"},
		"any":{"type":"unknown"},
		"hash":{"type":"bytes"},
		"link":{"type":"cid-link"},
		"pic":{"type":"blob","accept":["image/*"],"maxSize":100},
		"open":{"type":"union","refs":["#sub"]},
		"closed":{"type":"union","closed":true,"refs":["#sub"]},
		"fix":{"type":"string","const":"x"}
	}}},
	"sub":{"type":"object","required":["did"],"properties":{"did":{"type":"string","format":"did"}}}
}}`

func catalog(t *testing.T, docs ...string) (*Catalog, error) {
	t.Helper()
	files := fstest.MapFS{"README": {Data: []byte("no lexicon")}}
	for i, d := range docs {
		files[fmt.Sprint(i, ".json")] = &fstest.MapFile{Data: []byte(d)}
	}
	return Read(files)
}

func TestRecords(t *testing.T) {
	c, err := catalog(t, note)
	if err != nil {
		t.Fatal(err)
	}
	const cid = `"bafyreidykglsfhoixmivffc5uwhcgshx4j465xwqntbmu43nb2dzqwfvae"`
	for in, wrong := range map[string]string{
		`{"text":"x"}`:            "",
		`{"text":"x","more":1.5}`: "",
		`{}`:                      "record.text: is required",
		`[]`:                      "record: must be an object",
		`{"text":1}`:              "record.text: must be a string",
		`{"text":""}`:             "record.text: 0 bytes: at least 1",
		`{"text":"xxxxxxxxxxx"}`:  "record.text: 11 bytes: at most 10",
		`{"text":"x","kind":"c"}`: "record.kind:",
		`{"text":"x","kind":"b","done":true,"n":5,"any":{"x":[]},"fix":"x"}`: "",
		`{"text":"x","fix":"y"}`:                                 "record.fix:",
		`{"text":"x","due":null}`:                                "",
		`{"text":"x","kind":null}`:                               "record.kind:",
		`{"text":"x","due":"2030-01-01T00:00:00Z"}`:              "",
		`{"text":"x","due":"tomorrow"}`:                          "record.due:",
		`{"text":"x","n":1.5}`:                                   "record.n:",
		`{"text":"x","n":0}`:                                     "record.n: 0: at least 1",
		`{"text":"x","done":1}`:                                  "record.done:",
		`{"text":"x","tags":["a",1]}`:                            "record.tags[1]: must be a string",
		`{"text":"x","tags":["a","b","c"]}`:                      "record.tags: 3 elements: at most 2",
		`{"text":"x","tags":"a"}`:                                "record.tags: must be an array",
		`{"text":"x","sub":{}}`:                                  "record.sub.did: is required",
		`{"text":"x","sub":{"did":"did:plc:a"}}`:                 "",
		`{"text":"x","any":1}`:                                   "record.any: must be an object",
		`{"text":"x","hash":{"$bytes":"AAEC"}}`:                  "",
		`{"text":"x","hash":{"$bytes":"?"}}`:                     "record.hash:",
		`{"text":"x","hash":"AAEC"}`:                             "record.hash:",
		`{"text":"x","link":{"$link":` + cid + `}}`:              "",
		`{"text":"x","link":{"$link":"x"}}`:                      "record.link:",
		`{"text":"x","open":{"$type":"com.example.other#x"}}`:    "",
		`{"text":"x","open":{"$type":"#sub"}}`:                   "record.open.did:",
		`{"text":"x","open":{}}`:                                 "record.open: needs a $type",
		`{"text":"x","closed":{"$type":"com.example.other#x"}}`:  "record.closed:",
		`{"text":"x","closed":{"$type":"com.example.note#sub"}}`: "record.closed.did:",
		`{"text":"x","pic":{"$type":"blob","ref":{"$link":` + cid + `},"mimeType":"image/png","size":100}}`: "",
		`{"text":"x","pic":{"$type":"blob","ref":{"$link":` + cid + `},"mimeType":"text/html","size":100}}`: "record.pic:",
		`{"text":"x","pic":{"$type":"blob","ref":{"$link":` + cid + `},"mimeType":"image/png","size":101}}`: "record.pic: at most 100",
		`{"text":"x","pic":{"cid":"x"}}`: "record.pic: must be a blob",
	} {
		var v any
		if err := json.Unmarshal([]byte(in), &v); err != nil {
			t.Fatal(err)
		}
		known, errs := c.Record("com.example.note", v)
		text := fmt.Sprint(errs)
		if !known || (len(errs) == 0) != (wrong == "") || !strings.Contains(text, wrong) {
			t.Errorf("%s: %v, want %q", in, errs, wrong)
		}
	}
	if known, _ := c.Record("com.example.none", nil); known {
		t.Error("knows what is not there")
	}
	if known, _ := (*Catalog)(nil).Record("com.example.note", nil); known {
		t.Error("no catalog knows something")
	}
}

func TestBadDocuments(t *testing.T) {
	for name, docs := range map[string][]string{
		"no json":     {`{`},
		"version":     {`{"lexicon":2,"id":"a.b.c","defs":{"main":{"type":"token"}}}`},
		"no id":       {`{"lexicon":1,"defs":{"main":{"type":"token"}}}`},
		"no defs":     {`{"lexicon":1,"id":"a.b.c"}`},
		"twice":       {note, note},
		"dangling":    {`{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"ref","ref":"#none"}}}`},
		"other":       {`{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"object","properties":{"x":{"type":"array","items":{"type":"ref","ref":"x.y.z#q"}}}}}}`},
		"ref no text": {`{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"ref","ref":1}}}`},
		"no ref":      {`{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"ref"}}}`},
		"property":    {`{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"object","properties":{"x":1}}}}`},
		"required":    {`{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"object","required":[1]}}}`},
		"bad variant": {`{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"union","refs":["#none"]}}}`},
	} {
		if _, err := catalog(t, docs...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A schema that leads back to itself ends a check, not the process.
func TestLoops(t *testing.T) {
	c, err := catalog(t, `{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"record","record":{"type":"object","properties":{
		"x":{"type":"ref","ref":"#x"},"u":{"type":"union","refs":["#u"]},"deep":{"type":"ref","ref":"#deep"}}}},
		"x":{"type":"ref","ref":"#x"},"u":{"type":"union","refs":["#u"]},
		"deep":{"type":"object","properties":{"deep":{"type":"ref","ref":"#deep"}}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{`{"x":1}`, `{"u":{"$type":"#u"}}`} {
		var v any
		if err := json.Unmarshal([]byte(in), &v); err != nil {
			t.Fatal(err)
		}
		if _, errs := c.Record("a.b.c", v); len(errs) == 0 {
			t.Errorf("%s: taken", in)
		}
	}
	if _, errs := c.Record("a.b.c", map[string]any{"deep": map[string]any{"deep": map[string]any{}}}); len(errs) != 0 {
		t.Error(errs)
	}
	c, err = catalog(t, `{"lexicon":1,"id":"a.b.d","defs":{"main":{"type":"query","output":{"encoding":"application/json","schema":{"type":"ref","ref":"#x"}}},
		"x":{"type":"ref","ref":"#x"}}}`)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Unknown("a.b.d", map[string]any{"y": 1}); len(got) != 0 {
		t.Errorf("what leads nowhere describes nothing, and hides nothing: %v", got)
	}
}

// No document and no value ends the process.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(note), []byte(`{"text":"x","closed":{"$type":"com.example.note#sub"},"pic":{"$type":"blob"}}`))
	f.Add([]byte(`{"lexicon":1,"id":"com.example.note","defs":{"main":{"type":"record","record":{"type":"ref","ref":"#main"}}}}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, doc, value []byte) {
		c, err := Read(fstest.MapFS{"a.json": {Data: doc}})
		if err != nil {
			return
		}
		var v any
		if json.Unmarshal(value, &v) != nil {
			return
		}
		for _, nsid := range c.NSIDs() {
			c.Record(nsid, v)
			c.Input(nsid, v)
			c.Output(nsid, v)
			c.Unknown(nsid, v)
			c.Errors(nsid)
			c.Params(nsid, map[string][]string{"x": {"1"}, "text": {"a", "b"}})
		}
	})
}
