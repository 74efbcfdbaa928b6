package control

import (
	"fmt"
	"strings"
)

// Caps is what a keeper may do for a space. The bits stand on the wire.
type Caps uint32

// The capabilities.
const (
	CapAdmit      Caps = 1 << iota // hold the issuer, admit newcomers, rotate
	CapSequence                    // be appointed to order the log
	CapCredential                  // sign credentials for services
	CapServe                       // serve those who have no replica

	// CapAll is what the authority holds.
	CapAll = CapAdmit | CapSequence | CapCredential | CapServe
)

var capNames = [...]string{"admit", "sequence", "credential", "serve"}

// ParseCaps reads names with commas between them; "" is none.
func ParseCaps(text string) (Caps, error) {
	var c Caps
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		bit := Caps(0)
		for i, n := range capNames {
			if n == name {
				bit = 1 << i
			}
		}
		if bit == 0 {
			return 0, malformed("capability %q: want %s", name, strings.Join(capNames[:], ", "))
		}
		c |= bit
	}
	return c, nil
}

// String is the names, as ParseCaps reads them.
func (c Caps) String() string {
	var names []string
	for i, n := range capNames {
		if c&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	if rest := c &^ CapAll; rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)))
	}
	return strings.Join(names, ",")
}

// Has reports whether c holds all of want.
func (c Caps) Has(want Caps) bool { return c&want == want }
