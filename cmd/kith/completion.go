package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" help:"bash, zsh or fish." enum:"bash,zsh,fish"`
}

// completionScripts ask this binary for the words that may come next, so that
// they never know less than it does.
var completionScripts = map[string]string{
	"bash": `_kith() {
  local IFS=$'\n'
  COMPREPLY=($(kith complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _kith kith
`,
	"zsh": `#compdef kith
_kith() {
  local -a found
  found=(${(f)"$(kith complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
  if (( ${#found} )); then compadd -- $found; else _files; fi
}
compdef _kith kith
`,
	"fish": `complete -c kith -f -a '(kith complete -- (commandline -opc)[2..-1] (commandline -ct | string collect -N) 2>/dev/null)'
`,
}

// Run prints the script that a shell reads at its start.
func (c *completionCmd) Run(a *app) error {
	script := completionScripts[c.Shell]
	return a.answer(map[string]string{"shell": c.Shell, "script": script}, func(w io.Writer) { io.WriteString(w, script) })
}

// completeCmd is what those scripts call.
type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"The command line so far, without kith; the last word is being typed."`
}

// Run prints what the last word may become, one a line.
func (c *completeCmd) Run(a *app, model *kong.Kong) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	found := a.complete(model.Model.Node, words)
	return a.answer(map[string]any{"words": found}, func(w io.Writer) {
		for _, word := range found {
			fmt.Fprintln(w, word)
		}
	})
}

// complete walks the words that stand to the node they name, then lists what
// goes on from there with the last word.
func (a *app) complete(n *kong.Node, words []string) []string {
	last := words[len(words)-1]
	args := 0
	var open *kong.Flag // waits for its value
	for _, word := range words[:len(words)-1] {
		switch {
		case open != nil && word == "=": // bash takes --flag=value apart
		case open != nil:
			open = nil
		case strings.HasPrefix(word, "--"):
			name, _, has := strings.Cut(word[2:], "=")
			if f := flagNamed(n, name); f != nil && !f.IsBool() && !has {
				open = f
			}
		default:
			if next := childNamed(n, word); next != nil {
				n, args = next, 0
			} else {
				args++
			}
		}
	}
	var all []string
	switch name, _, has := strings.Cut(last, "="); {
	case open != nil:
		last = strings.TrimPrefix(last, "=")
		all = choices(open.Value)
	case has && strings.HasPrefix(last, "--"):
		if f := flagNamed(n, name[2:]); f != nil {
			for _, v := range choices(f.Value) {
				all = append(all, name+"="+v)
			}
		}
	case strings.HasPrefix(last, "-"):
		for _, f := range flagsOf(n) {
			all = append(all, "--"+f.Name)
		}
	default:
		for _, child := range n.Children {
			if !child.Hidden {
				all = append(all, child.Name)
			}
		}
		if args < len(n.Positional) {
			all = append(all, a.values(n.Positional[args])...)
		}
	}
	all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, last) })
	slices.Sort(all)
	return slices.Compact(all)
}

// values are what a positional argument may be: a fixed choice, or a space.
func (a *app) values(v *kong.Value) []string {
	if v.Name != "space" {
		return choices(v)
	}
	api, err := a.client()
	if err != nil {
		return nil
	}
	const most = 500 * time.Millisecond // somebody is waiting with a finger on a key
	ctx, cancel := context.WithTimeout(a.ctx, most)
	defer cancel()
	spaces, err := api.Spaces(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range spaces {
		names = append(names, called(s.Name, s.ID))
	}
	return names
}

func choices(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return slices.DeleteFunc(v.EnumSlice(), func(s string) bool { return s == "" })
}

func childNamed(n *kong.Node, name string) *kong.Node {
	for _, child := range n.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

// flagsOf are the flags of a command and of all around it.
func flagsOf(n *kong.Node) []*kong.Flag {
	var all []*kong.Flag
	for _, group := range n.AllFlags(true) {
		all = append(all, group...)
	}
	return all
}

func flagNamed(n *kong.Node, name string) *kong.Flag {
	for _, f := range flagsOf(n) {
		if f.Name == name || f.Negated && "no-"+f.Name == name {
			return f
		}
	}
	return nil
}
