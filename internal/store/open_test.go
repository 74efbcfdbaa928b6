package store

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/envelope"
)

var testKey = [32]byte{1}

func openDisk(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	return must[*Store](t)(Open(dir, testKey, opts))
}

func TestReopenKeepsAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for i := range 3 {
		s := openDisk(t, dir, Options{})
		if s.Recovered() || s.DamagedCopy() != "" {
			t.Error("recovered without damage")
		}
		sp := s.Space([32]byte{1}, [32]byte{2})
		rows := collect(t, sp.Control())
		equal(t, "rows", len(rows), i)
		commit(t, sp, Class(i), &Batch{Control: []ControlRow{{uint64(i), []byte("x")}}})
		closeStore(t, s)
		if err := sp.Commit(Own, &Batch{Control: []ControlRow{{9, nil}}}); !errors.Is(err, ErrClosed) {
			t.Errorf("commit after Close: %v", err)
		}
		if _, _, err := sp.Meta("x"); !errors.Is(err, ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	}
}

const (
	lockHelper  = "KITH_STORE_TEST_HOLD"  // a directory: hold it open
	writeHelper = "KITH_STORE_TEST_WRITE" // and write to it
)

// writeForever says the number of each commit that is acknowledged.
func writeForever(s *Store) {
	sp := s.Space(historyID, historyDEK)
	rows, err := countRows(sp)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := len(rows); ; i++ {
		b := entry(i)
		b.Control[0].Raw = make([]byte, 3000)
		if err := sp.Commit(Class(i%2), b); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

// countRows counts the control entries by number.
func countRows(sp *Space) (map[uint64]int, error) {
	n := map[uint64]int{}
	for row, err := range sp.Control() {
		if err != nil {
			return nil, err
		}
		n[row.Seq]++
	}
	return n, nil
}

// A process that is killed loses nothing that it acknowledged, in any class.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), lockHelper+"="+dir, writeHelper+"=1")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		last := -1
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				last = n
			} else if lines.Text() != "open" {
				t.Fatal(lines.Text())
			}
			if last%100 == 99 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		s := openDisk(t, dir, Options{})
		rows := must[map[uint64]int](t)(countRows(s.Space(historyID, historyDEK)))
		if last < 99 || len(rows) <= last || rows[uint64(last)] != 1 {
			t.Errorf("%d was acknowledged, %d rows are there", last, len(rows))
		}
		closeStore(t, s)
	}
}

// TestMain lets the test binary be the other process.
func TestMain(m *testing.M) {
	if dir := os.Getenv(lockHelper); dir != "" {
		s, err := Open(dir, testKey, Options{WriteBufferBytes: minWriteBuffer})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("open")
		if os.Getenv(writeHelper) != "" {
			writeForever(s)
		}
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openDisk(t, dir, Options{})
	if _, err := Open(dir, testKey, Options{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("in the same process: %v", err)
	}
	closeStore(t, s)

	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), lockHelper+"="+dir)
	in := must[interface{ Close() error }](t)(other.StdinPipe())
	out, err := other.StdoutPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other process says %q", line)
	}
	if _, err := Open(dir, testKey, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("in another process: %v", err)
	}
	_ = in.Close()
	_ = other.Wait()
	closeStore(t, openDisk(t, dir, Options{}))
}

func TestFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	closeStore(t, openDisk(t, dir, Options{}))
	format := filepath.Join(dir, formatFile)
	good := must[[]byte](t)(os.ReadFile(format))
	if _, err := Open(dir, [32]byte{9}, Options{}); !errors.Is(err, ErrKey) {
		t.Errorf("under another key: %v", err)
	}
	for text, want := range map[string]error{
		strings.Replace(string(good), "store 4", "store 5", 1): ErrNewer,
		strings.Replace(string(good), "store 4", "store 0", 1): ErrDamaged,
		"":                ErrDamaged,
		"kith store 1 \n": ErrDamaged,
	} {
		if err := os.WriteFile(format, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		before := listing(t, dir)
		_, err := Open(dir, testKey, Options{})
		if !errors.Is(err, want) {
			t.Errorf("format %q: %v", text, err)
		}
		equal(t, "files", listing(t, dir), before)
		if want == ErrNewer && !strings.Contains(err.Error(), "format is 5, this version reads up to 4; upgrade kith, nothing was changed") {
			t.Errorf("unclear: %v", err)
		}
	}
	// An older one is raised: its own version would no longer know what is there.
	for _, text := range []string{string(good), "store 3", "store 2", "store 1"} {
		if text != string(good) {
			text = strings.Replace(string(good), "store 4", text, 1)
		}
		if err := os.WriteFile(format, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openDisk(t, dir, Options{})
		equal(t, "format", must[[]byte](t)(os.ReadFile(format)), good)
		if s.Recovered() {
			t.Error("an older version is taken for damage")
		}
		closeStore(t, s)
	}
}

func listing(t testing.TB, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			info := must[fs.FileInfo](t)(d.Info())
			files = append(files, fmt.Sprint(path, info.Size(), info.ModTime()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// What is put into any table stands nowhere on disk, in no common writing.
func TestCanary(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openDisk(t, dir, Options{WriteBufferBytes: minWriteBuffer})
	sp := s.Space([32]byte{1}, [32]byte{2})
	const canary = "canary-in-the-coal-mine"
	did := space.DID("did:web:" + canary + ".example")
	path := space.Path{Collection: "com.canary-in-the-coal-mine.note", Key: canary}
	value := testRecord(t, canary)
	c := newChain(t, 1, 2)
	for i := range 40 {
		b := &Batch{
			Run:     c.next(20),
			Records: []RecordRow{{Author: did, Path: path, Leaf: space.Leaf{CID: value.CID()}, Value: value}},
			Repos:   []RepoRow{{Author: did, Stmt: testStatement()}},
			Ops:     []OpPage{{Author: did, First: uint64(i), Rows: []OpRow{{Path: path, CID: value.CID()}}}},
			Topic:   &TopicRow{ID: c.topic},
			Applied: []AppliedRow{{Topic: c.topic, Chain: c.chain.ID, State: []byte(canary)}},
			Control: []ControlRow{{uint64(i), []byte(canary)}},
			Outbox:  []OutboxRow{{uint64(i), []byte(canary)}},
			Meta:    map[string][]byte{canary: []byte(canary)},
		}
		commit(t, sp, Derived, b)
		if err := s.Put(canary, []byte(canary), []byte(canary), Own); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	secrets := map[string][]byte{
		"text": []byte(canary), "author": []byte(did), "collection": []byte(path.Collection), "cid": value.CID().Bytes(),
		"chain": c.chain.ID[:], "topic": c.topic[:], "envelope": c.next(1).Envs[0].AAD()[:40],
		"space": bytesOf(0, 31), "dek": append([]byte{2}, bytesOf(0, 31)...), "key": testKey[:],
	}
	delete(secrets, "space") // zeros are everywhere
	searchFiles(t, dir, secrets)
}

func searchFiles(t *testing.T, dir string, secrets map[string][]byte) {
	t.Helper()
	tables := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasSuffix(path, ".ldb") {
			tables++
		}
		data := must[[]byte](t)(os.ReadFile(path))
		for what, secret := range secrets {
			for _, form := range writings(secret) {
				if bytes.Contains(data, form) {
					t.Errorf("%s stands in %s as %q", what, filepath.Base(path), form)
				}
			}
		}
		return nil
	})
	if err != nil || tables == 0 {
		t.Fatalf("%v, %d tables", err, tables)
	}
}

// writings are the ways in which a text may show: as it is, in hexadecimal,
// and in base64 at each of three offsets, less what depends on its neighbours.
func writings(secret []byte) [][]byte {
	forms := [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret)))}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for i := range 3 {
			s := secret[i:]
			forms = append(forms, []byte(enc.EncodeToString(s[:len(s)/3*3])))
		}
	}
	return forms
}

// fillDisk writes a store with tables and a log, and gives what it holds.
func fillDisk(t *testing.T, dir string) (want map[string]string, c *chainMaker, envs []envelope.Envelope) {
	t.Helper()
	s, want, c, envs := fillOpen(t, dir)
	closeStore(t, s)
	return want, c, envs
}

