package core

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/onengine"
)

// wantLocked sees to it that the poller runs.
func (r *remoteQueue[T]) wantLocked() {
	if r.q.polling || r.q.closed {
		return
	}
	var ctx context.Context
	r.q.polling = true
	ctx, r.stopPoll = context.WithCancel(context.Background())
	go r.poll(ctx)
}

// stopPollLocked ends the poller's wait if no worker is there to serve.
func (r *remoteQueue[T]) stopPollLocked() {
	if r.q.polling && (r.q.closed || !r.q.servesLocked() || r.wantedLocked() <= 0) {
		r.stopPoll()
	}
}

// wantedLocked is how many messages the queue's workers could begin with now.
func (r *remoteQueue[T]) wantedLocked() (n int) {
	q := r.q
	for _, s := range q.subs {
		switch {
		case s.stopping || s.limitedLocked() > 0:
		case s.set.Every > 0:
			n++
		default:
			n += min((s.set.Concurrency-s.running)*s.most, mostPolled)
		}
	}
	return n - q.readyLocked()
}

// poll receives for the queue's workers. Started by wantLocked; ends when no
// worker is free, or nobody may be served; the queue's close waits for it.
func (r *remoteQueue[T]) poll(ctx context.Context) {
	q := r.q
	stop, over := r.stopPoll, false
	defer func() {
		if !over { // a hook called runtime.Goexit: another goroutine takes this one's place
			go r.poll(ctx)
			return
		}
		stop()
	}()
	for failures := 0; ; {
		ended := ctx.Err() != nil
		q.mu.Lock()
		n := 0
		if !ended && !q.closed && q.servesLocked() {
			n = r.wantedLocked()
		}
		if n <= 0 {
			r.restLocked()
			over = true
			q.unlock()
			return
		}
		q.mu.Unlock()
		got, err := r.eq.Receive(ctx, min(n, mostPolled), r.lease(q.set.Visibility))
		if err != nil && ctx.Err() == nil && !r.ended(err) {
			r.failedAt("receive", onengine.Error(err))
			pause(ctx, min(100*time.Millisecond<<failures, 10*time.Second))
			failures = min(failures+1, 10)
			continue
		}
		failures = 0
		arrivals := r.decode(got)
		q.mu.Lock()
		now := q.core.now()
		for k := range arrivals {
			if i, ok := r.enterLocked(&arrivals[k], now); ok {
				q.putLocked(i, backlogged)
			}
		}
		q.handOnLocked()
		q.unlock()
	}
}

// ended reports whether err is that of a queue that this side has closed. One that
// was closed by somebody else is a failure like others: it may come back.
func (r *remoteQueue[T]) ended(err error) bool {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	return r.q.closed && errors.Is(err, engine.ErrClosed)
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// restLocked ends the poller: what nobody is there for goes back to the engine.
func (r *remoteQueue[T]) restLocked() {
	q := r.q
	q.polling = false
	if q.closed || !q.servesLocked() || !slices.ContainsFunc(q.subs, func(s *pool[T]) bool { return !s.stopping }) {
		for _, l := range []uint8{due, backlogged} {
			for {
				i, ok := q.win.Pop(q.listOf(l))
				if !ok {
					break
				}
				q.win.Restamp(i)
				r.endLocked(i, message.Verdict{Cause: message.Released, Unstarted: true}, q.core.now())
			}
		}
	}
	q.handOnLocked() // somebody may have become free meanwhile
	q.checkDrainedLocked()
	q.checkHomeLocked()
}
