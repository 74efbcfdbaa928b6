package keyfile

import "io/fs"

// syncDir does nothing: Windows has no fsync of a directory, and NTFS journals
// its names.
func (*Store) syncDir(string) error { return nil }

// narrow does nothing: access is a matter of the ACL the user's profile gives.
func narrow(string, fs.FileMode) (string, error) { return "", nil }
