package xrpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/kithnet/kith/space"
)

// Access says what people other than the node's owner may see.
type Access interface {
	// Level of somebody in a space: space.LevelNone for who is no member.
	// space.ErrSpaceNotFound, space.ErrSpaceDeleted.
	Level(ctx context.Context, id space.ID, who space.DID) (space.Level, error)
}

// Tokens are the tokens beside the owner's own. The text of one is shown once
// and kept by nobody but who asked for it.
type Tokens interface {
	// CreateToken draws a token: space.ErrNoSpaceLeft once there are too many.
	CreateToken(ctx context.Context, t Token) (text string, made Token, err error)
	// Tokens lists those that are neither revoked nor expired, in any order.
	Tokens(ctx context.Context) ([]Token, error)
	// RevokeToken fails with ErrTokenNotFound.
	RevokeToken(ctx context.Context, id string) error
	// Caller is whose token a text is: ErrTokenNotFound.
	Caller(ctx context.Context, text string) (Token, error)
}

// Token lets somebody else than the owner, or the owner with less than
// everything, call the API.
type Token struct {
	ID        string    `json:"id"` // hex
	DID       space.DID `json:"did"`
	Scope     Scope     `json:"scope"`
	Note      string    `json:"note,omitempty"`
	CreatedMs int64     `json:"createdMs"`           // unix milliseconds
	ExpiresMs int64     `json:"expiresMs,omitempty"` // unix milliseconds; 0: never
}

// Scope bounds what a token does. It adds nothing to what its person may do.
type Scope struct {
	Level  space.Level // in every space, at most
	Manage bool        // found, join, leave and govern spaces, as the owner
	Node   bool        // status, peers and settings of the node
}

// ParseScope reads words separated by spaces: read_self, read or write, of
// which the highest counts; manage, which includes write; node.
func ParseScope(text string) (s Scope, err error) {
	for _, word := range strings.Fields(text) {
		switch word {
		case "manage":
			s.Manage, s.Level = true, space.LevelWrite
		case "node":
			s.Node = true
		default:
			level, err := space.ParseLevel(word)
			if err != nil {
				return Scope{}, faultf(errRequest, "scope: %q is not read_self, read, write, manage or node", clip(word))
			}
			s.Level = max(s.Level, level)
		}
	}
	if s == (Scope{}) {
		return s, faultf(errRequest, "scope: say what the token is for: read_self, read, write, manage or node")
	}
	return s, nil
}

// String is what ParseScope reads.
func (s Scope) String() string {
	var words []string
	switch {
	case s.Manage:
		words = append(words, "manage")
	case s.Level != space.LevelNone:
		words = append(words, s.Level.String())
	}
	if s.Node {
		words = append(words, "node")
	}
	return strings.Join(words, " ")
}

// MarshalText is String.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseScope.
func (s *Scope) UnmarshalText(b []byte) (err error) {
	*s, err = ParseScope(string(b))
	return err
}

// access is whom a method is for.
type access uint8

const (
	forOwner     access = iota // the holder of the owner's own token
	forNode                    // the owner, with node in the scope
	forFounder                 // the owner, with manage in the scope
	forUploader                // the owner, with write in the scope: what a record will refer to is in no space yet
	forAuthority               // the owner, as far as the node lets them govern the space that is named
	forWriter                  // a member who may write, into the own repo
	forReader                  // a member who may read everything
	forMember                  // any member; the handler shows read_self what is theirs
	forCaller                  // whoever has a token; the handler shows what is theirs
)

// accessNames are what the table in the docs says.
var accessNames = [...]string{
	"owner", "owner (node)", "owner (manage)", "owner (write)", "authority", "member (write)", "member (read)", "member", "any token",
}

// caller is who makes a request.
type caller struct {
	Token
	// full is the owner's own token, for which the node alone is judge.
	full bool
}

