package reconcile

import (
	"cmp"
	"fmt"

	"github.com/kithnet/kith/space"
)

// incoming is what has come of the peer's control log in this round.
type incoming struct {
	page         []byte // the page being put together
	pages, bytes int
}

// sayControl states the head of our log.
func (s *Session) sayControl() {
	s.logKnown = true
	s.say(Control{Term: s.res.Ctl.Term, Seq: s.res.Ctl.Seq, Hash: s.res.Ctl.Hash})
}

// onControl compares the control logs: the follower asked for it, instead of
// answering the BEACON. The leader says its BEACON again after that.
func (s *Session) onControl(m Control) error {
	if err := s.expect(KindControl, awaitAnswer, awaitControl); err != nil {
		return err
	}
	if s.cfg.Blind || s.phase == awaitAnswer && s.logKnown {
		return blame("control", ErrOrder)
	}
	s.turn()
	s.res.PeerCtl = m.Head()
	if s.res.Led {
		s.sayControl()
	}
	order := compareHeads(s.res.Ctl, s.res.PeerCtl)
	if order == 0 && s.res.Ctl != s.res.PeerCtl {
		// Two logs with one head's place: the initiator shows its entry there,
		// which is half of the proof. Who leads the next session shows the other.
		if order = -1; s.cfg.Role == Initiator {
			order = 1
		}
	}
	if order > 0 {
		if err := s.sendControl(); err != nil {
			return err
		}
	}
	if order < 0 {
		s.phase = awaitPages
		return nil
	}
	return s.controlDone()
}

// controlDone goes on when the logs have been exchanged.
func (s *Session) controlDone() error {
	if !s.res.Led {
		s.phase = awaitBeacon
		return nil
	}
	return s.beacon()
}

// compareHeads says which log is ahead: any log of one without, then the later
// term, then the later entry.
func compareHeads(a, b space.Head) int {
	none := space.Head{}
	switch {
	case a == none && b == none:
		return 0
	case a == none:
		return -1
	case b == none:
		return 1
	}
	return cmp.Or(cmp.Compare(a.Term, b.Term), cmp.Compare(a.Seq, b.Seq))
}

// sendControl queues the pages the other side lacks, as far as one round
// carries them. A side without a log has no use for them but still hears that
// none follow.
func (s *Session) sendControl() error {
	pages, err := s.cfg.Control.ControlSince(s.res.PeerCtl)
	if err != nil {
		return fmt.Errorf("control pages: %w", err)
	}
	var in incoming
	for i, p := range pages {
		if len(p) == 0 || len(p) > MaxControlPage {
			return fmt.Errorf("control pages: page of %d bytes: %w", len(p), space.ErrTooLarge)
		}
		if in.add(len(p)) != nil {
			pages = pages[:i]
			break
		}
	}
	s.out = append(s.out, func(*Session) (Msg, bool, error) {
		if len(pages) == 0 {
			return ControlPage{Chunk: []byte{}, Last: true}, false, nil
		}
		n := min(len(pages[0]), maxChunk)
		m := ControlPage{Chunk: pages[0][:n:n]}
		if pages[0] = pages[0][n:]; len(pages[0]) > 0 {
			m.More = true
			return m, true, nil
		}
		pages = pages[1:]
		m.Last = len(pages) == 0
		return m, !m.Last, nil
	})
	return nil
}

// add counts a page and refuses one too many.
func (in *incoming) add(size int) error {
	in.pages++
	in.bytes += size
	if in.pages > MaxControlPages || in.bytes > MaxControlBytes {
		return fmt.Errorf("%d pages, %d bytes: %w", in.pages, in.bytes, space.ErrTooLarge)
	}
	return nil
}

func (s *Session) onControlPage(m ControlPage) error {
	if err := s.expect(KindControlPage, awaitPages); err != nil {
		return err
	}
	if len(s.control.page)+len(m.Chunk) > MaxControlPage {
		return blame("control page", space.ErrTooLarge)
	}
	s.control.page = append(s.control.page, m.Chunk...)
	if m.More {
		return nil
	}
	if err := s.takePage(); err != nil {
		return err
	}
	if !m.Last {
		return nil
	}
	s.turn()
	sum, err := s.summary()
	if err != nil {
		return err
	}
	s.res.Ctl = sum.Ctl
	return s.controlDone()
}

// takePage hands on the page that is complete.
func (s *Session) takePage() error {
	page := s.control.page
	s.control.page = nil
	if len(page) == 0 {
		return nil // the peer sends none
	}
	if err := s.control.add(len(page)); err != nil {
		return blame("control page", err)
	}
	if s.cfg.Control == nil {
		return nil
	}
	if err := s.cfg.Control.DeliverControl(page); err != nil {
		if byPeer(err) {
			return blame("control page", err)
		}
		return fmt.Errorf("control page: %w", err)
	}
	s.res.Pages++
	return nil
}
