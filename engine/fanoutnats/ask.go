package fanoutnats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// patience is how long one request waits for its answer. A server that has no
// leader to ask, or dies, answers nothing, and will not.
const patience = 3 * time.Second

// ask asks what may be asked twice, until it is answered or ctx ends. subject is that of
// f's requests, without the prefix of the API.
func ask[T any](ctx context.Context, e *Engine, subject string, f func(context.Context) (T, error)) (T, error) {
	return askOn(ctx, e, e.api(subject), f)
}

// askOn is ask with the whole subject.
func askOn[T any](ctx context.Context, e *Engine, subject string, f func(context.Context) (T, error)) (T, error) {
	began := time.Now()
	for {
		once, cancel := context.WithTimeout(ctx, patience)
		v, err := heed(once, e, subject, f)
		cancel()
		if err == nil {
			return v, nil
		}
		failure := e.settings.failures.Since(began)
		if failure != nil && !errors.Is(err, failure) && (silent(err) || untaken(err) || internal(err)) {
			return v, fmt.Errorf("%w: %w", failure, err) // which is why
		}
		if ctx.Err() != nil || failure != nil || !silent(err) && !untaken(err) {
			return v, err
		}
		if !silent(err) && !sleep(ctx, again) {
			return v, err
		}
	}
}

// do is ask for what has no answer but that it is done.
func do(ctx context.Context, e *Engine, subject string, f func(context.Context) error) error {
	_, err := ask(ctx, e, subject, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) })
	return err
}

// internal reports whether a server says that it failed, and not what was asked.
func internal(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code >= 500
}

// silent reports whether err says that there was no answer.
func silent(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
}