// identify finds out who calls. errAuth: nobody says who.
func (s *Server) identify(r *http.Request) (caller, error) {
	auth := r.Header.Values("Authorization")
	if len(auth) == 0 {
		return caller{}, errAuth
	}
	if len(auth) > 1 {
		return caller{}, faultf(errToken, "authorization: give one")
	}
	scheme, text, _ := strings.Cut(auth[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return caller{}, faultf(errToken, "invalid Authorization scheme: send Bearer and the token of the node's api.token file")
	}
	text = strings.TrimSpace(text)
	have, want := sha256.Sum256([]byte(text)), sha256.Sum256([]byte(strings.TrimSpace(s.Token)))
	if subtle.ConstantTimeCompare(have[:], want[:]) == 1 && strings.TrimSpace(s.Token) != "" {
		all := Scope{Level: space.LevelWrite, Manage: true, Node: true}
		return caller{Token: Token{DID: s.Owner, Scope: all}, full: true}, nil
	}
	if s.Tokens != nil && text != "" {
		t, err := s.Tokens.Caller(r.Context(), text)
		if err == nil {
			return caller{Token: t}, nil
		}
		if !errors.Is(err, ErrTokenNotFound) {
			return caller{}, err
		}
	}
	return caller{}, faultf(errToken, "authorization: not a token of this node; the owner's is in its api.token file")
}

// isOwner reports whether the node's owner calls.
func (c *call) isOwner() bool { return c.caller.DID == c.s.Owner && !c.anonymous }

// admit judges whether the caller may use the method. Who has no place in the
// space that is named gets the answer that a space gets which is not here.
func (c *call) admit(m method) error {
	switch {
	case c.anonymous:
		c.level = space.LevelRead
		return nil
	case c.caller.full:
		c.level = space.LevelWrite
		return nil
	case m.who == forOwner:
		return faultf(space.ErrForbidden, "%s: only the owner's own token does this", c.nsid)
	case m.who == forNode && !(c.isOwner() && c.caller.Scope.Node):
		return faultf(space.ErrForbidden, "%s: a token of the owner's with the scope node does this", c.nsid)
	case m.who == forFounder && !(c.isOwner() && c.caller.Scope.Manage):
		return faultf(space.ErrForbidden, "%s: a token of the owner's with the scope manage does this", c.nsid)
	case m.who == forUploader && !c.isOwner():
		return faultf(space.ErrForbidden, "this node has no keys of %s; write through a node of theirs", c.caller.DID)
	case m.who == forUploader && c.caller.Scope.Level < space.LevelWrite:
		return faultf(space.ErrForbidden, "Write access is required for this action")
	case m.who == forNode, m.who == forFounder, m.who == forUploader, m.who == forCaller:
		return nil
	}
	id, err := c.spaceID()
	if err != nil {
		return err
	}
	if c.level, err = c.levelIn(id, m.open); err != nil {
		return err
	}
	return c.mayUse(m.who)
}

// refusedAfter is how long a caller waits to hear that there is no such space.
// To find out that somebody has no place in one that is here takes longer than
// to find none, the more so the more other spaces it lets in: all that is over
// by then, some thousand rosters included.
const refusedAfter = 2 * time.Millisecond

// levelIn is what the caller may do in a space, by standing and scope. A
// public space opens to everybody.
func (c *call) levelIn(id space.ID, open func(space.Policy) bool) (space.Level, error) {
	over := time.After(refusedAfter)
	level, err := c.levelNow(id, open)
	if errors.Is(err, space.ErrSpaceNotFound) {
		select {
		case <-over:
		case <-c.ctx().Done():
		}
	}
	return level, err
}

func (c *call) levelNow(id space.ID, open func(space.Policy) bool) (space.Level, error) {
	level, err := c.standing(id)
	if err != nil {
		return space.LevelNone, err
	}
	if level != space.LevelNone && c.caller.Scope.Level != space.LevelNone {
		return min(level, c.caller.Scope.Level), nil
	}
	if open != nil {
		if info, err := c.s.Spaces.Space(c.ctx(), id); err == nil && open(info.Policy) {
			c.anonymous = true
			return space.LevelRead, nil
		}
	}
	return space.LevelNone, space.ErrSpaceNotFound
}

// standing is the caller's level in a space before the scope; none where there
// is no such space. Where the spaces that are its members go too deep to tell,
// it is none too: another answer would tell a stranger that the space is here.
func (c *call) standing(id space.ID) (space.Level, error) {
	if c.s.Access == nil {
		return space.LevelNone, nil
	}
	level, err := c.s.Access.Level(c.ctx(), id, c.caller.DID)
	for _, none := range []error{space.ErrSpaceNotFound, space.ErrDelegationDepth, space.ErrTooLarge} {
		if errors.Is(err, none) {
			return space.LevelNone, nil
		}
	}
	return level, err
}

// mayUse judges by the level. The owner's standing as an authority is for the
// node to judge: nobody else of this node's callers has the keys for it.
func (c *call) mayUse(who access) error {
	switch {
	case who == forReader && c.level < space.LevelRead:
		return faultf(space.ErrForbidden, "read_self access only permits reading your own repo")
	case who == forWriter && !c.isOwner() && c.level == space.LevelWrite:
		return faultf(space.ErrForbidden, "this node has no keys of %s; write through a node of theirs", c.caller.DID)
	case who == forWriter && c.level < space.LevelWrite:
		return faultf(space.ErrForbidden, "Write access is required for this action")
	case who == forAuthority && !c.isOwner():
		return faultf(errOwner, "Only the space authority can perform this action")
	case who == forAuthority && !c.caller.Scope.Manage:
		return faultf(space.ErrForbidden, "%s: a token with the scope manage does this", c.nsid)
	}
	return nil
}

// readable turns whom a read asks for into whom it may read: who reads only
// what is theirs gets that, and asks for nobody else's.
func (c *call) readable(author space.DID) (space.DID, error) {
	if c.level >= space.LevelRead {
		return author, nil
	}
	if author != "" && author != c.caller.DID {
		return "", faultf(space.ErrForbidden, "read_self access only permits reading your own repo")
	}
	return c.caller.DID, nil
}

// Session is who a caller is to the node.
type Session struct {
	DID       space.DID `json:"did"`
	Owner     bool      `json:"owner"`
	Scope     Scope     `json:"scope"`
	TokenID   string    `json:"tokenId,omitempty"`
	ExpiresAt *string   `json:"expiresAt,omitempty"`
}

// showSession says who the caller is to this node.
func showSession(c *call) (any, error) {
	out := Session{DID: c.caller.DID, Owner: c.isOwner(), Scope: c.caller.Scope, TokenID: c.caller.ID}
	if ms := c.caller.ExpiresMs; ms != 0 {
		out.ExpiresAt = new(timeText(ms * 1000))
	}
	return out, nil
}
