package xrpc

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed lexicons/*.json
var lexiconFiles embed.FS

// Lexicons are the documents of the methods that a node serves, one file for
// each NSID, for whoever generates a client. Those of com.atproto are the
// reference's, but that a space and a record may be named in either spelling.
func Lexicons() fs.FS {
	files, err := fs.Sub(lexiconFiles, "lexicons")
	if err != nil {
		panic(err) // the folder is in the binary
	}
	return files
}

type lexiconsAnswer struct {
	Lexicons []string `json:"lexicons"`
}

// lexicon serves the documents to everybody: nothing in them is this node's.
func (c *call) lexicon(nsid string) error {
	if err := c.verbs(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if nsid == "" {
		files, err := fs.Glob(Lexicons(), "*.json")
		for i, name := range files {
			files[i] = strings.TrimSuffix(name, ".json")
		}
		c.answer(http.StatusOK, lexiconsAnswer{files})
		return err
	}
	text, err := fs.ReadFile(Lexicons(), strings.TrimSuffix(nsid, ".json")+".json")
	if err != nil {
		return faultf(errNSID, "%s: this node has no lexicon of it", clip(nsid))
	}
	c.answer(http.StatusOK, rawJSON(string(text)))
	return nil
}
