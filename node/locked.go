package node

import (
	"path/filepath"

	"github.com/kithnet/kith/internal/keyfile"
	"github.com/kithnet/kith/internal/store"
)

// ErrInUse: another process runs a node in this home.
var ErrInUse = store.ErrInUse

// Locked reports whether the keys of home need a passphrase, so that a caller
// knows whether to ask for one.
func Locked(home string) (bool, error) { return keyfile.IsProtected(filepath.Join(home, keysDir)) }
