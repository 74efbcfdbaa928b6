package xrpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kithnet/kith/space"
)

// Sentinels beside those of package space.
var (
	// ErrPetnameTaken: the local name names another space of this home.
	ErrPetnameTaken = errors.New("name is taken")
	// ErrCursor: a cursor that this node did not issue.
	ErrCursor = errors.New("cursor was not issued by this node")
	// ErrStillWaiting: a join was asked for but no keeper has answered yet.
	ErrStillWaiting = errors.New("still waiting")
	// ErrPeerNotFound: this node is not connected to that peer.
	ErrPeerNotFound = errors.New("peer not found")
	// ErrDeviceNotFound: no device of the owner's has this id.
	ErrDeviceNotFound = errors.New("device not found")
	// ErrLastDevice: the device that would be left alone, or is revoking itself.
	ErrLastDevice = errors.New("the last device cannot be revoked")
	// ErrTokenNotFound: no token has this id or text, or it ran out.
	ErrTokenNotFound = errors.New("token not found")
	// ErrSettingNotFound: the setting was never set through the API.
	ErrSettingNotFound = errors.New("setting not found")
	// ErrUnreachable: no node answers at the client's base address.
	ErrUnreachable = errors.New("node not reachable")
)

// ErrAmbiguous: several authors have a record at the path and none was named.
type ErrAmbiguous struct{ Authors []space.DID }

func (e ErrAmbiguous) Error() string {
	names := make([]string, len(e.Authors))
	for i, a := range e.Authors {
		names[i] = string(a)
	}
	return "several authors have this record, name one with repo: " + strings.Join(names, ", ")
}

// Is makes any two ErrAmbiguous match.
func (e ErrAmbiguous) Is(target error) bool { _, ok := target.(ErrAmbiguous); return ok }

// Kinds of faults a request can have before the node is asked.
var (
	errRequest    = errors.New("bad request")
	errShape      = errors.New("wrong shape")
	errMedia      = errors.New("wrong content type")
	errVerb       = errors.New("wrong verb")
	errAuth       = errors.New("no credentials")
	errToken      = errors.New("bad credentials")
	errHost       = errors.New("unknown host")
	errNSID       = errors.New("unknown method")
	errNotBuilt   = errors.New("method not built")
	errPolicy     = errors.New("policy not built")
	errAppAccess  = errors.New("app access not built")
	errFeature    = errors.New("feature is off")
	errPermission = errors.New("scope does not allow it")
	errSlow       = errors.New("body too slow")
	errRate       = errors.New("too many requests")
	errInternal   = errors.New("internal error")

	// errOwner is a Forbidden with the name that atproto has for it.
	errOwner = fmt.Errorf("not the authority: %w", space.ErrForbidden)
)

// fault is an error of a known kind with a message made for the caller.
type fault struct {
	kind error
	msg  string
}

func (f *fault) Error() string { return f.msg }
func (f *fault) Unwrap() error { return f.kind }

func faultf(kind error, format string, args ...any) error {
	return &fault{kind, fmt.Sprintf(format, args...)}
}

// inField says which field of the request an error is about. The parsers name
// what they read in front and their sentinel at the end: both go.
func inField(name string, err error) error {
	f := &fault{kind: errRequest}
	if errors.Is(err, space.ErrTooLarge) {
		f.kind = space.ErrTooLarge
	}
	text := err.Error()
	for _, front := range []string{"record: ", name + ": ", name + " "} {
		text = strings.TrimPrefix(text, front)
	}
	for _, sentinel := range []error{space.ErrMalformed, space.ErrNotCanonical} {
		text = strings.TrimSuffix(text, ": "+sentinel.Error())
	}
	f.msg = name + ": " + text
	return f
}

// authorsOf are those of an ErrAmbiguous, by value or by pointer.
func authorsOf(err error) []space.DID {
	if a, ok := errors.AsType[ErrAmbiguous](err); ok {
		return a.Authors
	}
	if a, ok := errors.AsType[*ErrAmbiguous](err); ok {
		return a.Authors
	}
	return nil
}

// row is how one error answers. say is the sentence HappyView's clients know;
// "" means the error's own text. quiet rows never add the error's context, so
// that what exists here cannot be told from what does not.
type row struct {
	err    error
	name   string
	status [dialects]int // HappyView, ATProto
	say    string
	quiet  bool
}

