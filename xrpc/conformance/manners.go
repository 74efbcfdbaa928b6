package conformance

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
)

// later are methods whose building comes later; until then they say so.
var later = []string{
	"com.atproto.space.getDelegationToken", "com.atproto.space.getSpaceCredential", "com.atproto.space.registerNotify",
	"com.atproto.space.unregisterNotify", "com.atproto.space.notifyWrite", "com.atproto.space.notifySpaceDeleted",
	"com.atproto.simplespace.checkUserAccess",
}

var asJSON = http.Header{"Content-Type": {"application/json"}}

func (s *suite) manners() {
	uri := s.newSpace(dialects[0])
	query := "/xrpc/" + listRecords + "?space=" + strings.ReplaceAll(uri, ":", "%3A")
	none := s.send("", http.MethodGet, query, nil, nil)
	s.refused("http: no token", none, 401, "AuthenticationRequired")
	s.hold("http: no token names the scheme", strings.HasPrefix(none.header.Get("WWW-Authenticate"), "Bearer"), none.header)
	s.refused("http: a wrong token", s.send("wrong", http.MethodGet, query, nil, nil), 401, "InvalidToken")
	basic := s.send("", http.MethodGet, query, nil, http.Header{"Authorization": {"Basic Og=="}})
	s.refused("http: another scheme", basic, 401, "InvalidToken")
	s.refused("http: a token in the query", s.send("", http.MethodGet, query+"&token="+s.cfg.Owner, nil, nil), 401, "AuthenticationRequired")
	s.refused("http: an unknown method", s.get(s.cfg.Owner, "com.atproto.space.nothing"), 404, "XRPCNotSupported")
	s.refused("http: an unknown path", s.send(s.cfg.Owner, http.MethodGet, "/nothing", nil, nil), 404, "XRPCNotSupported")
	verb := s.send(s.cfg.Owner, http.MethodGet, "/xrpc/"+createRecord, nil, nil)
	s.refused("http: a query for a procedure", verb, 405, "MethodNotAllowed")
	s.same("http: says which verb", verb.header.Get("Allow"), "POST")
	s.refused("http: a procedure for a query", s.send(s.cfg.Owner, http.MethodPost, query, []byte("{}"), asJSON), 405, "MethodNotAllowed")
	s.refused("http: a verb in a header is no verb", s.send(s.cfg.Owner, http.MethodGet, "/xrpc/"+createRecord, nil,
		http.Header{"X-Http-Method-Override": {"POST"}}), 405, "MethodNotAllowed")
	for _, nsid := range later {
		for _, ask := range []func() reply{func() reply { return s.get(s.cfg.Owner, nsid, "space", uri) }} {
			r := ask()
			s.hold("http: "+nsid+" is known", r.status != 404 && r.at("error") != "XRPCNotSupported", r)
		}
	}
	s.bodies(uri)
	s.headers(query)
	s.hosts(query)
}

func (s *suite) bodies(uri string) {
	path := "/xrpc/" + createRecord
	text := []byte(`{"space":"` + uri + `","collection":"` + collection + `","record":{}}`)
	media := func(h http.Header) reply { return s.send(s.cfg.Owner, http.MethodPost, path, text, h) }
	s.refused("http: a body without a type", media(nil), 415, "UnsupportedMediaType")
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json; charset=latin1"} {
		s.refused("http: a body of "+kind, media(http.Header{"Content-Type": {kind}}), 415, "UnsupportedMediaType")
	}
	s.answers("http: application/json; charset=utf-8", media(http.Header{"Content-Type": {"application/json; charset=utf-8"}}), 201)
	for what, bad := range map[string]string{"no JSON": "{", "nothing": "", "two values": "{}{}", "a key twice": `{"space":"a","space":"b"}`} {
		s.refused("http: a body of "+what, s.send(s.cfg.Owner, http.MethodPost, path, []byte(bad), asJSON), 400, "InvalidRequest")
	}
	s.refused("http: a body that is a list", s.send(s.cfg.Owner, http.MethodPost, path, []byte("[]"), asJSON), 422, "InvalidRequest")
	zipped := http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}
	s.answers("http: a body packed with gzip", s.send(s.cfg.Owner, http.MethodPost, path, pack(text), zipped), 201)
	bomb := pack([]byte(`{"x":"` + strings.Repeat("x", 64<<20) + `"}`))
	s.refused("http: a body that blows up", s.send(s.cfg.Owner, http.MethodPost, path, bomb, zipped), 413, "PayloadTooLarge")
	s.refused("http: a body that is not what it says", s.send(s.cfg.Owner, http.MethodPost, path, text, zipped), 400, "InvalidRequest")
	s.refused("http: a body packed otherwise", s.send(s.cfg.Owner, http.MethodPost, path, text,
		http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"br"}}), 415, "UnsupportedMediaType")
}

