package local

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/kithnet/kith/space"
)

const opsPage = 1000

// ops reads the whole oplog in pages with values, each reader from its
// beginning to its end. Every record is checked while the rounds warm up; then
// readers count, so that decoding is not what is measured.
func (b *xrpcBench) ops(ctx context.Context) error {
	page := min(opsPage, b.o.Records)
	pages := b.o.Records / page
	if err := b.oplog(ctx, page, b.checkOps); err != nil {
		return err
	}
	for _, readers := range []int{1, 4} {
		ours, bare, err := b.turns(readers, readers,
			func() error {
				return b.oplog(ctx, page, func(text []byte, from int) (int, error) { return bytes.Count(text, []byte(`"value":`)), nil })
			},
			func() error {
				var text bytes.Buffer
				for i := range pages {
					if err := b.read(ctx, fmt.Sprintf("%s/list?n=%d&count=%d", b.bare, i*page, page), &text); err != nil {
						return err
					}
				}
				return nil
			})
		if err != nil {
			return err
		}
		b.compare(fmt.Sprintf("listRepoOps-%d", readers), "ops/s", rate(readers*b.o.Records, ours), rate(readers*pages*page, bare))
	}
	return nil
}

// oplog reads the oplog and holds the number of its ops against that of the
// records. count says how many a page has, whose first is op number from.
func (b *xrpcBench) oplog(ctx context.Context, page int, count func(text []byte, from int) (int, error)) error {
	const mark = `"cursor":"`
	var text bytes.Buffer
	for got, cursor := 0, ""; ; {
		err := b.read(ctx, b.method("com.atproto.space.listRepoOps", fmt.Sprintf("space=%s&limit=%d&cursor=%s", b.big.AT(), page, cursor)), &text)
		if err != nil {
			return err
		}
		n, err := count(text.Bytes(), got)
		if err != nil {
			return err
		}
		got += n
		at := bytes.LastIndex(text.Bytes(), []byte(mark))
		if at < 0 {
			if got != b.o.Records {
				return fmt.Errorf("%d ops of %d", got, b.o.Records)
			}
			return nil
		}
		cursor, _, _ = strings.Cut(string(text.Bytes()[at+len(mark):]), `"`)
	}
}

// checkOps decodes a page and holds it against what was written.
func (b *xrpcBench) checkOps(text []byte, from int) (int, error) {
	var page struct {
		Ops []struct {
			Rkey  space.RecordKey
			CID   space.CID
			Value space.Record
		}
	}
	if err := json.Unmarshal(text, &page); err != nil {
		return 0, err
	}
	for i, op := range page.Ops {
		want, err := space.RecordFromJSON(b.record(int64(from + i)))
		if err != nil {
			return 0, err
		}
		if op.Rkey != benchKey(from+i) || op.CID != want.CID() || !bytes.Equal(op.Value, want) {
			return 0, fmt.Errorf("op %d is of %s and not what was written", from+i, op.Rkey)
		}
	}
	return len(page.Ops), nil
}

// read gets an answer into a buffer that is used again.
func (b *xrpcBench) read(ctx context.Context, url string, into *bytes.Buffer) error {
	resp, err := b.open(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	into.Reset()
	if _, err = into.ReadFrom(resp.Body); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, into)
	}
	return err
}
