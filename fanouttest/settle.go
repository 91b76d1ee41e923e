package fanouttest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A SettleOption says what [Kit.Settle] waits for: [Delayed], [Within].
type SettleOption func(*settling)

type settling struct {
	delayed bool
	until   time.Time // the zero Time: without end
}

// Delayed makes Settle wait for delayed and snoozed messages too.
func Delayed() SettleOption { return func(s *settling) { s.delayed = true } }

// Within makes Settle wait only for retries that are due within d from the call, and, with
// Delayed, for snoozes that are; others may stay. A delay of the publisher or of the queue
// counts as due within d.
func Within(d time.Duration) SettleOption {
	return func(s *settling) { s.until = time.Now().Add(d) }
}

// Settle waits until everything in the kit's topics is settled: nothing is ready, in flight
// or waiting for a retry in any queue, no handler runs and no publish is under way. It looks
// at all topics together, so it also waits for what handlers publish. It doesn't poll: it
// looks again when something has happened.
//
// As fanout.Topic.Shutdown does, it doesn't wait for messages that are delayed, snoozed,
// parked or paused, for those behind one of these, or for dead letters. It does wait for the
// consumers of a dead-letter queue. In virtual time waiting takes no time.
//
// If ctx ends first, Settle ends the test with the list of what is not settled. If ctx has
// no deadline, the kit gives up after 10 seconds, in virtual time after 30 days: a queue
// without a consumer would take for ever.
func (k *Kit) Settle(ctx context.Context, options ...SettleOption) {
	k.tb.Helper()
	if err := k.AwaitSettled(ctx, options...); err != nil {
		k.tb.Fatalf("%v", err)
	}
	k.report()
}

// AwaitSettled is [Kit.Settle] for a caller who wants the error, which wraps ctx's and lists
// what is not settled. It does not end or fail the test.
func (k *Kit) AwaitSettled(ctx context.Context, options ...SettleOption) error {
	var s settling
	for _, o := range options {
		o(&s)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		d := patience()
		ctx, cancel = context.WithTimeoutCause(ctx, d, fmt.Errorf("%w: %v have passed", context.DeadlineExceeded, d))
		defer cancel()
	}
	left := k.await(ctx, 0, func() []string {
		lines := k.handling()
		if n := k.publishes(); n > 0 {
			lines = append(lines, fmt.Sprintf("publishes under way: %d", n))
		}
		for _, m := range k.members() {
			lines = append(lines, m.waiting(s)...)
		}
		return lines
	})
	k.mu.Lock()
	k.settle = ""
	k.mu.Unlock()
	if left == nil {
		return nil
	}
	for _, m := range k.members() {
		left = append(left, m.holding()...)
	}
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		err = fmt.Errorf("%w: %w", err, cause)
	} else {
		err = cause
	}
	return fmt.Errorf("fanouttest: not settled: %w:\n    %s", err, strings.Join(left, "\n    "))
}

func (k *Kit) publishes() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sending
}
