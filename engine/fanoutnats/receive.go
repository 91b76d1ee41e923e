package fanoutnats

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go"
)

// rest is how long a Receive that has messages waits for another one, or for the
// word that there are no more. That word is always sent; it may be lost with a server.
const rest = time.Second

// Receive asks the server for messages, until it has one. See [engine.Queue].
func (q *queue) Receive(ctx context.Context, most int, d time.Duration) ([]engine.Received, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if most < 1 {
		most = 1
	}
	if d <= 0 {
		d = q.spec.Visibility
	}
	if !q.enter() {
		return nil, engine.ErrClosed
	}
	defer q.topic.under.end()
	var silent time.Time // since when no server answers, zero if one does
	for {
		p, err := q.inbox()
		if err != nil {
			return nil, q.wrap(ctx, "receive", err)
		}
		err = q.asks(ctx, p, most)
		msgs, arrived := p.messages(most)
		q.leave(p)
		rs := q.lease(ctx, msgs, arrived, d)
		switch {
		case len(rs) > 0:
			return rs, nil
		case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrTimeout):
			// No leader, for the time being; or for good, or no such consumer any more.
			if q.deleted(ctx) {
				return nil, q.wrap(ctx, "receive", errDeleted)
			}
			if silent.IsZero() {
				silent = time.Now()
			}
			if time.Since(silent) > q.topic.engine.settings.timeout {
				return nil, q.wrap(ctx, "receive", err)
			}
			if err = q.pause(ctx, again); err != nil {
				return nil, err
			}
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errDeleted):
			return nil, q.wrap(ctx, "receive", err)
		case errors.Is(err, engine.ErrClosed):
			return nil, err
		case err != nil:
			return nil, q.wrap(ctx, "receive", err)
		default:
			silent = time.Time{}
		}
	}
}

// asks has p ask the server for messages, unless it has, and waits as await does.
func (q *queue) asks(ctx context.Context, p *pull, most int) error {
	w := q.topic.engine.newWatch(false, p.refuse, q.next, p.inbox)
	defer w.stop()
	if err := p.request(most); err != nil {
		return err
	}
	return q.await(ctx, p)
}

// enter counts a Receive, for the topic's Close to wait for.
func (q *queue) enter() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.topic.under.begin()
	return true
}

// inbox takes a pull that nobody uses, the most promising one.
func (q *queue) inbox() (*pull, error) {
	q.mu.Lock()
	best, most := -1, -1
	for k, p := range q.idle {
		if n := p.promising(); n > most {
			best, most = k, n
		}
	}
	if best < 0 {
		q.mu.Unlock()
		return q.newPull()
	}
	p := q.idle[best]
	q.idle = slices.Delete(q.idle, best, best+1)
	q.mu.Unlock()
	p.take()
	return p, nil
}

// leave keeps a pull for the next Receive. One with an open request is ended where
// that makes a difference at once, and no message of another receiver comes here: if
// there is only one server.
func (q *queue) leave(p *pull) {
	alone := q.topic.engine.alone()
	q.mu.Lock()
	keep := !q.closed && (!alone || p.promising() != 1)
	if keep {
		p.free()
		q.idle = append(q.idle, p)
	}
	q.mu.Unlock()
	if !keep {
		p.end()
	}
}

// await waits until p's request has ended, or ctx has, or the queue is closed. Once
// there are messages it waits only as long as they keep coming.
func (q *queue) await(ctx context.Context, p *pull) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		some, wait, err := p.look()
		if wait == 0 {
			return err
		}
		timer.Reset(wait)
		select {
		case <-p.news:
		case <-timer.C:
			p.lose()
			if some {
				return nil
			}
			return nats.ErrTimeout
		case <-ctx.Done():
			return ctx.Err()
		case <-q.closing:
			return engine.ErrClosed
		}
	}
}

// pause waits for d.
func (q *queue) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-q.closing:
		return engine.ErrClosed
	}
}

// lease makes deliveries of msgs. Those that are not due yet go back until they
// are, and those whose record can't be read go back at once.
func (q *queue) lease(ctx context.Context, msgs []*nats.Msg, arrived time.Time, d time.Duration) []engine.Received {
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := q.topic.engine.limit(ctx)
	defer cancel()
	var rs []engine.Received
	var ls []*lease
	q.mu.Lock()
	purged := q.purged
	q.mu.Unlock()
	for _, msg := range msgs {
		r, l, due, err := q.read(ctx, msg)
		switch wait := time.Until(due); {
		case err != nil:
			q.hide(msg.Reply, 0)
		case l.sequence <= purged:
			// It came from the server before the purge, and is gone there.
		case !due.IsZero() && wait > 0:
			q.giveBack(wait, msg)
		default:
			if l.deliveries == 1 && !due.IsZero() {
				q.note(l, r)
			}
			rs, ls = append(rs, r), append(ls, l)
		}
	}
	if err := q.addLeases(ls, arrived, d); err != nil {
		for k, l := range ls {
			q.uncount(ctx, l, rs[k], 0)
			q.hide(l.reply, 0)
		}
		return nil
	}
	q.stretch(ctx, ls, d)
	return rs
}

// read makes a delivery of msg, with what its record says, and says when it is due.
func (q *queue) read(ctx context.Context, msg *nats.Msg) (r engine.Received, l *lease, due time.Time, err error) {
	meta, err := msg.Metadata()
	if err != nil {
		return r, nil, due, err
	}
	l = &lease{queue: q, sequence: meta.Sequence.Stream, deliveries: meta.NumDelivered, reply: msg.Reply}
	r = engine.Received{Message: decode(msg, meta), Receipt: l, Deliveries: int(meta.NumDelivered)}
	if delay := q.delay(msg, &r.Message); delay > 0 {
		due = meta.Timestamp.Add(delay)
	}
	if meta.NumDelivered == 1 {
		l.stateful = len(r.State) > 0
		return r, l, due, nil
	}
	again, err := q.recall(ctx, l, &r)
	if err != nil {
		return r, nil, due, err
	}
	if again.IsZero() && !due.IsZero() {
		// Without a record the first delivery was only to look when it is due.
		l.uncounted = 1
		r.Deliveries--
	}
	l.stateful = len(r.State) > 0
	// A server that was restarted counts in seconds, and may be early. If it is more
	// than that, the clocks differ, and it knows better.
	if early := time.Until(again); early > 0 && early <= time.Second && again.After(due) {
		due = again
	}
	return r, l, due, nil
}

// giveBack gives back messages that nobody has received, to come again after d.
func (q *queue) giveBack(d time.Duration, msgs ...*nats.Msg) {
	ctx, cancel := q.topic.engine.limit(context.Background())
	defer cancel()
	for _, msg := range msgs {
		wait := d
		r, l, due, err := q.read(ctx, msg)
		switch {
		case err != nil: // then it counts
		case l.deliveries == 1 && !due.IsZero(): // nor does the first one of a message with a delay
			wait = max(d, time.Until(due))
		default:
			q.uncount(ctx, l, r, d)
		}
		q.hide(msg.Reply, wait)
	}
}

// delay is how long the message is held back from its publication. One that was
// redriven isn't.
func (q *queue) delay(msg *nats.Msg, m *engine.Message) time.Duration {
	if q.source != nil || msg.Subject != q.topic.names.all() {
		return 0
	}
	if m.Delay > 0 {
		return m.Delay
	}
	return q.spec.Delay
}
