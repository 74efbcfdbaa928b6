package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

const (
	forumType   = space.NSID("com.example.forum")
	forumPost   = space.NSID("com.example.forum.post")
	liveSamples = 20
	singlesUpTo = 1000 // posts: in larger forums replies travel in batches too
)

// Demo walks the main job from end to end on this machine: members that meet
// by invite alone, a forum written and read by all, a crash, a latecomer, a
// look at what lies on disk. It stops at the first step that does not hold:
// the report then ends with that step and is not OK. An error is what kept the
// story from beginning, such as a bad import.
func Demo(ctx context.Context, o DemoOptions) (Report, error) {
	posts, err := readForum(o.Import)
	if err != nil {
		return Report{}, err
	}
	c, err := newCast(o.Kith, o.Dir)
	if err != nil {
		return Report{}, err
	}
	d := &demo{cast: c, posts: posts, want: map[space.URI]space.CID{}, maybe: map[space.URI]bool{}}
	return tell(ctx, append(d.chapters(), chapter{"stop them", d.stop}), stepTime, o.Progress, c.explain), c.leave()
}

// stop is the last step: a node that does not end well is a failure too.
func (d *demo) stop(context.Context) (string, error) {
	return "every process ended by itself when asked", d.stopAll()
}

// demo is a demonstration under way. Its steps follow one another, so that
// only what several writers share has a lock.
type demo struct {
	*cast
	posts    []post
	id       space.ID
	link     string
	canaries [][]byte

	mu    sync.Mutex
	want  map[space.URI]space.CID // acknowledged; guarded by mu
	maybe map[space.URI]bool      // written without an answer: may be there or not; guarded by mu
}

func (d *demo) chapters() []chapter {
	return []chapter{
		{"start three members", d.start},
		{"create a space", d.create},
		{"invite", d.invite},
		{"two join by the link", d.join},
		{"write the forum", d.write},
		{"everyone reads everyone", d.read},
		{"live propagation", d.live},
		{"kill a member while it writes", d.crash},
		{"restart it on its home", d.restart},
		{"a fourth joins late", d.latecomer},
		{"a reader may not write", d.readOnly},
		{"one reads only itself", d.readSelf},
		{"remove the reader", d.remove},
		{"a keeper admits for the authority", d.keeper},
		{"never online together", d.relay},
		{"nothing readable on disk", d.secrecy},
		{"all in sync", d.inSync},
	}
}

func (d *demo) start(ctx context.Context) (string, error) {
	nodes, err := d.enter(ctx, "ada", "ben", "cem")
	if err != nil {
		return "", err
	}
	var who []string
	for _, n := range nodes {
		who = append(who, fmt.Sprintf("%s %s (pid %d)", n.name, n.ready.HTTP, n.cmd.Process.Pid))
	}
	return strings.Join(who, ", "), nil
}

func (d *demo) create(ctx context.Context) (string, error) {
	key := space.RecordKey("garden-" + strings.ToLower(rand.Text()))
	policy := space.DefaultPolicy()
	policy.DisplayName = "Behind the tram depot " + rand.Text()[:6]
	info, err := d.all()[0].CreateSpace(ctx, xrpc.NewSpace{Type: forumType, Key: key, Name: "depot", Policy: policy})
	if err != nil {
		return "", err
	}
	d.id = info.ID
	d.canary(string(key), policy.DisplayName, string(forumType))
	return fmt.Sprintf("%s, epoch %d", d.id, info.Epoch), nil
}

func (d *demo) invite(ctx context.Context) (string, error) {
	inv, err := d.all()[0].Invite(ctx, d.id, xrpc.InviteOptions{
		Level: space.LevelWrite, MaxUses: 3, ExpiresMs: uint64(time.Now().Add(time.Hour).UnixMilli()),
	})
	if err != nil {
		return "", err
	}
	d.link = inv.Link
	d.canary(linkSecrets(inv.Link)...)
	return fmt.Sprintf("invite %s: level %s, 3 uses, one hour, a link of %d characters", inv.ID, inv.Level, len(inv.Link)), nil
}

func (d *demo) join(ctx context.Context) (string, error) {
	nodes := d.all()
	took, err := d.joinAll(ctx, nodes[1:])
	if err != nil {
		return "", err
	}
	if err := until(ctx, func() error { return d.rosterOf(ctx, nodes, 3) }); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; each node lists 3 members", strings.Join(took, ", ")), nil
}

// joinAll lets nodes join at the same time.
func (d *demo) joinAll(ctx context.Context, nodes []*node) ([]string, error) {
	took := make([]string, len(nodes))
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			start := time.Now()
			j, err := n.JoinWait(ctx, d.link, 25*time.Second)
			switch {
			case err != nil:
				errs[i] = fmt.Errorf("%s joins: %w", n.name, err)
			case j.ID != d.id || j.Level != space.LevelWrite:
				errs[i] = fmt.Errorf("%s joined %s with level %s, wanted %s with write", n.name, j.ID, j.Level, d.id)
			}
			took[i] = fmt.Sprintf("%s in %d ms", n.name, time.Since(start).Milliseconds())
		})
	}
	wg.Wait()
	return took, errors.Join(errs...)
}

// rosterOf holds once every node lists as many members.
func (d *demo) rosterOf(ctx context.Context, nodes []*node, members int) error {
	for _, n := range nodes {
		ms, err := n.Members(ctx, d.id)
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		if len(ms) != members {
			return fmt.Errorf("%s lists %d members of %d", n.name, len(ms), members)
		}
	}
	return nil
}

