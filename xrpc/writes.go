package xrpc

import (
	"fmt"
	"strings"
	"sync"

	"github.com/kithnet/kith/space"
)

// variant is the NSID before the # of a write and of its result.
const variant = "com.atproto.space.applyWrites#"

// resultObject is one result: the union's $type and HappyView's fields.
type resultObject struct {
	Type   string `json:"$type"`
	URI    string `json:"uri,omitempty"`
	CID    string `json:"cid,omitempty"`
	Status string `json:"validationStatus,omitempty"`
}

type writesAnswer struct {
	Results []resultObject `json:"results"`
	Repo    space.DID      `json:"repo"`
	Rev     string         `json:"rev,omitempty"`
}

// applyWrites applies a batch or nothing of it. A write's own spelling says
// what it means: with action, as in HappyView, update is an upsert and delete
// of an absent record succeeds; with $type, as in atproto, both want the
// record to be there.
func applyWrites(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	if err := c.ownRepo(); err != nil {
		return nil, err
	}
	v, err := c.validation()
	if err != nil {
		return nil, err
	}
	var o WriteOptions
	if swap, ok, err := c.body.text("swapCommit"); err != nil {
		return nil, err
	} else if ok {
		o.SwapCommit = &swap
	}
	writes, err := c.writes()
	if err != nil {
		return nil, err
	}
	status := make([]string, len(writes))
	for i, w := range writes {
		if status[i], err = c.validate(v, w); err != nil {
			return nil, inWrite(i, err)
		}
	}
	done := Written{}
	if len(writes) > 0 || o.SwapCommit != nil {
		if done, err = c.s.Records.Write(c.ctx(), id, writes, o); err != nil {
			return nil, err
		}
		if len(done.Records) != len(writes) {
			return nil, faultf(errInternal, "write: %d results for %d writes", len(done.Records), len(writes))
		}
	}
	out := writesAnswer{make([]resultObject, len(writes)), c.caller.DID, revText(done.Rev)}
	for i, w := range writes {
		out.Results[i] = c.result(w.Action, done.Records[i], status[i])
	}
	return out, nil
}

func (c *call) result(a Action, ref RecordRef, status string) resultObject {
	if a == ActionDelete {
		return resultObject{Type: variant + "deleteResult"}
	}
	r := resultObject{variant + "updateResult", c.d.recordURI(ref.URI), ref.CID.String(), status}
	if a == ActionCreate {
		r.Type = variant + "createResult"
	}
	return r
}

// writes reads the list of writes; errors say which one.
func (c *call) writes() ([]Write, error) {
	elems, ok, err := c.body.array("writes", MaxWrites)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, missing("writes")
	}
	const share = 32 // writes worth a goroutine
	out, errs := make([]Write, len(elems)), make([]error, len(elems))
	var wg sync.WaitGroup
	for from := 0; from < len(elems); from += share {
		wg.Go(func() {
			for i := from; i < min(from+share, len(elems)); i++ {
				out[i], errs[i] = c.write(elems[i])
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, inWrite(i, err)
		}
	}
	return out, nil
}

// inWrite keeps the kind of a fault and says which write it is in.
func inWrite(i int, err error) error {
	if f, ok := err.(*fault); ok {
		return &fault{f.kind, fmt.Sprintf("writes[%d].%s", i, f.msg)}
	}
	return fmt.Errorf("writes[%d]: %w", i, err)
}

func (c *call) write(raw []byte) (Write, error) {
	o, err := parseObject(raw)
	if err != nil {
		return Write{}, err
	}
	action, plain, err := o.text("action")
	if err != nil {
		return Write{}, err
	}
	full, typed, err := o.text("$type")
	if err != nil {
		return Write{}, err
	}
	if typed {
		name := strings.TrimPrefix(full, variant)
		name = strings.TrimPrefix(name, "#")
		if plain && name != action {
			return Write{}, faultf(errRequest, "action: is %q, $type is %q", clip(action), clip(full))
		}
		action = name
	}
	switch {
	case !plain && !typed:
		return Write{}, missing("action")
	case action == "create":
		return c.create(o, "value")
	case action == "update" && typed:
		return c.change(o, ActionUpdate, "value")
	case action == "update":
		return c.change(o, ActionPut, "value")
	case action == "delete":
		w, err := c.change(o, ActionDelete, "")
		w.IfExists = !typed && w.Swap == nil
		return w, err
	}
	return Write{}, faultf(errShape, "action: %q is not create, update or delete", clip(action))
}
