// Package xrpc speaks the node's HTTP API, both ends: /xrpc/<nsid> in the
// dialects of com.atproto.space (at://…/space/…) and of HappyView (ats://…),
// and the node's own dev.kith.* methods.
//
// It promises one table from NSID to verb and handler and one table from error
// to name and status; inputs in either dialect's spelling; bodies that are a
// superset of both, so that a client of either finds the fields it knows; the
// status code and the URI form of the caller's dialect. An option that is not
// built answers its unsupported error: nothing is accepted and ignored.
//
// It refuses requests without the bearer token, but for what a space's policy
// opens to everybody under a public name of the node; Host headers it was not
// told about; bodies that are not JSON, larger than 2 MiB or with a duplicate
// key; and records that have no canonical encoding. A failure of the node's own
// answers 500 with a correlation id and nothing else; the cause is logged.
//
// It holds no keys and no state: the Server asks the small interfaces of
// types.go and membership.go, which the node implements and the Client
// implements over HTTP.
//
// Server and Client are safe for concurrent use once their fields are set; the
// fields must not change after the first request. Values handed to the
// interfaces belong to the callee, values returned belong to the caller.
package xrpc
