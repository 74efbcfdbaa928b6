package local

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

const (
	canarySize = 24 // bytes of text that stand for the whole
	windowSize = 8  // bytes by which a canary is found; the shortest there is
)

// secrecy reads every byte under the homes, and the logs beside them, while
// the nodes run.
func (d *demo) secrecy(ctx context.Context) (string, error) {
	s := newScanner(d.canaries)
	files, size := 0, int64(0)
	for _, n := range append(d.all(), d.relays...) {
		for _, root := range []string{n.home, logOf(n.home)} {
			f, b, err := s.search(ctx, d.dir, root)
			if err != nil {
				return "", err
			}
			files += f
			size += b
		}
	}
	return fmt.Sprintf("none of %d pieces of text, names and secrets, plain, in hex or in base64, in %d files of %d KiB",
		len(d.canaries), files, size>>10), nil
}

// search reads all files under root and fails at the first canary, naming the
// file from dir on.
func (s *scanner) search(ctx context.Context, dir, root string) (files int, size int64, err error) {
	err = filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return absent(err)
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if c := s.find([]byte(rel)); c != nil {
			return fmt.Errorf("a file is named after %q", c)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return absent(err)
		}
		files++
		size += int64(len(b))
		if c := s.find(b); c != nil {
			return fmt.Errorf("%s holds %q in the clear", rel, c)
		}
		return nil
	})
	return files, size, err
}

// absent forgives a file that a running node removed meanwhile.
func absent(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// scanner finds any of many words in bytes in one pass: by the first eight
// bytes of each, of which a bitmap on two says where a look is worth it.
type scanner struct {
	pairs [1 << 16]bool
	words map[uint64][]spelling
}

type spelling struct {
	text []byte // as it would stand there
	of   []byte // the canary
}

// newScanner takes canaries as they are and as text encodings of them. Those
// shorter than the window, in one spelling, are left out: they would be found
// by chance.
func newScanner(canaries [][]byte) *scanner {
	s := &scanner{words: map[uint64][]spelling{}}
	seen := map[string]bool{}
	for _, c := range canaries {
		if seen[string(c)] {
			continue
		}
		seen[string(c)] = true
		s.add(c, c)
		s.add([]byte(hex.EncodeToString(c)), c)
		for skip := range 3 { // where a group of three may begin
			if len(c) <= skip {
				continue
			}
			part := c[skip:]
			part = part[:len(part)/3*3]
			s.add([]byte(base64.StdEncoding.EncodeToString(part)), c)
			s.add([]byte(base64.URLEncoding.EncodeToString(part)), c)
		}
	}
	return s
}

func (s *scanner) add(text, of []byte) {
	if len(text) < windowSize {
		return
	}
	s.pairs[binary.LittleEndian.Uint16(text)] = true
	key := binary.LittleEndian.Uint64(text)
	s.words[key] = append(s.words[key], spelling{text, of})
}

// find answers the first canary in b, or nil.
func (s *scanner) find(b []byte) []byte {
	for i := 0; i+windowSize <= len(b); i++ {
		if !s.pairs[binary.LittleEndian.Uint16(b[i:])] {
			continue
		}
		for _, w := range s.words[binary.LittleEndian.Uint64(b[i:])] {
			if len(b)-i >= len(w.text) && string(b[i:i+len(w.text)]) == string(w.text) {
				return w.of
			}
		}
	}
	return nil
}

// fragments are pieces of a post: of its text if that is long enough, else of
// the record's bytes.
func fragments(p post) []string {
	text := p.text
	if len(text) < canarySize {
		return []string{middle(string(p.record))}
	}
	return []string{cut(text, canarySize), middle(text)}
}

// middle is a canary out of the middle of s, on rune borders where s is text.
func middle(s string) string {
	from := max(0, len(s)/2-canarySize/2)
	for from > 0 && !utf8.RuneStart(s[from]) {
		from--
	}
	return cut(s[from:], canarySize)
}

func cut(s string, n int) string {
	n = min(n, len(s))
	for n < len(s) && !utf8.RuneStart(s[n]) {
		n++
	}
	return s[:n]
}

// linkSecrets are the secret of an invite link, as bytes and as the text it is
// handed out in.
func linkSecrets(link string) []string {
	_, frag, ok := strings.Cut(link, "#")
	b, err := base64.RawURLEncoding.DecodeString(frag)
	if !ok || err != nil || len(b) < 33 {
		return nil
	}
	return []string{string(b[1:33]), frag[2:42]}
}
