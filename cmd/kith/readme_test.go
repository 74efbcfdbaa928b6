package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var (
	commandInReadme = regexp.MustCompile(`^(?:\w*\$ |go run \./cmd/)?kith( .*)?$`)
	wordInReadme    = regexp.MustCompile(`'[^']*'|[^\s']+`)
)

// TestReadme: every command of the README's code blocks is one that the parser
// takes.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found, code := 0, false
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		indented := strings.HasPrefix(line, "    ")
		line = strings.TrimSpace(line)
		command := commandInReadme.FindStringSubmatch(line)
		if !code && !indented || command == nil {
			continue
		}
		found++
		if _, err := kong.Must(&commands{}).Parse(wordsOf(command[1])); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if found < 10 {
		t.Errorf("%d commands found: does the README write them in another way now?", found)
	}
}

// wordsOf splits a command line as a shell does that knows single quotes,
// comments, a redirection and a final &.
func wordsOf(s string) []string {
	words := wordInReadme.FindAllString(s, -1)
	if i := slices.IndexFunc(words, func(w string) bool { return w[0] == '#' || w == "&" || w == ">" }); i >= 0 {
		words = words[:i]
	}
	for i := range words {
		words[i] = strings.Trim(words[i], "'")
	}
	return words
}
