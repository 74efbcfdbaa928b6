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

// startRound states the head of our control log. Each side does so once a
// round, whoever begins it.
func (s *Session) startRound() error {
	sum, err := s.summary()
	if err != nil {
		return err
	}
	meta := s.res.MetaBytes
	if s.res.Rounds > 0 {
		meta = 0
	}
	s.res = Result{Rounds: s.res.Rounds + 1, Ctl: sum.Ctl, Epoch: sum.Epoch, MetaBytes: meta}
	s.mine, s.theirs, s.pass, s.control, s.served = nil, nil, nil, incoming{}, 0
	s.phase = awaitControl
	s.say(Control{Term: sum.Ctl.Term, Seq: sum.Ctl.Seq, Hash: sum.Ctl.Hash})
	return nil
}

func (s *Session) summary() (Summary, error) {
	sum, err := s.cfg.Replica.Summary()
	if err != nil {
		return Summary{}, fmt.Errorf("summary: %w", err)
	}
	if sum.Topic != s.cfg.Topic {
		return Summary{}, fmt.Errorf("summary: replica of another topic")
	}
	if s.cfg.Control == nil {
		sum.Ctl = space.Head{}
	}
	return sum, nil
}

func (s *Session) onControl(m Control) error {
	if err := s.expect(KindControl, awaitControl, idle); err != nil {
		return err
	}
	if s.phase == idle { // the other side begins a round
		if err := s.startRound(); err != nil {
			return err
		}
	}
	s.res.PeerCtl = m.Head()
	s.phase = awaitDigest
	order := compareHeads(s.res.Ctl, s.res.PeerCtl)
	if order == 0 && s.res.Ctl != s.res.PeerCtl {
		// Two logs with one head's place: the initiator shows its entry there,
		// which is half of the proof. Who leads the next session shows the other.
		if order = -1; s.cfg.Role == Initiator {
			order = 1
		}
	}
	switch {
	case order > 0:
		if err := s.sendControl(); err != nil {
			return err
		}
	case order < 0:
		s.phase = awaitPages
	}
	s.out = append(s.out, (*Session).digest)
	return nil
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
	s.phase = awaitDigest
	sum, err := s.summary()
	s.res.Ctl = sum.Ctl
	return err
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
