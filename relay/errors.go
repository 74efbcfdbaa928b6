package relay

import (
	"errors"
	"fmt"
	"net/http"
)

// What a relay refuses. Statuses of /kith/relay/1 and names of the HTTP API are
// in the table below.
var (
	// ErrNoLease: no lease on this topic, or the asker did not prove to hold its
	// fetch key.
	ErrNoLease = errors.New("no lease on this topic, or not for you")
	// ErrRefused: the relay is closed, or the access code or token is not good.
	ErrRefused = errors.New("lease refused")
	// ErrQuota: the lease is spent.
	ErrQuota = errors.New("the lease is spent")
	// ErrDescriptor: not a topic descriptor, or badly signed.
	ErrDescriptor = errors.New("not a good topic descriptor")
	// ErrExpired: the descriptor is over, or ends too late.
	ErrExpired = errors.New("topic descriptor out of time")
	// ErrTooLarge: longer than allowed.
	ErrTooLarge = errors.New("too large")
	// ErrNoRoom: the relay is full or its disk takes no writes; reads go on.
	ErrNoRoom = errors.New("the relay has no room")
	// ErrBusy: too many requests from this peer or address.
	ErrBusy = errors.New("too many requests")
	// ErrRequest: not a request.
	ErrRequest = errors.New("bad request")
	// ErrInternal: a failure of the relay's own.
	ErrInternal = errors.New("the relay failed")
	// ErrNoObject: no object of this hash in the topic.
	ErrNoObject = errors.New("object not found")
	// ErrCursor: a cursor that this relay did not give.
	ErrCursor = errors.New("cursor was not given by this relay")
	// ErrOutdated: what lies behind the cursor is no longer here in order.
	ErrOutdated = errors.New("cursor is too old: begin again without one")
	// ErrSlow: the reader does not keep up.
	ErrSlow = errors.New("reader too slow")
)

// status is the byte of an answer on /kith/relay/1; 0 is no refusal.
type status uint8

// row is how one refusal is told. A status of 0 is told over HTTP alone.
type row struct {
	err    error
	status status
	name   string
	http   int
}

// rows maps every refusal. The last takes what no other does.
var rows = []row{
	{ErrNoLease, 1, "NoLease", http.StatusForbidden},
	{ErrRefused, 2, "LeaseRefused", http.StatusForbidden},
	{ErrQuota, 3, "QuotaExceeded", http.StatusInsufficientStorage},
	{ErrDescriptor, 4, "InvalidDescriptor", http.StatusBadRequest},
	{ErrExpired, 5, "DescriptorExpired", http.StatusBadRequest},
	{ErrTooLarge, 6, "PayloadTooLarge", http.StatusRequestEntityTooLarge},
	{ErrNoRoom, 7, "NotEnoughResources", http.StatusInsufficientStorage},
	{ErrBusy, 8, "RateLimitExceeded", http.StatusTooManyRequests},
	{ErrRequest, 9, "InvalidRequest", http.StatusBadRequest},
	{ErrNoObject, 0, "ObjectNotFound", http.StatusNotFound},
	{ErrCursor, 0, "InvalidCursor", http.StatusBadRequest},
	{ErrOutdated, 0, "OutdatedCursor", http.StatusBadRequest},
	{ErrSlow, 0, "ConsumerTooSlow", http.StatusBadRequest},
	{ErrInternal, 10, "InternalServerError", http.StatusInternalServerError},
}

func rowOf(err error) row {
	for _, r := range rows {
		if errors.Is(err, r.err) {
			return r
		}
	}
	return rows[len(rows)-1]
}

// refusal is the error of a status.
func refusal(s status, sentence string) error {
	for _, r := range rows {
		if r.status == s {
			return fmt.Errorf("relay: %w: %q", r.err, sentence)
		}
	}
	return fmt.Errorf("relay: %w: status %d", ErrInternal, s)
}
