package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type recordCmd struct {
	Create recordCreateCmd `cmd:"" help:"Write a new record under a drawn key."`
	Put    recordPutCmd    `cmd:"" help:"Write a record, new or not."`
	Get    recordGetCmd    `cmd:"" help:"Read a record."`
	List   recordListCmd   `cmd:"" help:"List records."`
	Delete recordDeleteCmd `cmd:"" help:"Delete a record of one's own."`
	Apply  recordApplyCmd  `cmd:"" help:"Carry out a file of writes."`
	Watch  recordWatchCmd  `cmd:"" help:"Print changes as they come, until interrupted."`
}

// recordView is a version of a record in JSON.
type recordView struct {
	URI   space.URI    `json:"uri"`
	CID   string       `json:"cid,omitempty"`
	Rev   string       `json:"rev,omitempty"`
	Value space.Record `json:"value,omitempty"`
}

func recordOf(r xrpc.Record) recordView {
	v := recordView{URI: r.URI, CID: r.CID.String(), Value: r.Value}
	if r.Rev != 0 {
		v.Rev = r.Rev.String()
	}
	return v
}

// maxInput bounds the JSON of one record; the node takes no more either.
const maxInput = xrpc.MaxBody

// readRecord reads a record from the command line, or from stdin for "-".
func (a *app) readRecord(text string) (space.Record, error) {
	b := []byte(text)
	if text == "-" {
		var err error
		if b, err = io.ReadAll(io.LimitReader(a.stdin, maxInput+1)); err != nil {
			return nil, fmt.Errorf("read the record from stdin: %w", err)
		}
	}
	if len(b) > maxInput {
		return nil, fmt.Errorf("the record is over %d bytes of JSON: %w", maxInput, space.ErrTooLarge)
	}
	return parseRecord(b)
}

func parseRecord(b []byte) (space.Record, error) {
	if b = bytes.TrimSpace(b); len(b) == 0 || b[0] != '{' {
		return nil, usage(`give an object such as '{"text":"hello"}', or - to read it from stdin`, "the record is not a JSON object")
	}
	r, err := space.RecordFromJSON(b)
	if err != nil {
		return nil, usage("numbers in records are integers; a fraction goes into text", "%s", reason(err))
	}
	return r, nil
}

type recordCreateCmd struct {
	Space      string     `arg:"" help:"URI or petname."`
	Collection space.NSID `arg:"" help:"Such as com.example.note."`
	JSON       string     `arg:"" help:"The record as JSON, or - for stdin." name:"json"`
}

// Run writes a record under a new key.
func (c *recordCreateCmd) Run(a *app) error {
	return a.write(c.Space, c.JSON, func(api *xrpc.Client, id space.ID, value space.Record) (xrpc.Written, error) {
		return api.CreateRecord(a.ctx, id, space.Path{Collection: c.Collection}, value)
	})
}

// write reads a record and the space it goes to, and answers what do wrote.
func (a *app) write(name, json string, do func(*xrpc.Client, space.ID, space.Record) (xrpc.Written, error)) error {
	value, err := a.readRecord(json)
	if err != nil {
		return err
	}
	api, id, err := a.open(name)
	if err != nil {
		return err
	}
	done, err := do(api, id, value)
	return a.wrote(done, err)
}

type recordPutCmd struct {
	Space      string          `arg:"" help:"URI or petname."`
	Collection space.NSID      `arg:"" help:"Such as com.example.note."`
	Rkey       space.RecordKey `arg:"" help:"The record's key."`
	JSON       string          `arg:"" help:"The record as JSON, or - for stdin." name:"json"`
}

// Run writes a record whether or not it exists.
func (c *recordPutCmd) Run(a *app) error {
	return a.write(c.Space, c.JSON, func(api *xrpc.Client, id space.ID, value space.Record) (xrpc.Written, error) {
		return api.PutRecord(a.ctx, id, space.Path{Collection: c.Collection, Key: c.Rkey}, value, nil)
	})
}

