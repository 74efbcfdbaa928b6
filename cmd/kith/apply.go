package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type recordApplyCmd struct {
	Space string `arg:"" help:"URI or petname."`
	File  string `arg:"" help:"JSON lines of applyWrites ops, or - for stdin."`
}

// maxBatchBytes ends a batch before the node would refuse it.
const maxBatchBytes = 1 << 20

// opLine is one line of the file. As in applyWrites the spelling says what is
// meant: with action, update is an upsert and delete of an absent record
// succeeds; with $type both want the record to be there.
type opLine struct {
	Action     string          `json:"action"`
	Type       string          `json:"$type"`
	Collection space.NSID      `json:"collection"`
	Rkey       space.RecordKey `json:"rkey"`
	Value      json.RawMessage `json:"value"`
	Swap       *string         `json:"swapRecord"`
}

// opResult is one line of the answer.
type opResult struct {
	Line   int       `json:"line"`
	Action string    `json:"action"`
	URI    space.URI `json:"uri"`
	CID    string    `json:"cid,omitempty"`
	Rev    string    `json:"rev,omitempty"`
}

// opBatch is what goes to the node at once: all of it or nothing.
type opBatch struct {
	writes []xrpc.Write
	lines  []int // writes[i] stands in line lines[i] of the file
	bytes  int
}

// Run carries out the writes of a file in batches, and answers a line for each
// as soon as its batch is durable.
func (c *recordApplyCmd) Run(a *app) error {
	in := io.Reader(a.stdin)
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return usage("name a file, or - for stdin", "%v", err)
		}
		defer f.Close()
		in = f
	}
	api, id, err := a.open(c.Space)
	if err != nil {
		return err
	}
	done := 0
	send := func(b *opBatch) error {
		if len(b.writes) == 0 {
			return nil
		}
		out, err := api.Write(a.ctx, id, b.writes, xrpc.WriteOptions{})
		if err != nil {
			return a.inBatch(err, b.lines, done)
		}
		done += len(b.writes)
		if err := a.results(b, out); err != nil {
			return err
		}
		*b = opBatch{}
		return nil
	}
	if err := a.batches(in, send, &done); err != nil {
		return err
	}
	a.say("applied", "%d writes", done)
	return nil
}

// batches reads ops line by line and sends them 200 at a time.
func (a *app) batches(in io.Reader, send func(*opBatch) error, done *int) error {
	r := bufio.NewReaderSize(in, 64<<10)
	b := &opBatch{}
	for n := 1; ; n++ {
		text, err := readLine(r)
		if err != nil && !errors.Is(err, io.EOF) {
			return a.inLine(err, n, *done)
		}
		if op := bytes.TrimSpace(text); len(op) > 0 {
			w, err := parseOp(op)
			if err != nil {
				return a.inLine(err, n, *done)
			}
			if len(b.writes) == xrpc.MaxWrites || b.bytes+len(op) > maxBatchBytes {
				if err := send(b); err != nil {
					return err
				}
			}
			b.writes, b.lines, b.bytes = append(b.writes, w), append(b.lines, n), b.bytes+len(op)
		}
		if err != nil {
			return send(b)
		}
	}
}

// readLine reads a line of bounded length; io.EOF comes with the last one.
func readLine(r *bufio.Reader) ([]byte, error) {
	var text []byte
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		if len(text) > maxInput {
			return nil, fmt.Errorf("over %d bytes: %w", maxInput, space.ErrTooLarge)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return text, err
		}
	}
}

const writesVariant = "com.atproto.space.applyWrites#"

func parseOp(b []byte) (xrpc.Write, error) {
	const example = `a line reads {"action":"create","collection":"com.example.note","rkey":"1","value":{"text":"hello"}}`
	var op opLine
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&op); err != nil {
		return xrpc.Write{}, usage(example, "not an op: %s", reason(err))
	}
	if dec.More() {
		return xrpc.Write{}, usage(example, "more than one op")
	}
	w := xrpc.Write{Path: space.Path{Collection: op.Collection, Key: op.Rkey}}
	switch {
	case op.Action != "" && op.Type != "":
		return w, usage(example, "both action and $type")
	case op.Action == "create" || op.Type == writesVariant+"create":
		w.Action = xrpc.ActionCreate
	case op.Action == "update":
		w.Action = xrpc.ActionPut
	case op.Type == writesVariant+"update":
		w.Action = xrpc.ActionUpdate
	case op.Action == "delete":
		w.Action, w.IfExists = xrpc.ActionDelete, op.Swap == nil
	case op.Type == writesVariant+"delete":
		w.Action = xrpc.ActionDelete
	default:
		return w, usage(example, "action: %q is not create, update or delete", op.Action+op.Type)
	}
	switch {
	case op.Collection == "":
		return w, usage(example, "collection is missing")
	case op.Rkey == "" && w.Action != xrpc.ActionCreate:
		return w, usage(example, "rkey is missing")
	case w.Action == xrpc.ActionDelete && op.Value != nil:
		return w, usage(example, "a delete has no value")
	}
	return fillOp(w, op)
}

func fillOp(w xrpc.Write, op opLine) (xrpc.Write, error) {
	if op.Swap != nil {
		cid, err := space.ParseCID(*op.Swap)
		if err != nil {
			return w, usage("swapRecord is the cid the record has now", "swapRecord: %s", reason(err))
		}
		w.Swap = &cid
	}
	if w.Action == xrpc.ActionDelete {
		return w, nil
	}
	var err error
	w.Value, err = parseRecord(op.Value)
	return w, err
}

// inLine says in which line of the file an error is, and what was done before.
func (a *app) inLine(err error, n, done int) error {
	f := *a.explain(err)
	f.message = fmt.Sprintf("line %d: %s (%d writes were carried out, nothing from here on)", n, f.message, done)
	return &f
}

// writeIndex is how the node names a write of a batch.
var writeIndex = regexp.MustCompile(`\bwrite(?: |s\[)(\d+)\]?`)

// inBatch says the same of a batch. Only a node that refused it has said that
// it wrote none of it.
func (a *app) inBatch(err error, lines []int, done int) error {
	f := *a.explain(err)
	f.message = writeIndex.ReplaceAllStringFunc(f.message, func(s string) string {
		i, err := strconv.Atoi(writeIndex.FindStringSubmatch(s)[1])
		if err != nil || i >= len(lines) {
			return s
		}
		return fmt.Sprintf("line %d", lines[i])
	})
	fate := "nothing from here on"
	if _, refused := errors.AsType[*xrpc.Error](err); !refused {
		fate = "of these it is not known"
	}
	f.message = fmt.Sprintf("lines %d to %d: %s (%d writes were carried out before, %s)",
		lines[0], lines[len(lines)-1], f.message, done, fate)
	return &f
}

// results answers a line for each op of a batch.
func (a *app) results(b *opBatch, out xrpc.Written) error {
	rev := ""
	if out.Rev != 0 {
		rev = out.Rev.String()
	}
	for i, ref := range out.Records {
		v := opResult{Line: b.lines[i], Action: b.writes[i].Action.String(), URI: ref.URI, Rev: rev}
		if !ref.CID.IsZero() {
			v.CID = ref.CID.String()
		}
		if v.Action == "put" {
			v.Action = "update"
		}
		err := a.answer(v, func(w io.Writer) { fmt.Fprintf(w, "%s\t%s\n", v.Action, v.URI) })
		if err != nil {
			return err
		}
	}
	return nil
}
