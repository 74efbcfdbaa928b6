package xrpc

import (
	"strings"

	"github.com/kithnet/kith/space"
)

// Dialect is whose status codes and URI form an answer has. Bodies are a
// superset of both.
type Dialect uint8

// The dialects. The zero value is the default.
const (
	HappyView Dialect = iota // ats://did/type/skey; 201 on create, 404 and 409
	ATProto                  // at://did/space/type/skey; 200 and 400

	dialects = 2
)

// dialectOf is the dialect a space's name in the request stands for.
func dialectOf(nsid, name string, setting Dialect) Dialect {
	switch {
	case strings.HasPrefix(nsid, "dev.happyview."), strings.HasPrefix(name, "ats://"):
		return HappyView
	case strings.HasPrefix(name, "at://"):
		return ATProto
	}
	return setting
}

// spaceURI spells a space as the dialect does.
func (d Dialect) spaceURI(id space.ID) string {
	if d == ATProto {
		return id.AT()
	}
	return id.String()
}

// recordURI spells a record as the dialect does.
func (d Dialect) recordURI(u space.URI) string {
	if d == ATProto {
		return u.AT()
	}
	return u.String()
}
