package xrpc

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
)

// recordBody is the input of the methods that write one record.
type recordBody struct {
	Space      string          `json:"space"`
	Collection space.NSID      `json:"collection"`
	Key        space.RecordKey `json:"rkey,omitempty"`
	Record     space.Record    `json:"record,omitempty"`
	Swap       *space.CID      `json:"swapRecord,omitempty"`
}

// CreateRecord writes a record that must not exist; key "" lets the node draw
// one.
func (c *Client) CreateRecord(ctx context.Context, id space.ID, path space.Path, value space.Record) (Written, error) {
	return c.writeRecord(ctx, "com.atproto.space.createRecord", recordBody{id.String(), path.Collection, path.Key, value, nil})
}

// PutRecord writes a record whether or not it exists. With swap it must exist
// in that version.
func (c *Client) PutRecord(ctx context.Context, id space.ID, path space.Path, value space.Record, swap *space.CID) (Written, error) {
	return c.writeRecord(ctx, "com.atproto.space.putRecord", recordBody{id.String(), path.Collection, path.Key, value, swap})
}

func (c *Client) writeRecord(ctx context.Context, nsid string, in recordBody) (Written, error) {
	var out recordAnswer
	if err := c.procedure(ctx, nsid, in, &out); err != nil {
		return Written{}, err
	}
	ref, err := out.ref()
	if err != nil {
		return Written{}, err
	}
	rev, err := revOf(out.Rev)
	return Written{rev, []RecordRef{ref}}, err
}

// DeleteRecord fails with space.ErrRecordNotFound when there is none.
func (c *Client) DeleteRecord(ctx context.Context, id space.ID, path space.Path, swap *space.CID) (Written, error) {
	var out deleteAnswer
	in := recordBody{id.String(), path.Collection, path.Key, nil, swap}
	if err := c.procedure(ctx, "com.atproto.space.deleteRecord", in, &out); err != nil {
		return Written{}, err
	}
	rev, err := revOf(out.Rev)
	return Written{Rev: rev}, err
}

func (o recordAnswer) ref() (RecordRef, error) {
	uri, err := space.ParseURI(o.URI)
	if err != nil {
		return RecordRef{}, fmt.Errorf("answer: %w", err)
	}
	cid, err := space.ParseCID(o.CID)
	if err != nil {
		return RecordRef{}, fmt.Errorf("answer: %w", err)
	}
	return RecordRef{uri, cid}, nil
}

// revOf is 0 for no rev.
func revOf(s string) (space.TID, error) {
	if s == "" {
		return 0, nil
	}
	t, err := space.ParseTID(s)
	if err != nil {
		return 0, fmt.Errorf("answer: %w", err)
	}
	return t, nil
}

type writesBody struct {
	Space  string      `json:"space"`
	Writes []writeBody `json:"writes"`
	Swap   *string     `json:"swapCommit,omitempty"`
}

// writeBody has an action or a $type: see applyWrites for what they mean.
type writeBody struct {
	Action     string          `json:"action,omitempty"`
	Type       string          `json:"$type,omitempty"`
	Collection space.NSID      `json:"collection"`
	Key        space.RecordKey `json:"rkey,omitempty"`
	Value      space.Record    `json:"value,omitempty"`
	Swap       *space.CID      `json:"swapRecord,omitempty"`
}

// Write applies a batch of at most MaxWrites.
func (c *Client) Write(ctx context.Context, id space.ID, writes []Write, o WriteOptions) (Written, error) {
	in := writesBody{id.String(), make([]writeBody, len(writes)), o.SwapCommit}
	for i, w := range writes {
		b := writeBody{Collection: w.Path.Collection, Key: w.Path.Key, Value: w.Value, Swap: w.Swap}
		switch {
		case w.Action == ActionCreate:
			b.Action = "create"
		case w.Action == ActionPut:
			b.Action = "update"
		case w.Action == ActionUpdate:
			b.Type = variant + "update"
		case w.IfExists:
			b.Action = "delete"
		default:
			b.Type = variant + "delete"
		}
		in.Writes[i] = b
	}
	var out writesAnswer
	if err := c.procedure(ctx, "com.atproto.space.applyWrites", in, &out); err != nil {
		return Written{}, err
	}
	if len(out.Results) != len(writes) {
		return Written{}, fmt.Errorf("answer: %d results for %d writes", len(out.Results), len(writes))
	}
	done := Written{Records: make([]RecordRef, len(writes))}
	for i, r := range out.Results {
		if writes[i].Action == ActionDelete {
			done.Records[i].URI = space.URI{Space: id, Author: out.Repo, Path: writes[i].Path}
			continue
		}
		ref, err := recordAnswer{URI: r.URI, CID: r.CID}.ref()
		if err != nil {
			return Written{}, err
		}
		done.Records[i] = ref
	}
	var err error
	done.Rev, err = revOf(out.Rev)
	return done, err
}

// Record reads one record; author "" is explained at Records.
func (c *Client) Record(ctx context.Context, id space.ID, author space.DID, path space.Path) (Record, error) {
	v := url.Values{"space": {id.String()}, "collection": {string(path.Collection)}, "rkey": {string(path.Key)}}
	if author != "" {
		v.Set("repo", string(author))
	}
	var out recordAnswer
	if err := c.query(ctx, "com.atproto.space.getRecord", v, &out); err != nil {
		return Record{}, err
	}
	return out.record()
}

func (o recordAnswer) record() (Record, error) {
	ref, err := o.ref()
	if err != nil {
		return Record{}, err
	}
	r := Record{URI: ref.URI, CID: ref.CID}
	if r.Rev, err = revOf(o.Rev); err != nil {
		return Record{}, err
	}
	r.Value, err = value(o.Value)
	return r, err
}

