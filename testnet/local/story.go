package local

import (
	"context"
	"fmt"
	"time"
)

// stepTime bounds a step that says nothing else.
const stepTime = 30 * time.Second

// chapter is a step of a story: it answers what there is to tell.
type chapter struct {
	name string
	run  func(context.Context) (detail string, err error)
}

// tell runs the chapters one after the other until one fails. Every step is
// passed to progress as it ends. explain, if set, adds to an error what else
// is known, such as which process died.
func tell(ctx context.Context, chapters []chapter, limit time.Duration, progress func(Step), explain func(error) error) Report {
	r := Report{Steps: []Step{}}
	for _, c := range chapters {
		ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %v", limit))
		start := time.Now()
		detail, err := c.run(ctx)
		s := Step{Name: c.name, OK: err == nil, MS: time.Since(start).Milliseconds(), Detail: detail}
		if err != nil && ctx.Err() != nil && context.Cause(ctx) != ctx.Err() {
			err = fmt.Errorf("%w; %w", context.Cause(ctx), err)
		}
		cancel()
		if err != nil && explain != nil {
			err = explain(err)
		}
		if err != nil {
			s.Detail = err.Error()
		}
		r.Steps = append(r.Steps, s)
		if progress != nil {
			progress(s)
		}
		if err != nil {
			return r
		}
	}
	r.OK = true
	return r
}

// until asks again and again until check holds or ctx ends, and then says what
// was missing last. It asks at once, then with growing pauses.
func until(ctx context.Context, check func() error) error {
	pause := 2 * time.Millisecond
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
}