// rows maps every error to its name and statuses. The first match wins, the
// last row takes what no other does.
var rows = []row{
	{space.ErrMalformed, "InvalidRequest", [dialects]int{400, 400}, "", false},
	{space.ErrNotCanonical, "InvalidRequest", [dialects]int{400, 400}, "", false},
	{space.ErrTooLarge, "PayloadTooLarge", [dialects]int{413, 413}, "", false},
	{space.ErrForged, "Forged", [dialects]int{400, 400}, "", false},
	{space.ErrNoKey, "KeyUnavailable", [dialects]int{503, 503}, "The key for this is not here yet", false},
	{space.ErrSpaceNotFound, "SpaceNotFound", [dialects]int{404, 400}, "Space not found", true},
	{space.ErrSpaceExists, "SpaceAlreadyExists", [dialects]int{409, 400}, "A space with this address already exists", false},
	{space.ErrRepoNotFound, "RepoNotFound", [dialects]int{404, 400}, "Repo not found", true},
	{space.ErrRecordNotFound, "RecordNotFound", [dialects]int{404, 400}, "Record not found", false},
	{space.ErrRecordExists, "RecordAlreadyExists", [dialects]int{409, 400}, "Record already exists", false},
	{space.ErrSwap, "InvalidSwap", [dialects]int{409, 400}, "Swap mismatch", false},
	{space.ErrNotMember, "NotMember", [dialects]int{403, 403}, "You are not a member of this space", true},
	{errOwner, "NotSpaceOwner", [dialects]int{403, 403}, "", false},
	{space.ErrForbidden, "Forbidden", [dialects]int{403, 403}, "", false},
	{space.ErrUnsupported, "Unsupported", [dialects]int{400, 400}, "", false},
	{space.ErrInvite, "InvalidInvite", [dialects]int{404, 400}, "Invalid invite token", true},
	{space.ErrUnknownDID, "UnknownDid", [dialects]int{404, 400}, "Nobody is known here by this DID", false},
	{space.ErrMemberExists, "MemberAlreadyExists", [dialects]int{409, 400}, "Member already exists in this space", false},
	{space.ErrMemberNotFound, "MemberNotFound", [dialects]int{404, 400}, "Member not found in this space", false},
	{space.ErrLastAuthority, "LastAuthority", [dialects]int{409, 400}, "The authority of a space stays a member with all rights", false},
	{space.ErrInviteNotFound, "InviteNotFound", [dialects]int{404, 400}, "Invite not found", false},
	{space.ErrRequestNotFound, "RequestNotFound", [dialects]int{404, 400}, "Nobody waits under this id", false},
	{space.ErrSpaceDeleted, "SpaceDeleted", [dialects]int{404, 400}, "The space was deleted", false},
	{space.ErrFrozen, "SpaceFrozen", [dialects]int{409, 400}, "", false},
	{space.ErrNotSequencer, "SequencerUnavailable", [dialects]int{503, 503}, "", false},
	{space.ErrDelegationCycle, "DelegationCycle", [dialects]int{409, 400}, "A space cannot be a member of itself, however indirectly", false},
	{space.ErrDelegationDepth, "DelegationTooDeep", [dialects]int{400, 400}, "More than eight spaces one within the other", false},
	{space.ErrStaleDescriptor, "StaleDescriptor", [dialects]int{409, 400}, "", false},
	{space.ErrNoSpaceLeft, "NotEnoughResources", [dialects]int{507, 507}, "", false},
	{space.ErrUnavailable, "NotEnoughResources", [dialects]int{503, 503}, "", false},
	{ErrAmbiguous{}, "AmbiguousRepo", [dialects]int{409, 400}, "", false},
	{ErrPetnameTaken, "NameTaken", [dialects]int{409, 400}, "This name is taken by another space of this home", false},
	{ErrCursor, "InvalidCursor", [dialects]int{400, 400}, "cursor: send back a cursor as it was given, or none", false},
	{ErrBlobNotFound, "BlobNotFound", [dialects]int{404, 400}, "Blob not found in this space", true},
	{errRange, "RangeNotSatisfiable", [dialects]int{416, 416}, "", false},
	{ErrConsumerTooSlow, "ConsumerTooSlow", [dialects]int{400, 400}, "events went by faster than they were read: subscribe again, and read what was missed from the repos", false},
	{ErrOutdatedCursor, "OutdatedCursor", [dialects]int{400, 400}, "what came behind this cursor is not kept any more: read the repos, then subscribe without one", false},
	{ErrFutureCursor, "FutureCursor", [dialects]int{400, 400}, "this node has not got as far as this cursor: read the repos, then subscribe without one", false},
	{errUpgrade, "UpgradeRequired", [dialects]int{426, 426}, "", false},
	{ErrStillWaiting, "StillWaiting", [dialects]int{503, 503}, "", false},
	{ErrPeerNotFound, "PeerNotFound", [dialects]int{404, 400}, "This node is not connected to that peer", false},
	{ErrDeviceNotFound, "DeviceNotFound", [dialects]int{404, 400}, "Device not found", false},
	{ErrTokenNotFound, "TokenNotFound", [dialects]int{404, 400}, "Token not found", false},
	{ErrSettingNotFound, "SettingNotFound", [dialects]int{404, 404}, "", false},
	{ErrLastDevice, "LastDevice", [dialects]int{409, 400}, "", false},
	{errRequest, "InvalidRequest", [dialects]int{400, 400}, "", false},
	{errShape, "InvalidRequest", [dialects]int{422, 400}, "", false},
	{errMedia, "UnsupportedMediaType", [dialects]int{415, 400}, "", false},
	{errVerb, "MethodNotAllowed", [dialects]int{405, 405}, "", false},
	{errAuth, "AuthenticationRequired", [dialects]int{401, 401}, "This endpoint requires authentication", true},
	{errToken, "InvalidToken", [dialects]int{401, 401}, "", false},
	{errHost, "InvalidHost", [dialects]int{403, 403}, "", false},
	{errFeature, "FeatureDisabled", [dialects]int{404, 404}, "The feature 'feature.spaces_enabled' is not currently enabled on this instance", true},
	{errPermission, "InsufficientPermissions", [dialects]int{403, 403}, "", false},
	{errSlow, "RequestTimeout", [dialects]int{408, 408}, "", false},
	{errRate, "RateLimitExceeded", [dialects]int{429, 429}, "", false},
	{errNSID, "XRPCNotSupported", [dialects]int{404, 404}, "", false},
	{errNotBuilt, "MethodNotImplemented", [dialects]int{501, 501}, "", false},
	{errPolicy, "UnsupportedPolicy", [dialects]int{400, 400}, "", false},
	{errAppAccess, "UnsupportedAppAccess", [dialects]int{400, 400}, "", false},
	{errInternal, "InternalServerError", [dialects]int{500, 500}, "", true},
}