// wrote answers for one written record.
func (a *app) wrote(done xrpc.Written, err error) error {
	if err != nil {
		return err
	}
	ref := done.Records[0]
	v := recordOf(xrpc.Record{URI: ref.URI, CID: ref.CID, Rev: done.Rev})
	return a.answer(v, func(w io.Writer) { fmt.Fprintln(w, v.URI) })
}

type recordGetCmd struct {
	Space      string          `arg:"" help:"URI or petname."`
	Collection space.NSID      `arg:"" help:"Such as com.example.note."`
	Rkey       space.RecordKey `arg:"" help:"The record's key."`
	Repo       space.DID       `help:"Whose record. Standard: one's own, else the only author's." placeholder:"DID"`
}

// Run reads one record.
func (c *recordGetCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	r, err := api.Record(a.ctx, id, c.Repo, space.Path{Collection: c.Collection, Key: c.Rkey})
	if err != nil {
		return err
	}
	return a.answer(recordOf(r), func(w io.Writer) { fmt.Fprintln(w, indented(r.Value)) })
}

// indented is a record for people.
func indented(r space.Record) string {
	b, err := r.JSON()
	if err != nil {
		return err.Error()
	}
	buf := new(bytes.Buffer)
	if err := json.Indent(buf, b, "", "  "); err != nil {
		return string(b)
	}
	return buf.String()
}

type recordListCmd struct {
	Space      string     `arg:"" help:"URI or petname."`
	Repo       space.DID  `help:"Whose records. Standard: everybody's." placeholder:"DID"`
	Collection space.NSID `help:"Which collection. Standard: all." placeholder:"C"`
	Limit      int        `help:"At most so many, 1 to 1000, and a cursor for more. Standard: all." placeholder:"N"`
	Cursor     string     `help:"Go on where a list with --limit ended." placeholder:"CURSOR"`
}

// pageSize is what a list without a limit asks for at a time.
const pageSize = 1000

// Run lists records, all of them unless there is a limit.
func (c *recordListCmd) Run(a *app) error {
	if c.Limit < 0 || c.Limit > pageSize {
		return usage("leave --limit out to list everything", "--limit: want 1 to %d", pageSize)
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	q := xrpc.RecordQuery{Repo: c.Repo, Collection: c.Collection, Limit: c.Limit, Cursor: c.Cursor}
	if c.Limit == 0 {
		q.Limit = pageSize
	}
	views := []recordView{}
	for {
		page, next, err := api.Records(a.ctx, id, q)
		if err != nil {
			return err
		}
		for _, r := range page {
			views = append(views, recordOf(r))
		}
		q.Cursor = next
		if next == "" || c.Limit != 0 {
			break
		}
	}
	out := struct {
		Records []recordView `json:"records"`
		Cursor  string       `json:"cursor,omitempty"`
	}{views, q.Cursor}
	return a.answer(out, func(w io.Writer) {
		for _, v := range views {
			b, err := v.Value.JSON()
			if err != nil {
				b = []byte(err.Error())
			}
			fmt.Fprintf(w, "%s\t%s\n", v.URI, b)
		}
		if len(views) == 0 {
			a.say("records", "none")
		}
		if out.Cursor != "" {
			a.say("more", "--cursor %s", out.Cursor)
		}
	})
}

type recordDeleteCmd struct {
	Space      string          `arg:"" help:"URI or petname."`
	Collection space.NSID      `arg:"" help:"Such as com.example.note."`
	Rkey       space.RecordKey `arg:"" help:"The record's key."`
}

// Run deletes a record of the owner's.
func (c *recordDeleteCmd) Run(a *app) error {
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	path := space.Path{Collection: c.Collection, Key: c.Rkey}
	done, err := api.Write(a.ctx, id, []xrpc.Write{{Action: xrpc.ActionDelete, Path: path}}, xrpc.WriteOptions{})
	if err != nil {
		return err
	}
	v := struct {
		URI space.URI `json:"uri"`
		Rev space.TID `json:"rev"`
	}{done.Records[0].URI, done.Rev}
	return a.answer(v, func(w io.Writer) { line(w, "deleted", "%s", v.URI) })
}
