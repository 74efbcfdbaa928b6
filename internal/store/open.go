package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/kithnet/kith/space"
)

// FormatVersion is the version of the directory this code writes. It reads
// every version up to it.
//
//	1  the first
//	2  logs that end before their files do; what is held, and objects
//	3  envelopes that are dropped while their ids stay
//	4  oplogs that begin behind their first op
const FormatVersion = 4

const (
	formatFile = "FORMAT"
	lockFile   = "LOCK"
	repairFile = "REPAIR" // left by noteDamage
	auditFile  = "AUDIT"  // there from a repair until Audited
	dbDir      = "db"
)

// Open opens the store in dir, making it if there is none; dir "" is a store
// in memory. key is the node's store key: it opens the settings, spaces have
// their own.
//
// Damage is repaired as far as it can be, after a copy was made beside dir;
// then Recovered reports true, and every Space wants an Audit. On a full disk
// the store opens for reading, and Err says so.
func Open(dir string, key [32]byte, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	s := &Store{dir: dir, node: newVault([32]byte{}, key)}
	if dir == "" {
		if err := s.start(&disk{}, opts); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
		return s, nil
	}
	err := s.lockDir()
	if err == nil {
		err = s.openDir(key, opts)
		if err != nil {
			err = errors.Join(err, s.lock.Unlock())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

// OpenOn opens a store on another medium than a directory: without format
// file, lock and copies of damage. If the database is damaged it is opened as
// repaired, and Recovered reports true.
func OpenOn(m Medium, key [32]byte, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	opts.ahead = true
	s := &Store{node: newVault([32]byte{}, key)}
	err := s.start(m, opts)
	if errors.Is(err, ErrDamaged) {
		s.recovered = true
		err = s.start(m, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *Store) lockDir() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	s.lock = flock.New(filepath.Join(s.dir, lockFile))
	switch ok, err := s.lock.TryLock(); {
	case err != nil:
		return err
	case !ok:
		return ErrInUse
	}
	return nil
}

func (s *Store) openDir(key [32]byte, opts Options) error {
	version, err := s.checkFormat(key)
	if err != nil {
		return err
	}
	d := &disk{dir: filepath.Join(s.dir, dbDir)}
	damaged, err := s.examine(d, opts, version > 0)
	if err != nil {
		return err
	}
	if version > 0 && version < FormatVersion {
		if version, err = s.upgrade(key, version); err != nil {
			return err
		}
	}
	opts.ahead = datasyncs && (version == 0 || version == FormatVersion)
	_, err = os.Stat(filepath.Join(s.dir, auditFile))
	s.recovered = damaged || err == nil
	if err := s.start(d, opts); err != nil {
		return err
	}
	if version > 0 {
		return nil
	}
	if err := s.writeFormat(key); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// upgrade raises the version before anything is written that an older one does
// not know. On a full disk it stays as it is until the next start.
func (s *Store) upgrade(key [32]byte, version int) (int, error) {
	switch err := s.writeFormat(key); {
	case errors.Is(err, ErrFull):
		return version, nil
	case err != nil:
		return version, err
	}
	return FormatVersion, nil
}

// start opens the database on a medium and begins to take writes.
func (s *Store) start(m Medium, opts Options) error {
	how := strict
	if s.recovered {
		how = lenient
	}
	var cause error
	db, err := openOn(m, opts, how)
	if err != nil && isFull(err) {
		cause = writeError(err)
		db, err = openOn(m, opts, readOnly)
	}
	if err != nil {
		return readError(err)
	}
	s.engine = newEngine(m, opts)
	if err := s.engine.start(db, cause); err != nil {
		return errors.Join(err, db.Close())
	}
	s.run()
	return nil
}

// examine reports whether the database is damaged, as far as can be told
// without reading it all, and if so copies it aside and makes it fit to be
// opened. A database that is gone although its directory is known is damaged
// as well.
func (s *Store) examine(d *disk, opts Options, known bool) (damaged bool, err error) {
	if err := s.finishReplacing(); err != nil {
		return false, err
	}
	files, err := listFiles(d.dir)
	if err != nil {
		return false, err
	}
	if len(files) == 0 && known {
		return true, s.wantAudit()
	}
	if len(files) == 0 {
		return false, nil
	}
	_, noted := os.Stat(filepath.Join(s.dir, repairFile))
	damage := checkDatabase(d, opts)
	if damage == nil && noted != nil {
		return false, nil
	}
	if damage != nil && isFull(damage) {
		return false, damage
	}
	if err := s.wantAudit(); err != nil {
		return false, err
	}
	if s.copied, err = copyAside(d.dir, s.dir); err != nil {
		return false, fmt.Errorf("copy damaged database (%w) aside: %w", damage, err)
	}
	if err := s.rebuild(d, opts, noted == nil, damage); err != nil {
		return false, fmt.Errorf("rebuild damaged database, of which a copy is in %s: %w", s.copied, readError(err))
	}
	if noted == nil {
		err = os.Remove(filepath.Join(s.dir, repairFile))
	}
	return true, err
}

// wantAudit makes Recovered report true until Audited, however often the store
// is opened.
func (s *Store) wantAudit() error {
	f, err := os.OpenFile(filepath.Join(s.dir, auditFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDir(s.dir))
}

// keyCheck tells keys apart in the format file.
func keyCheck(key [32]byte) string {
	sum := space.MAC(key[:], space.LabelStoreIndex, []byte(formatFile))
	return hex.EncodeToString(sum[:8])
}

// checkFormat refuses a newer version and another key. It gives the version of
// the format file, 0 if there is none; a database from before always has one.
func (s *Store) checkFormat(key [32]byte) (version int, err error) {
	b, err := os.ReadFile(filepath.Join(s.dir, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) != 5 || fields[0] != "kith" || fields[1] != "store" || fields[3] != "key" {
		return 0, fmt.Errorf("%s: %w", formatFile, ErrDamaged)
	}
	version, err = strconv.Atoi(fields[2])
	if err != nil || version < 1 {
		return 0, fmt.Errorf("%s: %w", formatFile, ErrDamaged)
	}
	if version > FormatVersion {
		return 0, fmt.Errorf("%w: its format is %d, this version reads up to %d; upgrade kith, nothing was changed",
			ErrNewer, version, FormatVersion)
	}
	if fields[4] != keyCheck(key) {
		return 0, ErrKey
	}
	return version, nil
}

// writeFormat names the version once the database is there.
func (s *Store) writeFormat(key [32]byte) (err error) {
	name := filepath.Join(s.dir, formatFile)
	f, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "kith store %d\nkey %s\n", FormatVersion, keyCheck(key))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(name+".tmp", name)
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil && isFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// closeDB closes a database that was only looked at.
func closeDB(db *leveldb.DB, err error) error {
	if err != nil {
		return err
	}
	return db.Close()
}
