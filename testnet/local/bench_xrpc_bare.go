package local

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// bareStart is the first line of the bare server.
type bareStart struct {
	Addr string `json:"addr"`
}

// XRPCBare serves what the HTTP benchmarks are compared with, until in ends:
// handlers that decode and encode the same JSON around one access to the same
// store engine, with nothing in between. args is an empty directory.
func XRPCBare(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("xrpc-bare: want one argument, a directory")
	}
	db, err := leveldb.OpenFile(args[0], nil)
	if err != nil {
		return fmt.Errorf("xrpc-bare: %w", err)
	}
	defer db.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("xrpc-bare: %w", err)
	}
	b := &bareServer{db: db}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /put", b.put)
	mux.HandleFunc("POST /batch", b.batch)
	mux.HandleFunc("GET /get", b.get)
	mux.HandleFunc("GET /list", b.list)
	mux.HandleFunc("POST /fill", b.fill)
	mux.HandleFunc("GET /loop", b.loop)
	mux.HandleFunc("GET /feed", b.feed)
	mux.HandleFunc("POST /publish", b.publish)
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	defer s.Close()
	if err := json.NewEncoder(out).Encode(bareStart{"http://" + l.Addr().String()}); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, in)
		close(ended)
	}()
	select {
	case <-ctx.Done():
	case <-ended:
	}
	return nil
}

type bareServer struct {
	db  *leveldb.DB
	seq atomic.Uint64

	mu      sync.Mutex // guards what follows
	readers []chan []byte
}

func valueKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte("k"), n) }

func fail(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// put is one JSON body and one synced write.
func (b *bareServer) put(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	var v struct {
		Space, Collection string
		Record            map[string]any
	}
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	if err == nil {
		err = b.db.Put(valueKey(1<<40+b.seq.Add(1)), raw, &opt.WriteOptions{Sync: true})
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]string{"uri": v.Space + "/" + v.Collection, "cid": "x"})
}

// batch is one JSON body of many records and one synced write of all.
func (b *bareServer) batch(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	var v struct {
		Writes []struct {
			Rkey  string
			Value map[string]any
		}
	}
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	var batch leveldb.Batch
	for _, o := range v.Writes {
		value, _ := json.Marshal(o.Value) // it came from JSON
		batch.Put(valueKey(1<<40+b.seq.Add(1)), value)
	}
	if err == nil {
		err = b.db.Write(&batch, &opt.WriteOptions{Sync: true})
	}
	if err != nil {
		fail(w, err)
		return
	}
	results := make([]map[string]string, len(v.Writes))
	for i := range results {
		results[i] = map[string]string{"uri": v.Writes[i].Rkey}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"results": results})
}

// fill stores n values of size bytes in batches, so that they lie on the disk as
// a node's do.
func (b *bareServer) fill(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.ParseUint(r.FormValue("n"), 10, 32)
	size, _ := strconv.Atoi(r.FormValue("size"))
	value := make([]byte, size)
	for from := uint64(0); from < n; from += 200 {
		var batch leveldb.Batch
		for i := from; i < min(n, from+200); i++ {
			for j := 0; j+8 <= size; j += 8 { // nothing that compresses, as ciphertext does not
				binary.BigEndian.PutUint64(value[j:], (i+1)*0x9e3779b97f4a7c15+uint64(j)*0xbf58476d1ce4e5b9)
			}
			batch.Put(valueKey(scatter(i)), value)
		}
		if err := b.db.Write(&batch, nil); err != nil {
			fail(w, err)
			return
		}
	}
}

// scatter spreads keys over the tables, as blinded ones are.
func scatter(n uint64) uint64 { return (n * 0x9e3779b97f4a7c15) >> 24 }

// get is one read and one JSON answer.
func (b *bareServer) get(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.ParseUint(r.FormValue("n"), 10, 64)
	value, err := b.db.Get(valueKey(scatter(n)), nil)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"uri": r.FormValue("n"), "value": map[string]string{"text": base64.StdEncoding.EncodeToString(value)}})
}

// list is count reads and one JSON answer.
func (b *bareServer) list(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.ParseUint(r.FormValue("n"), 10, 64)
	count, _ := strconv.ParseUint(r.FormValue("count"), 10, 64)
	rows := make([]map[string]any, 0, count)
	for i := n; i < n+count; i++ {
		value, err := b.db.Get(valueKey(scatter(i)), nil)
		if err != nil {
			fail(w, err)
			return
		}
		rows = append(rows, map[string]any{"rkey": i, "value": map[string]string{"text": base64.StdEncoding.EncodeToString(value)}})
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"records": rows})
}

// loop reads n values one after the other, with no HTTP about it, and answers
// how long that took.
func (b *bareServer) loop(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.ParseUint(r.FormValue("n"), 10, 64)
	start := time.Now()
	bytes := 0
	for i := range n {
		value, err := b.db.Get(valueKey(scatter(i)), nil)
		if err != nil {
			fail(w, err)
			return
		}
		bytes += len(value)
	}
	json.NewEncoder(w).Encode(map[string]int64{"ns": time.Since(start).Nanoseconds(), "bytes": int64(bytes)})
}

// feed is a WebSocket that gives every message of publish.
func (b *bareServer) feed(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(r.Context())
	in := make(chan []byte, 256)
	b.mu.Lock()
	b.readers = append(b.readers, in)
	b.mu.Unlock()
	if conn.Write(ctx, websocket.MessageText, []byte("{}")) != nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-in:
			if conn.Write(ctx, websocket.MessageText, m) != nil {
				return
			}
		}
	}
}

func (b *bareServer) publish(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		fail(w, err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, in := range b.readers {
		select {
		case in <- raw:
		default:
		}
	}
}