// rowOf finds the row of an error; the error of a fault is its kind.
func rowOf(err error) *row {
	for i := range rows {
		if errors.Is(err, rows[i].err) {
			return &rows[i]
		}
	}
	return &rows[len(rows)-1]
}

// sentence is the message for the caller: a fault's own text, else the row's
// sentence with what the wrapping said, else the error's text.
func (r *row) sentence(err error) string {
	if f, ok := errors.AsType[*fault](err); ok {
		return f.msg
	}
	if r.quiet {
		return r.say
	}
	if r.say == "" {
		return err.Error()
	}
	if ctx, ok := strings.CutSuffix(err.Error(), ": "+r.err.Error()); ok {
		return r.say + ": " + ctx
	}
	return r.say
}

// Error is an error answer as a client sees it. It matches, with errors.Is,
// the sentinel its name stands for.
type Error struct {
	Status  int
	Name    string
	Message string
	Authors []space.DID // of AmbiguousRepo
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Name, e.Message) }

// Is maps the name, and the status where a name stands in several rows, back to
// the sentinels of this package and of space.
func (e *Error) Is(target error) bool {
	for i := range rows {
		if rows[i].name == e.Name && slices.Contains(rows[i].status[:], e.Status) && errors.Is(rows[i].err, target) {
			return true
		}
	}
	return false
}

// As gives the typed errors back.
func (e *Error) As(target any) bool {
	if a, ok := target.(*ErrAmbiguous); ok && e.Name == "AmbiguousRepo" {
		a.Authors = e.Authors
		return true
	}
	return false
}

// errorBody is the JSON of an error answer.
type errorBody struct {
	Error         string      `json:"error"`
	Message       string      `json:"message"`
	Authors       []space.DID `json:"authors,omitempty"`
	CorrelationID string      `json:"correlationId,omitempty"`
}

// errorOf reads an error answer; a body that is not ours keeps its beginning.
func errorOf(status int, body []byte) *Error {
	var b errorBody
	if err := json.Unmarshal(body, &b); err != nil || b.Error == "" {
		const shown = 200
		text := strings.ToValidUTF8(string(body[:min(len(body), shown)]), "")
		return &Error{Status: status, Name: "UnexpectedAnswer", Message: fmt.Sprintf("status %d: %q", status, text)}
	}
	return &Error{Status: status, Name: b.Error, Message: b.Message, Authors: b.Authors}
}
