package conformance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/xrpc"
)

// recorded is an exchange with the reference's server.
type recorded struct {
	Label  string         `json:"label"`
	Method string         `json:"method"`
	NSID   string         `json:"nsid"`
	As     string         `json:"as"`
	Params map[string]any `json:"params"`
	Input  any            `json:"body_in"`
	Status int            `json:"status"`
	Body   any            `json:"body"`
}

// recordedOwner owns the space in the recording, and recordedSpace is that.
const (
	recordedOwner = "did:plc:3dr54s4252zhyxbfh62pyd5f"
	recordedType  = "com.example.group"
)

// other are the exchanges that go otherwise with us: by status and name of the
// error, or not at all.
var other = map[string]string{
	"addMember": "", "addMember 2": "", // nobody joins whose identity no node has seen
	"listMembers": "", "listMembers page 2": "", // the authority is one of the members, and cursors are ours
	"listRepoOps":              "",                  // writes of one batch to one path are one op
	"listRepos":                "",                  // another account wrote, elsewhere
	"wrong space credential":   "400 SpaceNotFound", // who asks is the owner, with no credential
	"addMember after deletion": "400 SpaceDeleted", "getLatestCommit authority repo after deletion": "400 SpaceDeleted",
	"listRecords authority repo after deletion (old credential)": "400 SpaceDeleted", // nothing of a deleted space is shown
}

// TestRecordedExchanges asks a node what the reference was asked, in that order.
// Statuses and names of errors are the same; every field that the reference
// answered is there, and CIDs of records are its CIDs.
func TestRecordedExchanges(t *testing.T) {
	c := start(t, false)
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/transcript.json")
	if err != nil {
		t.Fatal(err)
	}
	var script struct{ Entries []recorded }
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte(recordedOwner), []byte(st.DID)), &script); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, e := range script.Entries {
		want, differs := other[e.Label]
		// Credentials come later; accounts of others are elsewhere.
		if e.Label != "uploadBlob" && !slices.Contains([]string{"alice", "space credential"}, e.As) || strings.Contains(e.Label, "Credential") && !differs ||
			strings.HasSuffix(e.NSID, "Notify") || strings.Contains(fmt.Sprint(e.Params), recordedType+"/st") || differs && want == "" {
			continue
		}
		asked++
		status, body := e.send(t, c)
		if !differs {
			want = fmt.Sprint(e.Status, " ", nameIn(e.Body))
		}
		if got := fmt.Sprint(status, " ", nameIn(body)); got != want {
			t.Errorf("%s: %s, want %s: %v", e.Label, got, want, body)
		} else if status == 200 {
			for _, wrong := range lacks("", e.Body, body) {
				t.Errorf("%s: %s", e.Label, wrong)
			}
		}
	}
	if asked < 25 {
		t.Errorf("only %d exchanges were asked", asked)
	}
}

// send asks the node.
func (e *recorded) send(t *testing.T, c *xrpc.Client) (int, any) {
	t.Helper()
	q := url.Values{}
	for name, v := range e.Params {
		q.Set(name, fmt.Sprint(v))
	}
	in, kind := []byte(nil), ""
	if e.Method == http.MethodPost {
		kind = "application/json"
		in, _ = json.Marshal(e.Input) // it was JSON
	}
	if strings.HasSuffix(e.NSID, "uploadBlob") {
		in, kind = []byte("hello blob"), "text/plain"
	}
	r, err := http.NewRequestWithContext(t.Context(), e.Method, c.Base+"/xrpc/"+e.NSID+"?"+q.Encode(), bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.Token)
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body any
	if json.Unmarshal(b, &body) != nil {
		body = string(b)
	}
	return resp.StatusCode, body
}

func nameIn(body any) any {
	o, _ := body.(map[string]any)
	return o["error"]
}

// varying are fields whose values are another run's.
var varying = []string{"rev", "cursor", "$bytes", "token", "uri"}

// lacks lists what of a recorded answer is not in another, or not the same.
func lacks(path string, want, got any) (out []string) {
	switch want := want.(type) {
	case map[string]any:
		o, _ := got.(map[string]any)
		for name, v := range want {
			have, ok := o[name]
			switch {
			case !ok:
				out = append(out, fmt.Sprintf("%s.%s is missing", path, name))
			case !slices.Contains(varying, name):
				out = append(out, lacks(path+"."+name, v, have)...)
			}
		}
	case []any:
		list, _ := got.([]any)
		if len(list) != len(want) {
			return []string{fmt.Sprintf("%s has %d elements, want %d: %v", path, len(list), len(want), got)}
		}
		for i := range want {
			out = append(out, lacks(fmt.Sprint(path, ".", i), want[i], list[i])...)
		}
	case string:
		if strings.HasPrefix(want, "<") || path == "" { // bytes, or an empty answer, of which ours is a superset
			return nil
		}
		if got != want {
			out = append(out, fmt.Sprintf("%s is %v, want %v", path, got, want))
		}
	default:
		if got != want {
			out = append(out, fmt.Sprintf("%s is %v, want %v", path, got, want))
		}
	}
	return out
}
