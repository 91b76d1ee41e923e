package enginequeue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/store"
)

// Receive asks the engine for messages, for a caller.
func (r *Queue[T]) Receive(ctx context.Context, most int, vis time.Duration) ([]delivery.Delivery[T], error) {
	q := r.q
	if err := r.on.Need(vis != q.Store.Set.Visibility, fmt.Sprintf("WithVisibilityTimeout(%v)", vis), engine.Visibility, vis); err != nil {
		return nil, err
	}
	for {
		if err := r.awaitServing(ctx); err != nil {
			return nil, delivery.ReceiveError(q, err)
		}
		got, err := r.eq.Receive(ctx, most, r.lease(vis))
		if err != nil {
			return nil, delivery.ReceiveError(q, r.receiveError(ctx, err))
		}
		if ds := r.deliver(got, vis); len(ds) > 0 {
			return ds, nil
		}
	}
}

// TryReceive is receive for one who does not want to wait.
func (r *Queue[T]) TryReceive(ctx context.Context, vis time.Duration) (d delivery.Delivery[T], ok bool, err error) {
	q := r.q
	soon, cancel := context.WithTimeout(ctx, onengine.ProbeTime)
	defer cancel()
	q.Mu.Lock()
	paused := !q.Store.Closed && !q.ServesLocked()
	q.Mu.Unlock()
	if paused {
		return d, false, nil
	}
	ds, err := r.Receive(soon, 1, vis)
	switch {
	case err == nil:
		return ds[0], true, nil
	case ctx.Err() == nil && soon.Err() != nil:
		return d, false, nil
	}
	return d, false, err
}

func (r *Queue[T]) receiveError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, engine.ErrClosed):
		return delivery.ErrQueueClosed
	case ctx.Err() != nil:
		return message.ContextError(ctx)
	}
	return onengine.Error(err)
}

// awaitServing waits while the queue is paused.
func (r *Queue[T]) awaitServing(ctx context.Context) error {
	q := r.q
	for {
		ended := ctx.Err() != nil
		q.Mu.Lock()
		if q.Store.Closed {
			q.Mu.Unlock()
			return delivery.ErrQueueClosed
		}
		if ended || q.ServesLocked() {
			q.Mu.Unlock()
			if ended {
				return message.ContextError(ctx)
			}
			return nil
		}
		if r.resumed == nil {
			r.resumed = make(chan struct{})
		}
		resumed := r.resumed
		q.Mu.Unlock()
		select {
		case <-resumed:
		case <-ctx.Done():
		}
	}
}

// resumeLocked tells those who wait in awaitServing to look again.
func (r *Queue[T]) resumeLocked() {
	if r.resumed != nil {
		close(r.resumed)
		r.resumed = nil
	}
}

// deliver puts what was received in flight, for a caller.
func (r *Queue[T]) deliver(got []engine.Received, vis time.Duration) (ds []delivery.Delivery[T]) {
	q := r.q
	arrivals := r.decode(got)
	q.Mu.Lock()
	now := q.Core.Now()
	for k := range arrivals {
		i, ok := r.enterLocked(&arrivals[k], now)
		if !ok {
			continue
		}
		m, h := q.Store.Win.Meta(i), q.Store.Win.At(i)
		q.Store.CountIn(i)
		q.Store.Delivered++
		q.Store.Win.Schedule(i, message.After(now, vis))
		d := delivery.Of(q, &h.Item, h.Hist, message.Ref{Stamp: m.Stamp, Block: i, Attempt: int32(m.Spent + 1)})
		delivery.DeliveredLocked(q, &d)
		ds = append(ds, d)
	}
	q.ArmLocked(now)
	q.Unlock()
	return ds
}

// An arrival is a message received and decoded, or why it can't be.
type arrival[T any] struct {
	store.Held[T]
	spent    uint32
	passes   uint16
	dead     bool            // it was to be a dead letter already, and found no way there
	rejected bool            // by a filter
	failed   message.Verdict // without a cause unless the codec returned an error
	broken   message.Verdict // without a cause unless the codec or a filter did not return
	by       string          // which of them was asked last
}

// isDead reports whether the message has no attempt left. A letter that was redriven
// has the same history, but has spent nothing.
func (a *arrival[T]) isDead(maxAttempts int) bool {
	if maxAttempts != message.Unlimited && int64(a.spent) >= int64(maxAttempts) || a.passes >= message.MostPasses {
		return true
	}
	return a.spent > 0 && a.Hist != nil && a.Hist.Last().Cause == message.PermanentlyFailed
}

