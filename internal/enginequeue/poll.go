package enginequeue

import (
	"context"
	"slices"
	"time"

	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/store"
)

// WantLocked sees to it that the poller runs.
func (r *Queue[T]) WantLocked() {
	if r.q.Polling || r.q.Store.Closed {
		return
	}
	var ctx context.Context
	r.q.Polling = true
	ctx, r.stopPoll = context.WithCancel(context.Background())
	go r.poll(ctx)
}

// stopPollLocked ends the poller's wait if no worker is there to serve.
func (r *Queue[T]) stopPollLocked() {
	if r.q.Polling && (!r.q.ServesLocked() || r.wantedLocked() <= 0) {
		r.stopPoll()
	}
}

// wantedLocked is how many messages the queue's workers could begin with now.
func (r *Queue[T]) wantedLocked() (n int) {
	q := r.q
	for _, s := range q.Group.Subs {
		switch {
		case s.Stopping || s.LimitedLocked() > 0:
		case s.Set.Every > 0:
			n++
		default:
			n += min((s.Set.Concurrency-int(s.Running))*s.Most, onengine.MostPolled)
		}
	}
	return n - q.Store.Ready()
}

// poll receives for the queue's workers. Started by WantLocked; ends when no
// worker is free, or nobody may be served; the queue's close waits for it.
func (r *Queue[T]) poll(ctx context.Context) {
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
		q.Mu.Lock()
		n := 0
		if !ended && q.ServesLocked() {
			n = r.wantedLocked()
		}
		if n <= 0 {
			r.restLocked()
			over = true
			q.Unlock()
			return
		}
		q.Mu.Unlock()
		got, err := r.eq.Receive(ctx, min(n, onengine.MostPolled), r.lease(q.Store.Set.Visibility))
		if err != nil && ctx.Err() == nil { // else the queue has no use for it: a close ends ctx first
			r.failedAt("receive", onengine.Error(err))
			pause(ctx, min(100*time.Millisecond<<failures, 10*time.Second))
			failures = min(failures+1, 10)
			continue
		}
		failures = 0
		arrivals := r.decode(got)
		q.Mu.Lock()
		now := q.Core.Now()
		for k := range arrivals {
			if i, ok := r.enterLocked(&arrivals[k], now); ok {
				q.Store.Put(i, store.Backlogged)
			}
		}
		q.HandOnLocked()
		q.Unlock()
	}
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
func (r *Queue[T]) restLocked() {
	q := r.q
	q.Polling = false
	if !q.ServesLocked() || !slices.ContainsFunc(q.Group.Subs, func(s *consumers.Pool[T]) bool { return !s.Stopping }) {
		for i, ok := q.Store.PopReady(); ok; i, ok = q.Store.PopReady() {
			r.EndLocked(i, message.Verdict{Cause: message.Released, Unstarted: true}, q.Core.Now())
		}
	}
	q.HandOnLocked() // somebody may have become free meanwhile
	q.CheckEndedLocked()
}
