package xrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"

	"github.com/kithnet/kith/space"
)

// MaxWrites is how many writes a batch may have.
const MaxWrites = space.MaxOps

// recordAnswer is one version of a record.
type recordAnswer struct {
	URI    string          `json:"uri"`
	CID    string          `json:"cid"`
	Rev    string          `json:"rev,omitempty"`
	Status string          `json:"validationStatus,omitempty"`
	Value  json.RawMessage `json:"value,omitempty"`
}

// validation is what a request wants of lexicons.
type validation uint8

const (
	validateKnown validation = iota // hold records to the lexicons that are known
	validateAll                     // and refuse those of which none is
	validateNone
)

func (c *call) validation() (validation, error) {
	v, given, err := c.body.boolean("validate")
	switch {
	case err != nil:
		return validateNone, err
	case v:
		return validateAll, nil
	case given:
		return validateNone, nil
	}
	return validateKnown, nil
}

// validate holds a write to the lexicon of its collection and answers the
// validationStatus: "valid", "unknown", or "" where nobody asked.
func (c *call) validate(v validation, w Write) (string, error) {
	if v == validateNone || w.Value == nil {
		return "", nil
	}
	nsid := string(w.Path.Collection)
	if c.s.Lexicons == nil || c.s.Lexicons.Kind(nsid) != "record" {
		if v == validateAll {
			return "", faultf(errRequest, "validate: this node knows no lexicon of %s; leave it out or false", nsid)
		}
		return "unknown", nil
	}
	text, err := w.Value.JSON()
	if err != nil {
		return "", faultf(errInternal, "record: %v", err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return "", faultf(errInternal, "record: %v", err)
	}
	if _, errs := c.s.Lexicons.Record(nsid, value); len(errs) > 0 {
		return "", faultf(errRequest, "%v", errs[0])
	}
	return "valid", nil
}

// record reads the record of a write into collection.
func (c *call) record(o object, field string, collection space.NSID) (space.Record, error) {
	raw, ok := o.raw(field)
	if !ok {
		return nil, missing(field)
	}
	if raw[0] != '{' {
		return nil, faultf(errShape, "%s: must be an object", field)
	}
	rec, err := space.RecordFromJSON(raw)
	if err != nil {
		return nil, inField(field, err)
	}
	if c.d == ATProto {
		if err := noLegacyBlob(raw, field); err != nil {
			return nil, err
		}
	}
	switch typ := rec.Type(); {
	case typ == string(collection):
	case typ != "":
		return nil, faultf(errRequest, "%s.$type: is %q, the collection is %s", field, clip(typ), collection)
	case c.d == ATProto:
		return typed(raw, field, collection)
	}
	return rec, nil
}

// noLegacyBlob refuses blob objects of atproto's first form, {cid, mimeType} and
// nothing else, as the reference does: nothing would keep their bytes.
func noLegacyBlob(raw []byte, field string) error {
	if !bytes.Contains(raw, []byte(`"mimeType"`)) {
		return nil
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return faultf(errInternal, "record: %v", err)
	}
	if cid := legacyBlob(v); cid != "" {
		return faultf(errRequest, "%s: a blob of the old form (%s); refer to it by a blob object as uploadBlob answers it", field, clip(cid))
	}
	return nil
}

// legacyBlob is the CID of the first such object in a value of JSON.
func legacyBlob(v any) string {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if cid := legacyBlob(e); cid != "" {
				return cid
			}
		}
	case map[string]any:
		cid, isCID := v["cid"].(string)
		if _, isType := v["mimeType"].(string); isCID && isType && len(v) == 2 {
			if _, err := space.ParseCID(cid); err == nil {
				return cid
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if cid := legacyBlob(v[name]); cid != "" {
				return cid
			}
		}
	}
	return ""
}

// typed gives a record without $type its collection's, as atproto does.
func typed(raw []byte, field string, collection space.NSID) (space.Record, error) {
	o, err := parseObject(raw)
	if err != nil {
		return nil, err
	}
	if o.has("$type") {
		return nil, faultf(errRequest, "%s.$type: must be the collection, %s", field, collection)
	}
	text := `{"$type":` + strconv.Quote(string(collection))
	if len(o.members) > 0 {
		text += ","
	}
	rec, err := space.RecordFromJSON(append([]byte(text), raw[1:]...))
	if err != nil {
		return nil, inField(field, err)
	}
	return rec, nil
}

// swapRecord reads the CID the record must have.
func swapRecord(in fields) (*space.CID, error) {
	cid, ok, err := optional(in, "swapRecord", space.ParseCID)
	if err != nil || !ok {
		return nil, err
	}
	return &cid, nil
}

// create reads a create: rkey is optional.
func (c *call) create(o object, field string) (Write, error) {
	in := *c
	in.in = o
	collection, err := in.collection()
	if err != nil {
		return Write{}, err
	}
	key, _, err := optional(o, "rkey", space.ParseRecordKey)
	if err != nil {
		return Write{}, err
	}
	rec, err := c.record(o, field, collection)
	return Write{Action: ActionCreate, Path: space.Path{Collection: collection, Key: key}, Value: rec}, err
}

// change reads a write of a path that is named: put, update or delete.
func (c *call) change(o object, action Action, field string) (w Write, err error) {
	in := *c
	in.in = o
	w.Action = action
	if w.Path, err = in.path(); err != nil {
		return w, err
	}
	if w.Swap, err = swapRecord(o); err != nil || action == ActionDelete {
		return w, err
	}
	w.Value, err = c.record(o, field, w.Path.Collection)
	return w, err
}

