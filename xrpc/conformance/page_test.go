package conformance_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/kithnet/kith/space"
	"github.com/kithnet/kith/xrpc"
)

// browser is a tab of a headless Chromium, driven by its DevTools protocol.
type browser struct {
	t    *testing.T
	conn *websocket.Conn
	n    int
	said []string // what the console said, and what was broken
}

// browse opens a tab; nil where there is no Chromium, which .ci/run installs.
func browse(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Log("chromium is not installed: the page is not tried")
		return nil
	}
	profile, err := os.MkdirTemp("", "page")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(profile) }) // its helpers may write on for a moment
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--remote-debugging-port=0", "--user-data-dir="+profile, "about:blank")
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), "DevTools listening on ws://"); ok {
			host, _, _ := strings.Cut(rest, "/")
			go func() { // nothing may wait for the pipe
				for lines.Scan() {
				}
			}()
			return attach(t, host)
		}
	}
	t.Fatal("chromium ended")
	return nil
}

func attach(t *testing.T, host string) *browser {
	t.Helper()
	resp, err := http.Get("http://" + host + "/json/list")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var tabs []struct {
		Type string `json:"type"`
		URL  string `json:"webSocketDebuggerUrl"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&tabs); err != nil {
		t.Fatal(err)
	}
	for _, tab := range tabs {
		if tab.Type == "page" {
			conn, _, err := websocket.Dial(t.Context(), tab.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetReadLimit(8 << 20)
			t.Cleanup(func() { conn.CloseNow() })
			b := &browser{t: t, conn: conn}
			b.call("Runtime.enable", nil)
			b.call("Log.enable", nil)
			b.call("Page.enable", nil)
			return b
		}
	}
	t.Fatalf("no tab among %v", tabs)
	return nil
}

// call sends a command and waits for its answer.
func (b *browser) call(method string, params any) json.RawMessage {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	b.n++
	if err := wsjson.Write(ctx, b.conn, map[string]any{"id": b.n, "method": method, "params": params}); err != nil {
		b.t.Fatal(err)
	}
	for {
		var m struct {
			ID     int             `json:"id"`
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		if err := wsjson.Read(ctx, b.conn, &m); err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		switch {
		case m.ID == b.n && m.Error != nil:
			b.t.Fatalf("%s: %s", method, m.Error)
		case m.ID == b.n:
			return m.Result
		case m.Method == "Runtime.exceptionThrown", m.Method == "Log.entryAdded", m.Method == "Runtime.consoleAPICalled":
			b.said = append(b.said, string(m.Params))
		}
	}
}

// until asks a JavaScript expression again and again until it is true.
func (b *browser) until(expression string) {
	b.t.Helper()
	wait := fmt.Sprintf(`new Promise((done, late) => {
		const until = Date.now() + 20000
		const look = () => { if (%s) done(true); else if (Date.now() > until) late(document.body.innerText); else setTimeout(look, 20) }
		look()
	})`, expression)
	out := b.call("Runtime.evaluate", map[string]any{"expression": wait, "awaitPromise": true, "returnByValue": true})
	var v struct {
		Result    struct{ Value any }
		Exception json.RawMessage `json:"exceptionDetails"`
	}
	if err := json.Unmarshal(out, &v); err != nil || v.Result.Value != true {
		b.t.Fatalf("%s: %s", expression, out)
	}
}

func (b *browser) run(expression string) {
	b.t.Helper()
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true})
}

// open goes to an address and waits until the page is there.
func (b *browser) open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": "about:blank"})
	b.call("Page.navigate", map[string]any{"url": url})
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		out := b.call("Runtime.evaluate", map[string]any{"expression": "location.protocol + document.readyState"})
		if strings.Contains(string(out), "http:complete") {
			return
		}
	}
	b.t.Fatalf("%s does not load", url)
}

// The page tells the owner in words how node, spaces, peers and sync are, tells
// nobody else anything, and turns the spaces off and on.
func TestPage(t *testing.T) {
	b := browse(t)
	if b == nil {
		return
	}
	c, guest := start(t, true), start(t, false)
	const hostile = "<img src=x onerror=document.title='broken'>"
	info, err := c.CreateSpace(t.Context(), xrpc.NewSpace{Type: "com.example.notes", Name: hostile, Policy: space.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	meet(t, c, guest)

	b.open(c.Base + "/")
	b.until(`!document.querySelector('#door').hidden && document.querySelector('#node').hidden`)
	b.run(`document.querySelector('#token').value = 'wrong'; document.querySelector('#enter').click()`)
	b.until(`document.querySelector('#said').innerText.includes('not a token of this node')`)
	b.until(`!document.body.innerText.includes('did:key')`)
	b.run(`document.querySelector('#token').value = '` + c.Token + `'; document.querySelector('#enter').click()`)
	b.until(`document.querySelector('#spaces').innerText.includes('` + info.ID.String() + `')`)
	for _, text := range []string{"you may write", "0 records, epoch 1", hostile, "directly", "member, keeper", "the same as 1 peer has", "the key file has no passphrase"} {
		b.until("document.querySelector('#node').innerText.includes(" + fmt.Sprintf("%q", text) + ")")
	}
	b.until(`document.title === 'Kith' && document.querySelectorAll('img').length === 0`)

	for _, want := range []bool{false, true} {
		b.run(`document.querySelector('#flag').click()`)
		says := map[bool]string{false: "off", true: "on"}[want]
		b.until(`document.querySelector('#flag-says').innerText === '` + says + `'`)
		if _, err := c.Spaces(t.Context()); (err == nil) != want {
			t.Errorf("switched %s: %v", says, err)
		}
	}
	b.run(`document.querySelector('#leave').click()`)
	b.until(`document.querySelector('#node').hidden && !sessionStorage.getItem('kith.token')`)

	b.open(c.Base + "/#" + c.Token) // as a link of the owner's own
	b.until(`!document.querySelector('#node').hidden && location.hash === ''`)
	for _, said := range b.said {
		if !strings.Contains(said, "401") && !strings.Contains(said, `"level":"verbose"`) { // of the wrong token; advice
			t.Errorf("the browser said: %s", said)
		}
	}
}