// value is nil for no value.
func value(raw json.RawMessage) (space.Record, error) {
	if raw == nil {
		return nil, nil
	}
	r, err := space.RecordFromJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return r, nil
}

// Records lists one page of records. It asks in atproto's dialect, whose pages
// are the larger ones; the order is that of q.
func (c *Client) Records(ctx context.Context, id space.ID, q RecordQuery) ([]Record, string, error) {
	v := url.Values{"space": {id.AT()}}
	limitValue(v, q.Limit)
	for name, s := range map[string]string{"repo": string(q.Repo), "collection": string(q.Collection), "cursor": q.Cursor} {
		if s != "" {
			v.Set(name, s)
		}
	}
	if !q.Reverse {
		v.Set("reverse", "true")
	}
	if q.NoValues {
		v.Set("excludeValues", "true")
	}
	var out recordsAnswer
	if err := c.query(ctx, "com.atproto.space.listRecords", v, &out); err != nil {
		return nil, "", err
	}
	var all []Record
	for _, o := range out.Records {
		r, err := recordAnswer{URI: o.URI, CID: o.CID, Rev: o.Rev, Value: o.Value}.record()
		if err != nil {
			return nil, "", err
		}
		all = append(all, r)
	}
	return all, out.Cursor, nil
}

// RepoState reads one repo's head.
func (c *Client) RepoState(ctx context.Context, id space.ID, author space.DID) (RepoState, error) {
	v := url.Values{"space": {id.AT()}, "did": {string(author)}}
	var out stateAnswer
	if err := c.query(ctx, "com.atproto.space.getRepoState", v, &out); err != nil {
		return RepoState{}, err
	}
	if out.Rev == nil {
		return RepoState{}, fmt.Errorf("repo %s: %w", author, space.ErrRepoNotFound)
	}
	st := RepoState{DID: author, Count: out.Count, State: out.State}
	var err error
	if st.Rev, err = revOf(*out.Rev); err != nil {
		return RepoState{}, err
	}
	if err := fillBytes(st.Hash[:], out.Hash); err != nil {
		return RepoState{}, err
	}
	st.Commit, err = out.Commit.commit()
	return st, err
}

// commit reads a commit, nil from nil.
func (o *commitObject) commit() (*commit.Commit, error) {
	if o == nil {
		return nil, nil
	}
	c := &commit.Commit{Ver: o.Ver}
	rev, err := revOf(o.Rev)
	if err != nil {
		return nil, err
	}
	c.Rev = rev
	return c, errors.Join(fillBytes(c.Hash[:], o.Hash), fillBytes(c.IKM[:], o.IKM), fillBytes(c.Sig[:], o.Sig), fillBytes(c.MAC[:], o.MAC))
}

// fillBytes reads a byte string of either dialect that has exactly dst's
// length.
func fillBytes(dst []byte, raw json.RawMessage) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		var o struct {
			Bytes *string `json:"$bytes"`
		}
		if err := json.Unmarshal(raw, &o); err != nil || o.Bytes == nil {
			return errors.New("answer: bytes are missing")
		}
		text = *o.Bytes
	}
	text = strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(text)
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(b) != len(dst) {
		return fmt.Errorf("answer: want %d bytes in base64", len(dst))
	}
	copy(dst, b)
	return nil
}

// RepoOps reads one page of ops.
func (c *Client) RepoOps(ctx context.Context, id space.ID, author space.DID, q OpsQuery) (OpsPage, error) {
	v := url.Values{"space": {id.AT()}, "did": {string(author)}}
	limitValue(v, q.Limit)
	if q.Since != 0 {
		v.Set("since", q.Since.String())
	}
	if q.Cursor != "" {
		v.Set("cursor", q.Cursor)
	}
	if q.NoValues {
		v.Set("excludeValues", "true")
	}
	var out opsAnswer
	if err := c.query(ctx, "com.atproto.space.listRepoOps", v, &out); err != nil {
		return OpsPage{}, err
	}
	p := OpsPage{Cursor: out.Cursor, Pruned: out.Pruned}
	for _, o := range out.Ops {
		op, err := o.op()
		if err != nil {
			return OpsPage{}, err
		}
		p.Ops = append(p.Ops, op)
	}
	if out.State == nil {
		return p, nil
	}
	st := &RepoState{DID: author, Count: out.State.Count}
	var err error
	if st.Rev, err = revOf(out.State.Rev); err != nil {
		return OpsPage{}, err
	}
	if err := fillBytes(st.Hash[:], out.State.Hash); err != nil {
		return OpsPage{}, err
	}
	st.Commit, err = out.Commit.commit()
	p.State = st
	return p, err
}

func (o opObject) op() (op RepoOp, err error) {
	if op.Rev, err = revOf(o.Rev); err != nil {
		return op, err
	}
	op.Idx = o.Idx
	op.Path = space.Path{Collection: o.Collection, Key: o.Key}
	if o.CID != nil {
		op.CID = *o.CID
	}
	if o.Prev != nil {
		op.Prev = *o.Prev
	}
	op.Value, err = value(o.Value)
	return op, err
}

// Repos lists the authors by DID.
func (c *Client) Repos(ctx context.Context, id space.ID) ([]RepoInfo, error) {
	var out reposAnswer
	if err := c.query(ctx, "com.atproto.space.listRepos", url.Values{"space": {id.String()}}, &out); err != nil {
		return nil, err
	}
	var all []RepoInfo
	for _, o := range out.Repos {
		r := RepoInfo{DID: o.DID, Attribution: o.Attribution}
		var err error
		if r.Rev, err = revOf(o.Rev); err != nil {
			return nil, err
		}
		if err := fillBytes(r.Hash[:], o.Hash); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}
