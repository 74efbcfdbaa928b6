package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

type keeperCmd struct {
	Status keeperStatusCmd `cmd:"" help:"Show what this node does as a keeper."`
}

type keeperStatusCmd struct{}

// keptView is a space in which this node is a keeper, in JSON.
type keptView struct {
	URI       string     `json:"uri"`
	Name      string     `json:"name,omitempty"`
	Caps      []xrpc.Cap `json:"caps"`
	Sequencer bool       `json:"sequencer"`
	Epoch     uint64     `json:"epoch"`
	Requests  uint64     `json:"requests"`
	LastError string     `json:"lastError,omitempty"`
}

// Run shows the spaces in which this node is a keeper, its own among them.
func (*keeperStatusCmd) Run(a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	st, err := api.Status(a.ctx)
	if err != nil {
		return err
	}
	out := struct {
		Keeper bool       `json:"keeper"`
		DID    space.DID  `json:"did"`
		Spaces []keptView `json:"spaces"`
	}{st.Keeper, st.DID, []keptView{}}
	for _, s := range st.Spaces {
		if len(s.Caps) > 0 {
			out.Spaces = append(out.Spaces, keptView{s.URI, s.Name, s.Caps, s.Sequencer == st.DID, s.Epoch, s.Requests, s.LastError})
		}
	}
	return a.answer(out, func(w io.Writer) {
		if !out.Keeper {
			line(w, "keeper", "no: this node admits nobody to the spaces of others; next: %s", a.kith("run --keeper"))
		} else {
			line(w, "keeper", "yes, in %d spaces", len(out.Spaces))
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, s := range out.Spaces {
			name := s.Name
			if name == "" {
				name = s.URI
			}
			fmt.Fprintf(t, "%s\tepoch %d\t%s%s\n", name, s.Epoch, strings.Join(capNames(s.Caps), " "), s.more())
		}
		t.Flush()
	})
}

func (s keptView) more() string {
	text := ""
	if s.Sequencer {
		text += ", sequencer"
	}
	if s.Requests > 0 {
		text += fmt.Sprintf(", %d wait for a yes", s.Requests)
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
