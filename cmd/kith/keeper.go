package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type keeperCmd struct {
	Status keeperStatusCmd `cmd:"" help:"Show what this node does as a keeper."`
}

type keeperStatusCmd struct{}

// keptView is a space in which this node's owner is a keeper, in JSON.
type keptView struct {
	URI       space.ID   `json:"uri"`
	Name      string     `json:"name,omitempty"`
	Epoch     uint64     `json:"epoch"`
	Caps      []xrpc.Cap `json:"caps"`
	Authority bool       `json:"authority"`
	Sequencer bool       `json:"sequencer"`
	Requests  int        `json:"requests"` // newcomers who wait for a yes
}

// Run shows the spaces in which the owner is a keeper, those of its own too.
func (*keeperStatusCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	st, err := api.Status(a.ctx)
	if err != nil {
		return err
	}
	spaces, err := api.Spaces(a.ctx)
	if err != nil {
		return err
	}
	out := struct {
		Keeper bool       `json:"keeper"`
		DID    space.DID  `json:"did"`
		Spaces []keptView `json:"spaces"`
	}{st.Keeper, st.DID, []keptView{}}
	for _, s := range spaces {
		v, err := a.kept(api, s, st.DID)
		if err != nil {
			return err
		}
		if len(v.Caps) > 0 {
			out.Spaces = append(out.Spaces, v)
		}
	}
	return a.answer(out, func(w io.Writer) {
		if out.Keeper {
			line(w, "keeper", "yes, in %d spaces", len(out.Spaces))
		} else {
			line(w, "keeper", "while it runs, in %d spaces; to say that it stays up: %s", len(out.Spaces), a.kith("run --keeper"))
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, v := range out.Spaces {
			fmt.Fprintf(t, "%s\tepoch %d\t%s%s\n", called(v.Name, v.URI), v.Epoch, strings.Join(capNames(v.Caps), " "), v.more())
		}
		t.Flush()
	})
}

// kept is what did may do as a keeper of a space.
func (a *app) kept(api *xrpc.Client, s xrpc.SpaceInfo, did space.DID) (keptView, error) {
	v := keptView{URI: s.ID, Name: s.Name, Epoch: s.Epoch}
	members, err := api.Members(a.ctx, s.ID)
	if errors.Is(err, space.ErrForbidden) {
		return v, nil // who may not see the roster is no keeper
	}
	if err != nil {
		return v, err
	}
	for _, m := range members {
		if m.DID == did {
			v.Caps, v.Authority, v.Sequencer = m.Caps, m.Authority, m.Sequencer
		}
	}
	if slices.Contains(v.Caps, xrpc.CapAdmit) {
		waiting, err := api.Requests(a.ctx, s.ID)
		if err != nil && !errors.Is(err, space.ErrForbidden) {
			return v, err
		}
		v.Requests = len(waiting)
	}
	return v, nil
}

func (v keptView) more() string {
	text := ""
	if v.Authority {
		text += ", authority"
	}
	if v.Sequencer {
		text += ", sequencer"
	}
	if v.Requests > 0 {
		text += fmt.Sprintf(", %d wait for a yes", v.Requests)
	}
	return text
}

func capNames(caps []xrpc.Cap) []string {
	names := make([]string, len(caps))
	for i, c := range caps {
		names[i] = string(c)
	}
	return names
}
