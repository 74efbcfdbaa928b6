package node

import (
	"context"

	"github.com/kithnet/kith/space/identity"
)

// FetchIdentity asks a node what it knows of somebody.
func FetchIdentity(ctx context.Context, addr string, c identity.Commitment) (entries int, list bool, err error) {
	h, _, err := Machine{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}.host()
	if err != nil {
		return 0, false, err
	}
	defer h.Close()
	p, err := parsePeer(addr)
	if err != nil {
		return 0, false, err
	}
	if err := dial(ctx, h, p); err != nil {
		return 0, false, err
	}
	log, l, err := fetchIdentity(ctx, h, p.ID, c)
	return len(log), len(l) > 0, err
}
