package xrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/car"
	"github.com/kithnet/kith/space/commit"
)

// Snapshots reads a repo as one state of it.
type Snapshots interface {
	// Snapshot fails with space.ErrRepoNotFound for a repo never written, and
	// with space.ErrUnavailable while its author's word on it has not come.
	Snapshot(ctx context.Context, id space.ID, author space.DID) (*Snapshot, error)
	// Commit is the commit alone, with the same errors.
	Commit(ctx context.Context, id space.ID, author space.DID) (commit.Commit, error)
}

func hasSnapshots(s *Server) bool { return s.Snapshots != nil }

// Snapshot is one state of a repo. Whoever asked for it calls Close, once.
type Snapshot struct {
	Commit commit.Commit
	Index  *car.Block
	Values car.Values
	Close  func()
}

// maxSnapshots is how many are read out at once; more are told to come again.
const maxSnapshots = 128

// carType is the media type of a snapshot.
const carType = "application/vnd.ipld.car"

// sendRepo streams a repo as a CAR. An answer without a commit is no answer:
// there is none for a repo never written.
func sendRepo(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	did, err := c.repo()
	if err != nil {
		return nil, err
	}
	indexOnly, err := c.query.boolean("excludeValues")
	if err != nil {
		return nil, err
	}
	if c.s.snapshots.Add(1) > maxSnapshots {
		c.s.snapshots.Add(-1)
		return nil, faultf(space.ErrUnavailable, "%d repos are being read at this moment; try again", maxSnapshots)
	}
	snap, err := c.s.Snapshots.Snapshot(c.ctx(), id, did)
	if err != nil {
		c.s.snapshots.Add(-1)
		return nil, err
	}
	return raw(func(w http.ResponseWriter, r *http.Request) error {
		defer c.s.snapshots.Add(-1)
		defer snap.Close()
		h := w.Header()
		h.Set("Content-Type", carType)
		h.Set("Content-Disposition", `attachment; filename="repo.car"`)
		h.Set("Cache-Control", "private, no-store")
		h.Set("Vary", "Authorization")
		h.Set("Accept-Ranges", "none") // each answer has a commit of its own
		if r.Method == http.MethodHead {
			return nil
		}
		values := snap.Values
		if indexOnly {
			values = nil
		}
		return car.Write(patient(w), snap.Commit, snap.Index, values)
	}), nil
}

// patient gives a stream more time for each piece that its reader takes, so
// that only a reader who takes nothing loses it.
func patient(w http.ResponseWriter) io.Writer {
	return &patientWriter{w: w, rc: http.NewResponseController(w)}
}

type patientWriter struct {
	w    io.Writer
	rc   *http.ResponseController
	last time.Time
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if now := time.Now(); now.Sub(p.last) > time.Second {
		p.last = now
		_ = p.rc.SetWriteDeadline(now.Add(answerTimeout)) // a writer without deadlines needs none
	}
	return p.w.Write(b)
}

type commitAnswer struct {
	Commit *commitObject `json:"commit"`
	Rev    string        `json:"rev"`
	DID    space.DID     `json:"did"`
}

func showCommit(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	did, err := c.repo()
	if err != nil {
		return nil, err
	}
	made, err := c.s.Snapshots.Commit(c.ctx(), id, did)
	if err != nil {
		return nil, err
	}
	return commitAnswer{c.d.commit(&made), made.Rev.String(), did}, nil
}

// Commit is a commit of one repo as it is now.
func (c *Client) Commit(ctx context.Context, id space.ID, author space.DID) (commit.Commit, error) {
	v := url.Values{"space": {id.AT()}, "repo": {string(author)}}
	var out commitAnswer
	if err := c.query(ctx, "com.atproto.space.getLatestCommit", v, &out); err != nil {
		return commit.Commit{}, err
	}
	made, err := out.Commit.commit()
	if err == nil && made == nil {
		err = errors.New("answer: no commit")
	}
	if err != nil {
		return commit.Commit{}, err
	}
	return *made, nil
}

// Repo streams a snapshot of one repo, for a car.Reader to verify: nothing of
// it is checked here. The caller closes it.
func (c *Client) Repo(ctx context.Context, id space.ID, author space.DID, indexOnly bool) (io.ReadCloser, error) {
	v := url.Values{"space": {id.AT()}, "repo": {string(author)}}
	if indexOnly {
		v.Set("excludeValues", "true")
	}
	return c.stream(ctx, "com.atproto.space.getRepo", v, carType)
}

// stream is a GET whose answer is not JSON.
func (c *Client) stream(ctx context.Context, nsid string, v url.Values, media string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.target(nsid)+"?"+v.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", nsid, err)
	}
	resp, err := c.do(r, nsid)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return nil, fmt.Errorf("%s: read the answer: %w", nsid, err)
		}
		return nil, errorOf(resp.StatusCode, body)
	}
	if have := resp.Header.Get("Content-Type"); media != "" && have != media {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: the answer is %s, not %s", nsid, clip(have), media)
	}
	return resp.Body, nil
}
