package xrpc

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/commit"
)

// bytesOf is a byte string as the dialect has it: base64url text in HappyView,
// {"$bytes"} in atproto, neither padded.
func (d Dialect) bytesOf(b []byte) json.RawMessage {
	if d == ATProto {
		return rawJSON(`{"$bytes":"` + base64.RawStdEncoding.EncodeToString(b) + `"}`)
	}
	return rawJSON(`"` + base64.RawURLEncoding.EncodeToString(b) + `"`)
}

type commitObject struct {
	Ver  int             `json:"ver"`
	Hash json.RawMessage `json:"hash"`
	IKM  json.RawMessage `json:"ikm"`
	Sig  json.RawMessage `json:"sig"`
	MAC  json.RawMessage `json:"mac"`
	Rev  string          `json:"rev"`
	Type string          `json:"$type,omitempty"` // in atproto's dialect
}

func (d Dialect) commit(c *commit.Commit) *commitObject {
	if c == nil {
		return nil
	}
	o := &commitObject{Ver: c.Ver, Hash: d.bytesOf(c.Hash[:]), IKM: d.bytesOf(c.IKM[:]), Sig: d.bytesOf(c.Sig[:]), MAC: d.bytesOf(c.MAC[:]), Rev: c.Rev.String()}
	if d == ATProto {
		o.Type = "com.atproto.space.defs#signedCommit"
	}
	return o
}

type stateAnswer struct {
	DID    space.DID       `json:"did"`
	Rev    *string         `json:"rev"`
	Commit *commitObject   `json:"commit"`
	Count  uint64          `json:"count"`
	Hash   json.RawMessage `json:"hash,omitempty"`
	State  []byte          `json:"state,omitempty"` // standard base64
}

// repo is whose repo a request asks for, the caller's if it does not say.
func (c *call) repo() (space.DID, error) {
	did, err := c.author()
	if err != nil {
		return "", err
	}
	if did == "" {
		did = c.caller.DID
	}
	return c.readable(did)
}

// showRepoState answers nulls for a repo never written.
func showRepoState(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	did, err := c.repo()
	if err != nil {
		return nil, err
	}
	st, err := c.s.Repos.RepoState(c.ctx(), id, did)
	if errors.Is(err, space.ErrRepoNotFound) || err == nil && st.Rev == 0 {
		return stateAnswer{DID: did}, nil
	}
	if err != nil {
		return nil, err
	}
	return stateAnswer{did, new(st.Rev.String()), c.d.commit(st.Commit), st.Count, c.d.bytesOf(st.Hash[:]), st.State}, nil
}

// opObject is an op in both dialects.
type opObject struct {
	Rev        string          `json:"rev"`
	Idx        int             `json:"idx"`
	ID         string          `json:"id"`
	Action     string          `json:"action"`
	DID        space.DID       `json:"did"`
	Author     space.DID       `json:"author_did"`
	SpaceID    string          `json:"space_id"`
	Collection space.NSID      `json:"collection"`
	Key        space.RecordKey `json:"rkey"`
	CID        *space.CID      `json:"cid"`
	Prev       *space.CID      `json:"prev"`
	CreatedAt  string          `json:"created_at"`
	CreatedAt2 string          `json:"createdAt"`
	Value      json.RawMessage `json:"value,omitempty"`
}

// action is what an op did.
func (op *RepoOp) action() string {
	switch {
	case op.CID.IsZero():
		return "delete"
	case op.Prev.IsZero():
		return "create"
	}
	return "update"
}

type opsAnswer struct {
	Ops []opObject `json:"ops"`
	opsTail
}

// opsTail is what stands behind the ops.
type opsTail struct {
	Cursor string        `json:"cursor,omitempty"`
	Commit *commitObject `json:"commit,omitempty"`
	State  *opsState     `json:"state,omitempty"`
	Pruned bool          `json:"pruned,omitempty"`
}

// opsState is what the repo is at the head, beside the commit.
type opsState struct {
	Rev   string          `json:"rev"`
	Count uint64          `json:"count"`
	Hash  json.RawMessage `json:"hash"`
}

