package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/kithnet/kith/testnet/local"
)

// bench runs a scenario, whose processes are this very binary, and shows what
// it measured.
func (a *app) bench(scenario func(kith string, progress func(string)) ([]local.Row, error)) error {
	kith, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	rows, err := scenario(kith, func(s string) { a.say("bench", "%s", s) })
	if err != nil {
		return err
	}
	return a.answer(map[string]any{"rows": rows}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, r := range rows {
			fmt.Fprintf(t, "%s\t%.6g\t%s\tn=%d\n", r.Name, r.Value, r.Unit, r.N)
		}
		t.Flush()
	})
}
