package node

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/space/identity"
)

// FuzzIdentityMessages reads bytes from a stranger as every message of the
// identity and the device protocol: what is accepted encodes back to the same
// bytes.
func FuzzIdentityMessages(f *testing.F) {
	for _, v := range []any{
		identityAsk{Ver: 1, C: make([]byte, 32), Head: make([]byte, 32), Log: [][]byte{{1}}, List: []byte{}, Device: []byte{}, Proof: []byte{}},
		identityTold{Log: [][]byte{{1}, {2}}, More: true, List: []byte{3}},
		opening{Ver: 1, Nonce: make([]byte, 32)},
		box{Sealed: []byte{1}},
		enrolWho{C: make([]byte, 32), DID: "did:web:a.example", Caps: 7},
		enrolRequest{Request: []byte{1}, Name: "phone"},
		enrolGranted{Log: [][]byte{{1}}, List: []byte{2}},
		enrolDone{OK: true},
		accountRecord{List: []byte{1}, Skipped: [][]byte{make([]byte, 32)}},
		backupHead{Ver: 1, C: make([]byte, 32), Root: []byte{1}, Locked: []byte{}},
		backupMade{AtMs: 1, Device: make([]byte, 32), DID: "did:web:a.example"},
		copyRecord{MadeMs: 1, RestoredMs: 2},
	} {
		b, err := space.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		back(t, in, &identityAsk{})
		back(t, in, &identityTold{})
		back(t, in, &opening{})
		back(t, in, &box{})
		back(t, in, &enrolWho{})
		back(t, in, &enrolRequest{})
		back(t, in, &enrolGranted{})
		back(t, in, &enrolDone{})
		back(t, in, &accountRecord{})
		back(t, in, &backupHead{})
		back(t, in, &backupMade{})
		back(t, in, &copyRecord{})
		var g enrolGranted
		if back(t, in, &g) {
			w := &enrolment{}
			if dev, err := identity.NewDevice(bytes.NewReader(make([]byte, 200))); err == nil {
				w.device = dev
				if _, err := w.believe(g, identity.Commitment{}); err == nil {
					t.Fatal("a machine believed a log that nobody signed")
				}
			}
		}
	})
}

// FuzzBackupItems reads bytes as the items of a backup: what is read is
// written again as the same bytes, and a length alone takes no memory.
func FuzzBackupItems(f *testing.F) {
	var b bytes.Buffer
	w := &items{w: &b}
	w.put(itemMade, nil, []byte("made"))
	w.put(itemRow, []byte("key"), []byte("value"))
	f.Add(b.Bytes())
	f.Add([]byte{3, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{3, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		var out bytes.Buffer
		w := &items{w: &out}
		for {
			it, err := readItem(r)
			if err != nil {
				break
			}
			w.put(it.kind, it.name, it.value)
		}
		if !bytes.HasPrefix(in, out.Bytes()) {
			t.Fatalf("%x became %x", in, out.Bytes())
		}
	})
}