// FormatOpsCursor is the cursor behind an op: "rev/idx".
func FormatOpsCursor(rev space.TID, idx int) string { return rev.String() + "/" + strconv.Itoa(idx) }

// ParseOpsCursor reads a cursor of FormatOpsCursor and nothing else.
func ParseOpsCursor(s string) (rev space.TID, idx int, err error) {
	r, i, ok := strings.Cut(s, "/")
	if !ok {
		return 0, 0, ErrCursor
	}
	if rev, err = space.ParseTID(r); err != nil {
		return 0, 0, ErrCursor
	}
	if idx, err = strconv.Atoi(i); err != nil || idx < 0 || FormatOpsCursor(rev, idx) != s {
		return 0, 0, ErrCursor
	}
	return rev, idx, nil
}

// listRepoOps pages through a repo's ops. A client of HappyView that knows no
// cursors goes on from the last rev it saw, so a page that does not begin at a
// cursor of ours never ends inside a rev.
func listRepoOps(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	did, err := c.repo()
	if err != nil {
		return nil, err
	}
	q, err := c.opsQuery()
	if err != nil {
		return nil, err
	}
	page, err := c.s.Repos.Oplog(c.ctx(), id, did, q)
	if errors.Is(err, space.ErrRepoNotFound) {
		return opsAnswer{Ops: []opObject{}}, nil
	}
	if err != nil {
		return nil, err
	}
	return c.opsAnswer(id, did, page), nil
}

func (c *call) opsQuery() (q OpsQuery, err error) {
	if q.Limit, err = c.limit(100, 1000); err != nil {
		return q, err
	}
	if q.NoValues, err = c.query.boolean("excludeValues"); err != nil {
		return q, err
	}
	if q.Since, _, err = optional(c.in, "since", space.ParseTID); err != nil {
		return q, err
	}
	cursor, _, err := c.query.text("cursor")
	switch {
	case err != nil:
		return q, err
	case cursor == "":
		q.WholeRevs = c.d == HappyView
		return q, nil
	case !strings.Contains(cursor, "/"): // a bare rev: what comes after it
		rev, err := space.ParseTID(cursor)
		if err != nil {
			return q, ErrCursor
		}
		q.Since, q.WholeRevs = max(q.Since, rev), true
		return q, nil
	}
	_, _, err = ParseOpsCursor(cursor)
	q.Cursor = cursor
	return q, err
}

// opsAnswer sends a page and closes it.
func (c *call) opsAnswer(id space.ID, did space.DID, page *Oplog) raw {
	tail := opsTail{Cursor: page.Cursor, Pruned: page.Pruned}
	if st := page.State; st != nil && page.Cursor == "" && st.Rev != 0 {
		tail.Commit = c.d.commit(st.Commit)
		tail.State = &opsState{st.Rev.String(), st.Count, c.d.bytesOf(st.Hash[:])}
	}
	text := newOpsPage(c.d.spaceURI(id), did, page)
	return func(w http.ResponseWriter, r *http.Request) error {
		defer page.Close()
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Type", "application/json")
			return nil
		}
		return text.send(w, tail)
	}
}

type repoObject struct {
	DID         space.DID       `json:"did"`
	Rev         string          `json:"rev"`
	Hash        json.RawMessage `json:"hash"`
	Attribution string          `json:"attribution,omitempty"`
}

type reposAnswer struct {
	Repos  []repoObject `json:"repos"`
	Cursor string       `json:"cursor,omitempty"`
}

// listRepos lists the authors.
func listRepos(c *call) (any, error) {
	all, next, err := pageByDID(c, c.s.Repos.Repos, func(r RepoInfo) space.DID { return r.DID })
	if err != nil {
		return nil, err
	}
	out := reposAnswer{make([]repoObject, len(all)), next}
	for i, r := range all {
		out.Repos[i] = repoObject{r.DID, r.Rev.String(), c.d.bytesOf(r.Hash[:]), r.Attribution}
	}
	return out, nil
}