// writeOne applies a single write.
func (c *call) writeOne(v validation, read func() (Write, error)) (Written, string, error) {
	id, err := c.spaceID()
	if err != nil {
		return Written{}, "", err
	}
	if err := c.ownRepo(); err != nil {
		return Written{}, "", err
	}
	w, err := read()
	if err != nil {
		return Written{}, "", err
	}
	status, err := c.validate(v, w)
	if err != nil {
		return Written{}, "", err
	}
	out, err := c.s.Records.Write(c.ctx(), id, []Write{w}, WriteOptions{})
	if err == nil && len(out.Records) != 1 {
		err = faultf(errInternal, "write: %d results for one write", len(out.Records))
	}
	return out, status, err
}

func createRecord(c *call) (any, error) {
	return c.writeRecord(func() (Write, error) { return c.create(c.body, "record") })
}

func putRecord(c *call) (any, error) {
	return c.writeRecord(func() (Write, error) { return c.change(c.body, ActionPut, "record") })
}

func (c *call) writeRecord(read func() (Write, error)) (any, error) {
	v, err := c.validation()
	if err != nil {
		return nil, err
	}
	out, status, err := c.writeOne(v, read)
	if err != nil {
		return nil, err
	}
	ref := out.Records[0]
	return made{recordAnswer{URI: c.d.recordURI(ref.URI), CID: ref.CID.String(), Rev: revText(out.Rev), Status: status}}, nil
}

// revText is "" for no rev.
func revText(t space.TID) string {
	if t == 0 {
		return ""
	}
	return t.String()
}

type deleteAnswer struct {
	Success bool   `json:"success"`
	Rev     string `json:"rev,omitempty"`
}

// deleteRecord of an absent record is an error in HappyView and fine in
// atproto.
func deleteRecord(c *call) (any, error) {
	out, _, err := c.writeOne(validateNone, func() (Write, error) {
		w, err := c.change(c.body, ActionDelete, "")
		w.IfExists = c.d == ATProto && w.Swap == nil
		return w, err
	})
	if err != nil {
		return nil, err
	}
	return deleteAnswer{true, revText(out.Rev)}, nil
}

// showRecord shows a record.
func showRecord(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	author, err := c.author()
	if err != nil {
		return nil, err
	}
	path, err := c.path()
	if err != nil {
		return nil, err
	}
	rec, err := c.find(id, author, path)
	if err != nil {
		return nil, err
	}
	out := recordAnswer{URI: c.d.recordURI(rec.URI), CID: rec.CID.String(), Rev: revText(rec.Rev)}
	if out.Value, err = rec.Value.JSON(); err != nil {
		return nil, faultf(errInternal, "record: %v", err)
	}
	return out, nil
}

// find reads a record. Without a repo it is the caller's, or else the only one
// there is at the path.
func (c *call) find(id space.ID, author space.DID, path space.Path) (Record, error) {
	author, err := c.readable(author)
	if err != nil {
		return Record{}, err
	}
	if author == "" && !c.anonymous {
		rec, err := c.s.Records.Record(c.ctx(), id, c.caller.DID, path)
		if !errors.Is(err, space.ErrRecordNotFound) {
			return rec, err
		}
	}
	return c.s.Records.Record(c.ctx(), id, author, path)
}

type listedRecord struct {
	URI        string          `json:"uri"`
	DID        space.DID       `json:"did"`
	Collection space.NSID      `json:"collection"`
	Key        space.RecordKey `json:"rkey"`
	CID        string          `json:"cid"`
	Rev        string          `json:"rev,omitempty"`
	Value      json.RawMessage `json:"value,omitempty"`
}

type recordsAnswer struct {
	Records []listedRecord `json:"records"`
	Cursor  string         `json:"cursor,omitempty"`
}

// listRecords lists ascending in HappyView, descending in atproto; reverse
// turns either.
func listRecords(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	q, err := c.recordQuery()
	if err != nil {
		return nil, err
	}
	recs, cursor, err := c.s.Records.Records(c.ctx(), id, q)
	if err != nil {
		return nil, err
	}
	out := recordsAnswer{make([]listedRecord, len(recs)), cursor}
	for i, r := range recs {
		p := r.URI.Path
		row := listedRecord{c.d.recordURI(r.URI), r.URI.Author, p.Collection, p.Key, r.CID.String(), revText(r.Rev), nil}
		if r.Value != nil {
			if row.Value, err = r.Value.JSON(); err != nil {
				return nil, faultf(errInternal, "record %s: %v", p, err)
			}
		}
		out.Records[i] = row
	}
	return out, nil
}

func (c *call) recordQuery() (q RecordQuery, err error) {
	most := 100
	if c.d == ATProto {
		most = 1000
	}
	if q.Limit, err = c.limit(50, most); err != nil {
		return q, err
	}
	if q.Repo, err = c.author(); err != nil {
		return q, err
	}
	if q.Repo, err = c.readable(q.Repo); err != nil {
		return q, err
	}
	if q.Collection, _, err = optional(c.in, "collection", space.ParseNSID); err != nil {
		return q, err
	}
	if q.Cursor, _, err = c.query.text("cursor"); err != nil {
		return q, err
	}
	if q.Reverse, err = c.query.boolean("reverse"); err != nil {
		return q, err
	}
	q.Reverse = q.Reverse != (c.d == ATProto)
	q.NoValues, err = c.query.boolean("excludeValues")
	return q, err
}