// write lets every member write its share of the forum, all at the same time.
func (d *demo) write(ctx context.Context) (string, error) {
	nodes := d.all()
	pl := spread(d.posts, len(nodes))
	requests := make([]int, len(nodes))
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			for _, b := range batches(pl.shares[i], xrpc.MaxWrites, len(d.posts) > singlesUpTo) {
				if errs[i] = d.writeBatch(ctx, n, b); errs[i] != nil {
					return
				}
				requests[i]++
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	for _, p := range d.posts {
		d.canary(fragments(p)...)
		d.canary(string(p.path.Collection))
	}
	var shares []string
	for i, n := range nodes {
		shares = append(shares, fmt.Sprintf("%s %d in %d requests", n.name, len(pl.shares[i]), requests[i]))
	}
	return fmt.Sprintf("%d records by %d nicknames: %s", len(d.posts), pl.nicks, strings.Join(shares, ", ")), nil
}

// writeBatch is one applyWrites.
func (d *demo) writeBatch(ctx context.Context, n *node, posts []post) error {
	writes := make([]xrpc.Write, len(posts))
	for i, p := range posts {
		writes[i] = xrpc.Write{Action: xrpc.ActionCreate, Path: p.path, Value: p.record}
	}
	done, err := n.Write(ctx, d.id, writes, xrpc.WriteOptions{})
	if err != nil {
		return fmt.Errorf("%s writes lines %d to %d: %w", n.name, posts[0].line, posts[len(posts)-1].line, err)
	}
	for i, p := range posts {
		if got := done.Records[i]; got.CID != p.record.CID() || got.URI.Author != n.DID {
			return fmt.Errorf("%s wrote line %d as %v by %s; the record is %v", n.name, p.line, got.CID, got.URI.Author, p.record.CID())
		}
		d.acked(n, p.path, p.record.CID())
	}
	return nil
}

// acked notes a write that a node has promised to keep.
func (d *demo) acked(n *node, path space.Path, cid space.CID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.want[space.URI{Space: d.id, Author: n.DID, Path: path}] = cid
}

func (d *demo) read(ctx context.Context) (string, error) {
	if err := d.allRead(ctx, d.all()); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d records, each cid and value compared on 3 nodes", len(d.want)), nil
}

// allRead waits until each node hands out every record acknowledged, in its
// version, and nothing else.
func (d *demo) allRead(ctx context.Context, nodes []*node) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			errs[i] = until(ctx, func() error { return d.compare(ctx, n, "") })
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// compare holds the records of a node, or those of one author there, against
// what was acknowledged.
func (d *demo) compare(ctx context.Context, n *node, author space.DID) error {
	have, err := n.listing(ctx, d.id, author)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	missing, total, example := 0, 0, ""
	for uri, cid := range d.want {
		if author != "" && uri.Author != author {
			continue
		}
		total++
		if have[uri] != cid {
			missing++
			example = uri.Path.String()
		}
	}
	if missing > 0 {
		return fmt.Errorf("%s lacks %d of %d records, such as %s", n.name, missing, total, example)
	}
	for uri := range have {
		if _, ok := d.want[uri]; !ok && !d.maybe[uri] {
			return fmt.Errorf("%s has a record nobody wrote: %s", n.name, uri)
		}
	}
	return nil
}

// listing is every record of a space as one node has it.
func (n *node) listing(ctx context.Context, id space.ID, author space.DID) (map[space.URI]space.CID, error) {
	have := map[space.URI]space.CID{}
	q := xrpc.RecordQuery{Repo: author, Limit: 1000}
	for {
		page, cursor, err := n.Records(ctx, id, q)
		if err != nil {
			return nil, fmt.Errorf("%s lists: %w", n.name, err)
		}
		for _, r := range page {
			if r.Value.CID() != r.CID {
				return nil, fmt.Errorf("%s lists %s with a value that its cid does not name", n.name, r.URI)
			}
			have[r.URI] = r.CID
		}
		if q.Cursor = cursor; cursor == "" {
			return have, nil
		}
	}
}

func (d *demo) live(ctx context.Context) (string, error) {
	nodes := d.all()
	var all []time.Duration
	for i := range liveSamples {
		from := nodes[i%len(nodes)]
		to := nodes[(i+1)%len(nodes)]
		path, rec, err := note("live", i, "seen while it is fresh, number")
		if err != nil {
			return "", err
		}
		s, err := reach(ctx, from, to, d.id, path, rec)
		if err != nil {
			return "", err
		}
		d.acked(from, path, rec.CID())
		all = append(all, s.seen)
	}
	slices.Sort(all)
	return fmt.Sprintf("%d records from put to readable elsewhere: median %.2f ms, slowest %.2f ms",
		len(all), ms(percentile(all, 50)), ms(percentile(all, 100))), nil
}

// note is a small record of the demonstration's own.
func note(kind string, n int, text string) (space.Path, space.Record, error) {
	rec, err := space.RecordFromJSON(fmt.Appendf(nil, `{"$type":%q,"text":"%s %d","createdAt":%q}`,
		forumPost, text, n, time.Now().UTC().Format(time.RFC3339Nano)))
	return space.Path{Collection: forumPost, Key: space.RecordKey(fmt.Sprintf("%s-%04d", kind, n))}, rec, err
}

// canary notes words that must lie on no disk.
func (d *demo) canary(words ...string) {
	for _, w := range words {
		d.canaries = append(d.canaries, []byte(w))
	}
}
