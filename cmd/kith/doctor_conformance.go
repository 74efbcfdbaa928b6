package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/kithnet/kith/node"
	"github.com/kithnet/kith/xrpc/conformance"
)

// conformanceFlags have doctor ask an API what its contracts promise.
type conformanceFlags struct {
	Conformance string `help:"Ask the API there everything that its contracts promise. Makes spaces of its own, and deletes them." placeholder:"URL"`
	Reader      string `help:"With --conformance: file with a token (scope read) of somebody the node knows." placeholder:"FILE"`
	Stranger    string `help:"With --conformance: file with a token of somebody who belongs nowhere." placeholder:"FILE"`
}

// conformanceView is a run as scripts see it.
type conformanceView struct {
	Passed  int               `json:"passed"`
	Failed  int               `json:"failed"`
	Skipped int               `json:"skipped"`
	Results []conformanceLine `json:"results"`
}

type conformanceLine struct {
	Name    string `json:"name"`
	Holds   bool   `json:"holds"`
	Why     string `json:"why,omitempty"`
	Skipped bool   `json:"skipped,omitempty"`
}

// run asks everything, says what does not hold and what it left out, and fails
// if anything does not hold.
func (c *conformanceFlags) run(a *app) error {
	if u, err := url.Parse(c.Conformance); err != nil || u.Host == "" {
		return usage("--conformance http://127.0.0.1:2580", "--conformance: %q is not a web address", c.Conformance)
	}
	cfg := conformance.Config{Base: c.Conformance}
	own := a.Token
	if own == "" {
		own = node.TokenFile(a.Home)
	}
	for _, f := range []struct {
		name string
		to   *string
	}{{own, &cfg.Owner}, {c.Reader, &cfg.Reader}, {c.Stranger, &cfg.Stranger}} {
		if f.name == "" {
			continue
		}
		b, err := os.ReadFile(f.name)
		if err != nil {
			return usage("name the file of a token", "%v", err)
		}
		*f.to = strings.TrimSpace(string(b))
	}
	r, err := conformance.Run(a.ctx, cfg)
	if err != nil {
		return fmt.Errorf("conformance: %w", err)
	}
	v := viewOfRun(r)
	if err := a.answer(v, v.print); err != nil {
		return err
	}
	if r.Failed > 0 {
		return &failure{code: exitFailed, name: reported}
	}
	return nil
}

func viewOfRun(r conformance.Report) conformanceView {
	v := conformanceView{Passed: r.Passed, Failed: r.Failed, Skipped: r.Skipped}
	for _, x := range r.Results {
		l := conformanceLine{Name: x.Name, Holds: x.Err == nil && x.Skipped == "", Skipped: x.Skipped != "", Why: x.Skipped}
		if x.Err != nil {
			l.Why = x.Err.Error()
		}
		v.Results = append(v.Results, l)
	}
	return v
}

// print tells people what is not as it should be.
func (v conformanceView) print(w io.Writer) {
	for _, l := range v.Results {
		switch {
		case l.Skipped:
			line(w, "skipped", "%s: %s", l.Name, l.Why)
		case !l.Holds:
			line(w, "FAILED", "%s: %s", l.Name, l.Why)
		}
	}
	line(w, "result", "%d hold, %d do not, %d skipped", v.Passed, v.Failed, v.Skipped)
}
