// Package testdata carries the data of the test network into the binary: a
// small invented forum, one JSON object a line, that the demonstration writes
// into a space. It holds nothing else, promises nothing about the texts, and
// refuses no reader: the bytes are shared and must not be changed.
package testdata

import _ "embed"

// Forum is forum.jsonl.
//
//go:embed forum.jsonl
var Forum []byte
