package fanoutnats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go"
)

// Ack acknowledges the message, and waits until the server has it. See
// [engine.Queue].
func (q *queue) Ack(caller context.Context, r engine.Receipt) error {
	return q.settle(caller, "acknowledge", r, q.ack)
}

// settle takes the lease and ends it with end, in time for the server to take it
// for that of this delivery.
func (q *queue) settle(caller context.Context, what string, r engine.Receipt, end func(context.Context, *lease) error) error {
	if q.isClosed() {
		return engine.ErrClosed
	}
	return q.settleOpen(caller, what, r, end)
}

// settleOpen is settle, also after Close, until the topic's.
func (q *queue) settleOpen(caller context.Context, what string, r engine.Receipt, end func(context.Context, *lease) error) error {
	if err := caller.Err(); err != nil {
		return err
	}
	if !q.topic.enter() {
		return engine.ErrClosed
	}
	defer q.topic.under.end()
	l, err := q.take(r)
	if err != nil {
		return err
	}
	ctx, cancel := q.topic.engine.limit(caller)
	defer cancel()
	return q.wrap(caller, what, end(ctx, l))
}

func (q *queue) ack(ctx context.Context, l *lease) error {
	if err := q.confirm(ctx, l, ackDone); err != nil {
		return err
	}
	q.forget(ctx, l)
	return nil
}

// confirm sends an acknowledgement until a server confirms it: the answer of one
// that dies is lost. It stops when the message may be another's.
func (q *queue) confirm(ctx context.Context, l *lease, data []byte) error {
	for {
		once, cancel := context.WithTimeout(ctx, time.Second)
		_, err := heed(once, q.topic.engine, l.reply, func(ctx context.Context) (*nats.Msg, error) {
			return q.topic.engine.nc.RequestWithContext(ctx, l.reply, data)
		})
		cancel()
		lost := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders)
		if err == nil || !lost || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, nats.ErrNoResponders) && q.deleted(ctx) {
			return errDeleted
		}
		if errors.Is(err, nats.ErrNoResponders) && !sleep(ctx, again) {
			return err
		}
		q.mu.Lock()
		over := !time.Now().Before(l.kept)
		q.mu.Unlock()
		if over {
			return fmt.Errorf("not confirmed before the lease was over: %w", err)
		}
	}
}

// Return writes the state to the message's record, and then gives the message
// back: a crash in between leaves the attempt counted. It works after Close: what a
// Receive returned as the queue was closed would be hidden until AckWait has passed. See
// [engine.Queue].
func (q *queue) Return(caller context.Context, r engine.Receipt, wait time.Duration, state []byte) error {
	if l, err := q.own(r); err == nil && len(state) > 0 {
		if _, err := q.recorded(l, wait, state); err != nil { // the lease stays
			return q.wrap(caller, "return: its state", err)
		}
	}
	return q.settleOpen(caller, "return", r, func(ctx context.Context, l *lease) error {
		if len(state) > 0 || l.stateful { // an empty record takes the state away
			if err := q.remember(ctx, l, wait, state); err != nil {
				q.restore(l)
				return fmt.Errorf("its state: %w", err)
			}
		}
		return q.confirm(ctx, l, hideFor(wait))
	})
}

// Extend moves the end of the lease, here and at the server. See [engine.Queue].
func (q *queue) Extend(caller context.Context, r engine.Receipt, d time.Duration) error {
	if err := caller.Err(); err != nil {
		return err
	}
	l, err := q.own(r)
	if err != nil {
		return err
	}
	q.mu.Lock()
	err = q.aliveLocked(l)
	q.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := q.topic.engine.limit(caller)
	defer cancel()
	now := time.Now()
	if err := q.confirm(ctx, l, hideFor(d+margin(q.ackWait))); err != nil {
		return q.wrap(caller, "extend", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.aliveLocked(l); err != nil {
		return err // settled, or over, meanwhile
	}
	l.until = now.Add(d)
	l.kept = l.until
	return nil
}

// DeadLetter publishes m to the letters' stream, once for a message if the process
// tries twice, and then acknowledges. See [engine.Queue].
func (q *queue) DeadLetter(caller context.Context, r engine.Receipt, m engine.Message) error {
	if q.dead == nil {
		return fmt.Errorf("fanoutnats: dead-letter queue of queue %q: a letter can't be dead-lettered", q.spec.Name)
	}
	msg, err := encode(q.topic.names.letters(q.token), m, q.topic.engine.nc.MaxPayload())
	if err != nil {
		return q.wrap(caller, "dead-letter", err)
	}
	return q.settle(caller, "dead-letter", r, func(ctx context.Context, l *lease) error {
		setID(msg, q.token+"-"+strconv.FormatUint(l.sequence, 10))
		last, err := q.topic.engine.storeAgain(ctx, msg)
		if err != nil {
			q.restore(l) // the message stays here
			return err
		}
		q.dead.stored.raise(last)
		if err = q.ack(ctx, l); errors.Is(err, errDeleted) {
			err = errors.Join(err, q.takeBack(ctx, last))
		}
		return err
	})
}

// Redrive publishes m to the subject that only the letter's queue listens to, and
// then acknowledges the letter. See [engine.Queue].
func (q *queue) Redrive(caller context.Context, r engine.Receipt, m engine.Message) error {
	if q.source == nil {
		return fmt.Errorf("fanoutnats: queue %q: only a letter can be redriven", q.spec.Name)
	}
	m.Delay = 0 // it was spent
	msg, err := encode(q.topic.names.one(q.token), m, q.topic.engine.nc.MaxPayload())
	if err != nil {
		return q.wrap(caller, "redrive", err)
	}
	return q.settle(caller, "redrive", r, func(ctx context.Context, l *lease) error {
		setID(msg, "redrive-"+q.token+"-"+strconv.FormatUint(l.sequence, 10))
		last, err := q.topic.engine.storeAgain(ctx, msg)
		if err != nil {
			q.restore(l) // the letter stays here
			return err
		}
		q.source.stored.raise(last)
		return q.ack(ctx, l)
	})
}