// fillOpen leaves it open.
func fillOpen(t *testing.T, dir string) (s *Store, want map[string]string, c *chainMaker, envs []envelope.Envelope) {
	t.Helper()
	s = openDisk(t, dir, Options{WriteBufferBytes: minWriteBuffer})
	sp := s.Space(historyID, historyDEK)
	want, c = map[string]string{}, newChain(t, 1, 2)
	topic := TopicRow{ID: c.topic}
	for i := range 40 {
		name := fmt.Sprint("row ", i)
		want[name] = fmt.Sprint("value ", i)
		b := &Batch{Meta: map[string][]byte{name: append([]byte(want[name]), make([]byte, 2000)...)}, Run: c.next(5), Topic: &topic}
		fold(&topic, b.Run.Envs)
		envs = append(envs, b.Run.Envs...)
		commit(t, sp, Own, b)
	}
	return s, want, c, envs
}

// inspect opens a damaged directory and checks that whatever reads back is
// what was written, and that what is missing was announced.
func inspect(t *testing.T, what, dir string, want map[string]string, c *chainMaker, envs []envelope.Envelope) {
	t.Helper()
	s, err := Open(dir, testKey, Options{WriteBufferBytes: minWriteBuffer})
	if err != nil {
		return // detected
	}
	defer s.Close()
	detected := s.Recovered()
	sp := s.Space(historyID, historyDEK)
	missing := 0
	for name, value := range want {
		v, ok, err := sp.Meta(name)
		switch {
		case errors.Is(err, ErrDamaged):
			detected = true
		case err != nil:
			t.Fatalf("%s: %v", what, err)
		case !ok:
			missing++
		case trim(v) != value:
			t.Fatalf("%s: %s reads %q", what, name, trim(v))
		}
	}
	run, err := sp.Run(c.topic, c.chain.ID, 0, 1000, 1<<30)
	if errors.Is(err, ErrDamaged) {
		detected = true
	} else if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for i, e := range run {
		if e.ID() != envs[i].ID() {
			t.Fatalf("%s: another envelope at %d", what, i)
		}
	}
	if missing > 0 && !detected && !strings.Contains(what, ".log cut") {
		t.Fatalf("%s: %d rows are missing without a word", what, missing)
	}
	if detected && !s.Recovered() {
		_ = s.Close()
		heals(t, what, dir)
		return
	}
	if detected {
		repaired(t, what, sp, len(envs))
	}
}

// heals checks that a store which met damage while it was open repairs it when
// it is opened again.
func heals(t *testing.T, what, dir string) {
	t.Helper()
	s, err := Open(dir, testKey, Options{})
	if err != nil {
		t.Fatalf("%s: open again: %v", what, err)
	}
	defer s.Close()
	if !s.Recovered() || s.DamagedCopy() == "" {
		t.Fatalf("%s: not recovered", what)
	}
	repaired(t, what, s.Space(historyID, historyDEK), 1<<30)
}

