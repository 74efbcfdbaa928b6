package main

import (
	"io"
	"runtime"
	"runtime/debug"
)

// baseVersion is the version this code leads to.
const baseVersion = "0.1.0"

type versionCmd struct{}

// build is what this binary was made from.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

// thisBuild reads what the compiler noted. A binary built outside of a
// checkout knows no commit.
func thisBuild() build {
	b := build{Version: baseVersion, Commit: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	changed := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if changed {
		b.Commit += "+changes"
	}
	return b
}

// Run prints version, commit and Go.
func (*versionCmd) Run(a *app) error {
	b := thisBuild()
	return a.answer(b, func(w io.Writer) {
		line(w, "kith", "%s", b.Version)
		line(w, "commit", "%s", b.Commit)
		line(w, "go", "%s", b.Go)
	})
}