func pack(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func (s *suite) headers(query string) {
	got := s.send(s.cfg.Owner, http.MethodGet, query, nil, nil)
	s.same("http: type of an answer", got.header.Get("Content-Type"), "application/json")
	s.same("http: nobody guesses the type", got.header.Get("X-Content-Type-Options"), "nosniff")
	s.same("http: nobody keeps an answer", got.header.Get("Cache-Control"), "no-store")
	head := s.send(s.cfg.Owner, http.MethodHead, query, nil, nil)
	s.hold("http: HEAD is GET without the body", head.status == 200 && len(head.raw) == 0 && head.header.Get("Content-Length") == got.header.Get("Content-Length"), head.header)
	pre := s.send("", http.MethodOptions, query, nil, http.Header{"Origin": {"https://app.example"}, "Access-Control-Request-Method": {"POST"}})
	s.same("cors: preflight", pre.status, 204)
	s.same("cors: any origin", pre.header.Get("Access-Control-Allow-Origin"), "*")
	s.same("cors: but without the browser's credentials", pre.header.Get("Access-Control-Allow-Credentials"), "")
	for _, name := range []string{"authorization", "content-type", "dpop", "x-client-key"} {
		s.hold("cors: allows "+name, strings.Contains(pre.header.Get("Access-Control-Allow-Headers"), name), pre.header)
	}
	for _, name := range []string{"DPoP-Nonce", "WWW-Authenticate", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy", "Retry-After"} {
		s.hold("cors: exposes "+name, strings.Contains(got.header.Get("Access-Control-Expose-Headers"), name), got.header)
	}
	health := s.send("", http.MethodGet, "/xrpc/_health", nil, nil)
	s.hold("health: without a token", health.status == 200 && health.text("version") != "", health)
	s.refused("health: with another verb", s.send("", http.MethodPost, "/xrpc/_health", []byte("{}"), asJSON), 405, "MethodNotAllowed")
}

func (s *suite) hosts(query string) {
	for _, name := range []string{"evil.example", "localhost.evil.example", "192.0.2.1"} {
		s.refused("host: refuses "+name, s.send(s.cfg.Owner, http.MethodGet, query, nil, http.Header{"Host": {name}}), 403, "InvalidHost")
	}
	s.same("host: does not believe X-Forwarded-Host", s.send(s.cfg.Owner, http.MethodGet, query, nil, http.Header{"X-Forwarded-Host": {"evil.example"}}).status, 200)
}

// flag switches the spaces off, looks, and switches them on again.
func (s *suite) flag() {
	uri := s.newSpace(dialects[0])
	const setting = "/admin/settings/feature.spaces_enabled"
	flags := s.send(s.cfg.Owner, http.MethodGet, "/admin/feature-flags", nil, nil)
	s.hold("flag: listed", flags.status == 200 && flags.at("0.key") == "feature.spaces_enabled" && flags.at("0.name") == "Permissioned Spaces", flags)
	before := flags.at("0.enabled")
	s.same("flag: config says it to everybody", s.send("", http.MethodGet, "/config", nil, nil).at("features.spaces"), before)
	s.hold("flag: not for everybody", s.send("", http.MethodGet, "/admin/feature-flags", nil, nil).status == 401, "no 401")
	put := func(text string) reply { return s.send(s.cfg.Owner, http.MethodPut, setting, []byte(text), asJSON) }
	s.answers("flag: a boolean is no text", put(`{"value":false}`), 422)
	s.hold("flag: nobody else turns it", s.send("wrong", http.MethodPut, setting, []byte(`{"value":"off"}`), asJSON).status == 401, "no 401")
	s.answers("flag: off", put(`{"value":"false"}`), 204)
	off := s.get(s.cfg.Owner, listRecords, "space", uri)
	s.refused("flag: off, methods are not found", off, 404, "FeatureDisabled")
	s.refused("flag: off, before anybody looks at the token", s.get("", listRecords), 404, "FeatureDisabled")
	s.refused("flag: off, or at the verb", s.post("", listRecords, "{"), 404, "FeatureDisabled")
	s.refused("flag: off, older names too", s.get(s.cfg.Owner, "dev.happyview.space.list"), 404, "FeatureDisabled")
	s.refused("flag: off, invites too", s.post(s.cfg.Owner, "dev.happyview.space.createInvite", body{"space": uri}), 404, "FeatureDisabled")
	s.same("flag: off, config says so", s.send("", http.MethodGet, "/config", nil, nil).at("features.spaces"), false)
	s.same("flag: off, shown", s.send(s.cfg.Owner, http.MethodGet, setting, nil, nil).at("value"), "false")
	s.answers("flag: on", put(`{"value":"TRUE"}`), 204)
	s.answers("flag: on, methods answer", s.get(s.cfg.Owner, listRecords, "space", uri), 200)
	list := s.send(s.cfg.Owner, http.MethodGet, "/admin/settings", nil, nil)
	s.hold("flag: among the settings, from the database", strings.Contains(string(list.raw), `"source":"database"`), list)
	s.answers("flag: deleted", s.send(s.cfg.Owner, http.MethodDelete, setting, nil, nil), 204)
	s.answers("flag: deleted again", s.send(s.cfg.Owner, http.MethodDelete, setting, nil, nil), 404)
	if before == false { // the environment says so
		put(`{"value":"true"}`)
	}
	s.answers("flag: on without a setting", s.get(s.cfg.Owner, listRecords, "space", uri), 200)
}
