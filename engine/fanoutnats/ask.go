package fanoutnats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// patience is how long one request waits for its answer. A server that has no
// leader to ask, or dies, answers nothing, and will not.
const patience = 3 * time.Second

// ask asks what may be asked twice, until it is answered or ctx ends.
func ask[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	for {
		once, cancel := context.WithTimeout(ctx, patience)
		v, err := f(once)
		cancel()
		silent := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
		if err == nil || ctx.Err() != nil || !silent && !untaken(err) {
			return v, err
		}
		if !silent && !sleep(ctx, again) {
			return v, err
		}
	}
}

// do is ask for what has no answer but that it is done.
func do(ctx context.Context, f func(context.Context) error) error {
	_, err := ask(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) })
	return err
}