// decode decodes what was received and asks the filters. It calls the user's
// code: no lock is held.
func (r *Queue[T]) decode(got []engine.Received) []arrival[T] {
	as := make([]arrival[T], len(got))
	for k := 0; k < len(got); k++ {
		e := callback.Apart(func() {
			for ; k < len(got); k++ {
				r.decodeOne(&got[k], &as[k])
			}
		})
		if e.Returned {
			break
		}
		a := &as[k]
		a.broken = message.Verdict{Cause: message.CauseOfEnd(e), Stack: message.ShortText(e.Stack, message.MostText), Err: fmt.Errorf("%s of queue %q: %w", a.by, r.q.Name(), errExited)}
		if e.Panicked != nil {
			a.broken.Err = fmt.Errorf("%s of queue %q: %w", a.by, r.q.Name(), callback.Error(e.Panicked))
		}
		a.broken = a.broken.Told()
		a.broken.Wait = delivery.WaitAfter(r.q, message.Verdict{Cause: message.CauseOfEnd(e), Wait: message.FromBackoff}, int32(a.spent+1))
	}
	return as
}

// errExited is the error of a codec or a filter that called runtime.Goexit.
var errExited = errors.New("called runtime.Goexit")

func (r *Queue[T]) decodeOne(m *engine.Received, a *arrival[T]) {
	q := r.q
	data := m.State
	if !r.on.Caps[engine.State].Kept && !q.Store.Letters {
		q.Mu.Lock()
		if known := r.memories.Take(m.ID); known != nil {
			data = known
		}
		q.Mu.Unlock()
	}
	state, hist := onengine.Decode(data)
	a.Hist = hist
	if !q.Store.Letters {
		// Leases that ended without a word, in a process that is gone, count as attempts.
		lost := max(m.Deliveries-1-state.Deliveries, 0)
		a.spent, a.passes = uint32(state.Spent)+uint32(lost), state.Passes
		for range min(lost, onengine.MostAttempts) {
			now := q.Core.Now()
			a.Hist = a.Hist.With(q.Store.Attempt(message.Verdict{Cause: message.TimedOut, Err: errLeaseLost, Text: errLeaseLost.Error()}, now, now))
		}
		// Where the engine keeps no state nobody knows if a handler has run in them:
		// others may have received the message and given it back. It is dead only if
		// it was found to be so here. The engine's own limit of deliveries is the net.
		a.dead = state.Dead || r.on.Caps[engine.State].Kept && a.isDead(q.Store.Set.MaxAttempts)
	} else {
		a.spent = uint32(max(m.Deliveries-1, 0))
	}
	a.At = q.Core.Clock.At(m.PublishedAt)
	a.Ext = &message.Extra{
		ID: m.ID, Attributes: m.Attributes, Key: m.OrderingKey, TTL: m.TimeToLive,
		Receipt: &leased{receipt: m.Receipt, msg: m.Message, deliveries: m.Deliveries, born: state.Born},
	}
	if !state.Born.IsZero() {
		a.Ext.Born = max(q.Core.Clock.At(state.Born), 1)
	}
	a.by = "codec"
	if err := r.on.Codec.Decode(m.Body, &a.Body); err != nil {
		a.failed = message.Verdict{Cause: message.PermanentlyFailed, Err: fmt.Errorf("fanout: decode: %w", err)}.Told()
		return
	}
	a.by = "filter"
	a.rejected = !q.Filters.Accepts(&a.Item)
}

// errLeaseLost is the error of an attempt that somebody made who is gone.
var errLeaseLost = errors.New("fanout: the lease ended without a word from whoever had it")

// enterLocked makes an arrival an entry that is in flight from now on, but is not
// counted yet, unless its way ends here.
func (r *Queue[T]) enterLocked(a *arrival[T], now int64) (i int32, ok bool) {
	q := r.q
	q.Store.Offered++
	a.Seq = q.Store.Offered
	a.Start = now
	i = q.Store.Win.Add(a.Held)
	m := q.Store.Win.Meta(i)
	m.Spent, m.Passes, m.State = a.spent, a.passes, store.InFlight
	end := message.Verdict{}
	switch {
	case q.Store.Closed:
		end = message.Verdict{Cause: message.Released, Unstarted: true}
	case a.rejected:
		r.tell(i, ending{ack: true})
		q.Store.Win.Remove(i)
		return i, false
	case a.failed.Cause != 0 && !q.Store.Letters: // a letter has nowhere to go: it is delivered without its body
		end = a.failed
	case a.broken.Cause != 0 && !q.Store.Letters:
		end = a.broken
	case a.dead:
		r.deadLetterAgainLocked(i, true)
		return i, false
	case q.Store.Expired(&q.Store.Win.At(i).Item, now):
		q.ExpireLocked(i, now)
		return i, false
	default:
		return i, true
	}
	q.Store.CountIn(i)
	r.EndLocked(i, end, now)
	return i, false
}
