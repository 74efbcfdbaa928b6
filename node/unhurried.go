package node

import (
	"io"
	"time"
)

// unhurried is a stream that may take long as long as it moves: each piece that
// is read or written has joinDeadline, all together end at most.
type unhurried struct {
	stream interface {
		io.ReadWriter
		SetDeadline(time.Time) error
	}
	end time.Time
}

// unhurriedPiece is how much has to move within joinDeadline: 2 KB a second.
const unhurriedPiece = 32 << 10

func (u unhurried) Read(b []byte) (int, error) {
	if err := u.extend(); err != nil {
		return 0, err
	}
	return u.stream.Read(b)
}

func (u unhurried) Write(b []byte) (n int, err error) {
	for done := 0; err == nil && n < len(b); n += done {
		if err = u.extend(); err == nil {
			done, err = u.stream.Write(b[n:min(len(b), n+unhurriedPiece)])
		}
	}
	return n, err
}

func (u unhurried) extend() error {
	limit := time.Now().Add(joinDeadline)
	if u.end.Before(limit) {
		limit = u.end
	}
	return u.stream.SetDeadline(limit)
}