// repaired checks that after Repair a space adds up.
func repaired(t *testing.T, what string, sp *Space, most int) {
	t.Helper()
	if _, err := sp.Repair(t.Context()); err != nil {
		t.Fatalf("%s: repair: %v", what, err)
	}
	again, err := sp.Audit(t.Context(), true)
	if err != nil || len(again.Gaps)+len(again.Topics) > 0 {
		t.Fatalf("%s: after repair: %+v, %v", what, again, err)
	}
	for topic, err := range sp.Topics() {
		if err != nil || topic.Count > uint64(most) {
			t.Fatalf("%s: topic of %d, %v", what, topic.Count, err)
		}
		var chains []envelope.Chain
		for chain, err := range sp.Chains(topic.ID) {
			if err != nil {
				t.Fatalf("%s: chains: %v", what, err)
			}
			chains = append(chains, chain)
		}
		if _, err := envelope.RestoreTopic(topic.ID, chains, topic.Count, topic.State); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// copyStore copies a closed store.
func copyStore(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// Flipped bits, cut ends, zeroed pages and missing files, in every file.
func TestDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	want, c, envs := fillDisk(t, dir)
	// A store closed while a log becomes a table has two logs, and the loss of
	// the newer one cannot be told from a power cut. Opening settles it.
	for len(must[[]string](t)(filepath.Glob(filepath.Join(dir, dbDir, "*.log")))) > 1 {
		closeStore(t, openDisk(t, dir, Options{}))
	}
	damageAll(t, dir, want, c, envs)
	gone := copyStore(t, dir)
	if err := os.RemoveAll(filepath.Join(gone, dbDir)); err != nil {
		t.Fatal(err)
	}
	inspect(t, "database gone", gone, want, c, envs)
}

// The same on what a killed process leaves: a log that goes on in zeros.
func TestDamageAfterKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, want, c, envs := fillOpen(t, dir)
	defer closeStore(t, s)
	// A memory table that is full becomes a table in the background; copied
	// meanwhile, the store would have two logs, see TestDamage.
	killed := ""
	for i := 0; killed == ""; i++ {
		if i == 2000 { // that table takes its time on a machine that does other things
			t.Fatal("no log is written ahead")
		}
		name := fmt.Sprint("n ", i) // another each time: some may be in a table before a log is written ahead
		want[name] = fmt.Sprint(i)
		commit(t, s.Space(historyID, historyDEK), Own, &Batch{Meta: map[string][]byte{name: []byte(want[name])}})
		copied := filepath.Join(t.TempDir(), "store")
		if err := os.CopyFS(copied, os.DirFS(dir)); errors.Is(err, fs.ErrNotExist) {
			continue // that table was made just now
		} else if err != nil {
			t.Fatal(err)
		}
		logs := must[[]string](t)(filepath.Glob(filepath.Join(copied, dbDir, "*.log")))
		data := must[[]byte](t)(os.ReadFile(logs[0]))
		if len(logs) == 1 && (!datasyncs || endOf(t, data) < len(data)) {
			killed = copied
		}
	}
	sound := openDisk(t, copyStore(t, killed), Options{})
	if sound.Recovered() {
		t.Error("what a killed process leaves looks like damage")
	}
	for name, value := range want {
		v, _, err := sound.Space(historyID, historyDEK).Meta(name)
		equal(t, name, []any{trim(v), err}, []any{value, nil})
	}
	closeStore(t, sound)
	damageAll(t, killed, want, c, envs)
}

func damageAll(t *testing.T, dir string, want map[string]string, c *chainMaker, envs []envelope.Envelope) {
	t.Helper()
	files := must[[]string](t)(listFiles(filepath.Join(dir, dbDir)))
	rng := rand.New(rand.NewPCG(1, 1))
	for _, name := range files {
		if name == "LOG" {
			continue
		}
		tries := 8
		if name == "LOCK" || strings.HasPrefix(name, "CURRENT") {
			tries = 4
		}
		for i := range tries {
			damaged := copyStore(t, dir)
			what := damage(t, rng, filepath.Join(damaged, dbDir, name), i%4)
			inspect(t, what, damaged, want, c, envs)
		}
	}
}

func damage(t *testing.T, rng *rand.Rand, file string, kind int) string {
	t.Helper()
	data := must[[]byte](t)(os.ReadFile(file))
	what := filepath.Base(file)
	if kind == 0 || len(data) == 0 {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		return what + " deleted"
	}
	at := rng.IntN(len(data))
	switch kind {
	case 1:
		what += fmt.Sprint(" cut by ", len(data)-at)
		data = data[:at]
	case 2:
		what += fmt.Sprint(" zeroed at ", at)
		clear(data[at:min(len(data), at+4096)])
	case 3:
		data[at] ^= 1 << rng.IntN(8)
		what += fmt.Sprint(" flipped at ", at)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return what
}

// A damaged database is kept as it was found, and not more than a few of them.
func TestDamagedCopies(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "store")
	fillDisk(t, dir)
	for i := range keepCopies + 2 {
		tables := must[[]string](t)(filepath.Glob(filepath.Join(dir, dbDir, "*.ldb")))
		data := must[[]byte](t)(os.ReadFile(tables[0]))
		if err := os.Truncate(tables[0], int64(len(data)-1)); err != nil {
			t.Fatal(err)
		}
		s := openDisk(t, dir, Options{})
		copied := s.DamagedCopy()
		equal(t, "copy", copied, fmt.Sprintf("%s.damaged-%d", dir, i+1))
		kept := must[[]byte](t)(os.ReadFile(filepath.Join(copied, filepath.Base(tables[0]))))
		if !bytes.Equal(kept, data[:len(data)-1]) {
			t.Error("the copy is not what was found")
		}
		sp := s.Space(historyID, historyDEK)
		for j := range 40 {
			commit(t, sp, Own, &Batch{Meta: map[string][]byte{fmt.Sprint("new ", i, j): make([]byte, 3000)}})
		}
		closeStore(t, s)
	}
	equal(t, "copies", must[[]int](t)(damagedCopies(dir)), []int{3, 4, 5})
}
