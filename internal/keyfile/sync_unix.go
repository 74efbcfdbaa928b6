//go:build !windows

package keyfile

import (
	"fmt"
	"io/fs"
	"os"
)

// syncDir makes the names in dir durable.
func (s *Store) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = s.sync(d)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// narrow takes away what others may do with path, and says what they could.
func narrow(path string, want fs.FileMode) (warning string, err error) {
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm()&^want == 0 {
		return "", err
	}
	if err := os.Chmod(path, fi.Mode().Perm()&want); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s was open to other users (mode %04o) and has been closed; if they are not to be trusted, its keys may be known", path, fi.Mode().Perm()), nil
}
