package oracle_test

import (
	"fmt"
	"math"

	"github.com/kithnet/kith/space"
)

// The model knows no keys. It writes down who was told of which epoch of which
// space, and answers who can know what.

// book is what the model keeps of a space.
type book struct {
	pages    []*page                // of epoch 1 and on
	level    map[string]space.Level // of who is a member now
	admits   map[string]bool        // of them, who admits
	children map[string]uint64      // spaces that are members, and the epoch that is known of each
	history  bool                   // newcomers are told what was before
}

func newBook(authority string, history bool) *book {
	return &book{
		level:    map[string]space.Level{authority: space.LevelWrite},
		admits:   map[string]bool{authority: true},
		children: map[string]uint64{}, history: history,
	}
}

// page is who was told what of an epoch: the person, and the generation of its
// per-user key under which it was told first. Who is told all of the epoch
// before stands on this page, if linked.
type page struct {
	all, self, issuer map[string]uint32
	children          map[string]uint64
	linked            bool
}

func (b *book) now() uint64 { return uint64(len(b.pages)) }

// turn opens the next epoch: everybody who is in now is told.
func (b *book) turn(gen func(string) uint32) {
	p := &page{
		all: map[string]uint32{}, self: map[string]uint32{}, issuer: map[string]uint32{}, children: map[string]uint64{},
		linked: b.history && len(b.pages) > 0,
	}
	b.pages = append(b.pages, p)
	for who, l := range b.level {
		b.tell(who, l, b.now(), gen(who))
		if b.admits[who] {
			p.issuer[who] = gen(who)
		}
		if b.now() == 1 {
			p.issuer[who] = math.MaxUint32 // is wrapped to nobody: the founding device alone has it
		}
	}
	for child, epoch := range b.children {
		p.children[child] = epoch
	}
}

// tell hands somebody what its level is due of an epoch.
func (b *book) tell(who string, l space.Level, epoch uint64, gen uint32) {
	p := b.pages[epoch-1]
	to := p.all
	if l == space.LevelReadSelf {
		to = p.self
	}
	note(to, who, gen)
}

// welcome is what somebody is handed that comes in at a level, or rises to it.
func (b *book) welcome(who string, l space.Level, gen uint32) {
	for e := uint64(1); e <= b.now(); e++ {
		if e == b.now() || b.history {
			b.tell(who, l, e, gen)
		}
	}
}

func note(m map[string]uint32, who string, gen uint32) {
	if old, ok := m[who]; !ok || gen < old {
		m[who] = gen
	}
}

// knower is somebody about whom the model is asked: a person with all its
// devices, or one device alone.
type knower struct {
	name  string
	who   string
	below uint32 // knows the per-user keys below this generation; 0: all
}

func (k knower) was(told map[string]uint32) bool {
	gen, ok := told[k.who]
	return ok && (k.below == 0 || gen < k.below)
}

// library are the books of all spaces.
type library map[string]*book

// shelf is what one knower reads of each space, by epoch.
type shelf map[string][]reads

// reads is how one epoch is read: all of it, the own part, its log.
type reads struct{ all, own, log bool }

// of works out what k reads, beginning with what it was told itself and going
// on until nothing follows any more.
func (l library) of(k knower) shelf {
	s := shelf{}
	for room, b := range l {
		s[room] = make([]reads, b.now()+1) // [0] is the time before the first epoch, when all is in clear
		s[room][0].log = true
		for i, p := range b.pages {
			s[room][i+1] = reads{all: k.was(p.all), own: k.was(p.self)}
		}
	}
	for l.follow(s) {
	}
	return s
}

// follow goes one step on: who reads a child reads what the child was told, if
// it can find that in the log; an epoch may tell the one before; and a log
// always tells the log before.
func (l library) follow(s shelf) (more bool) {
	set := func(b *bool, v bool) {
		more = more || v && !*b
		*b = *b || v
	}
	for room, b := range l {
		for e := range s[room] {
			here := &s[room][e]
			set(&here.log, here.all || here.own)
			if e < len(b.pages) {
				set(&here.all, b.pages[e].linked && s[room][e+1].all)
				set(&here.log, s[room][e+1].log)
			}
			if e == 0 {
				continue
			}
			for child, of := range b.pages[e-1].children {
				set(&here.all, s[child][of].all && s[room][e-1].log)
			}
		}
	}
	return more
}

// kind is what a fact is of.
type kind byte

const (
	factGroup   kind = iota // the group key of an epoch
	factControl             // its control key
	factAuthor              // an author key in it
	factIssuer              // its issuer
	factPUK                 // a generation of a per-user key
	factEntry               // a body that somebody wrote
	factHello               // a hello under the epoch's key
	factOwn                 // a hello under the author's own key
	factLog                 // what is sealed under the control key: log entries, inner bodies, pages
	factWelcome
)

// fact is something that can be known, and is known by its name.
type fact struct {
	name  string
	kind  kind
	room  string
	epoch uint64
	who   string // author, or recipient
	gen   uint32
}

// knows is the whole of the access model: what k, whose shelf is s, knows.
func (l library) knows(k knower, s shelf, f fact) bool {
	switch f.kind {
	case factGroup, factHello:
		return s[f.room][f.epoch].all
	case factAuthor, factEntry, factOwn:
		at := s[f.room][f.epoch]
		return at.all || k.who == f.who && at.own
	case factControl, factLog:
		return s[f.room][f.epoch].log
	case factIssuer:
		return k.was(l[f.room].pages[f.epoch-1].issuer)
	case factPUK, factWelcome:
		return k.who == f.who && (k.below == 0 || f.gen < k.below)
	}
	panic(fmt.Sprintf("a fact of kind %d", f.kind))
}

// present is the access model in one sentence, for what is written now: level
// is the best that a person has by any path, a device counts while it lives.
func (l library) present(who, room string) space.Level {
	best := l[room].level[who]
	for child := range l[room].children {
		if l.present(who, child) >= space.LevelRead {
			best = max(best, space.LevelRead)
		}
	}
	return best
}
