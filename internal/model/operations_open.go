package model

import (
	"fmt"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

// open opens a queue, perhaps with a subscriber.
func (d *driver) open() {
	name := fmt.Sprintf("q%d", d.draw(5))
	// Letters tell by the name where they come from, and a queue that is opened
	// again gets those of the one before.
	was := slices.ContainsFunc(d.model.queues, func(q *queue) bool { return q.name == name && q.closed })
	if d.shared != nil || was {
		name = fmt.Sprintf("q%d", 5+len(d.queues))
	}
	if len(d.queues) >= 7 {
		return
	}
	set := settings{
		capacity: 1 + d.draw(6), overflow: fanout.Overflow(1 + d.draw(4)), visibility: d.ms(6), backoff: d.ms(4),
		maxAttempts:  []int{1, 2, 3, fanout.Unlimited}[d.draw(4)],
		deadCapacity: 1 + d.draw(3), deadOverflow: []fanout.Overflow{fanout.Block, fanout.DropOldest}[d.draw(2)],
	}
	if d.quick { // room for long runs, and for what dies of them
		set.capacity, set.deadCapacity = 60+d.draw(256), 1000
	}
	if set.kind = backoffKind(d.draw(3)); set.kind == exponential && !d.hooked {
		set.kind = constant
	}
	options := []fanout.QueueOption{
		fanout.WithCapacity(set.capacity), fanout.WithOverflow(set.overflow), fanout.WithVisibilityTimeout(set.visibility),
		fanout.WithBackoff(set.waiting()), fanout.WithMaxAttempts(set.maxAttempts),
	}
	if d.shared != nil && d.draw(4) > 0 {
		set.shared = true
		options = append(options, fanout.WithDeadLetterQueue(d.shared))
	} else {
		options = append(options, fanout.WithDeadLetterCapacity(set.deadCapacity), fanout.WithDeadLetterOverflow(set.deadOverflow))
	}
	rare := 4
	if d.quick {
		rare = 12
	}
	if d.oneIn(rare) {
		set.delay = d.ms(3)
		options = append(options, fanout.WithDelay(set.delay))
	}
	if d.oneIn(rare) {
		set.ttl = d.ms(10)
		options = append(options, fanout.WithTimeToLive(set.ttl))
	}
	if d.oneIn(rare) {
		set.modulus, set.rest = 2+d.draw(2), d.draw(2)
		options = append(options, d.filter(set))
	}
	if d.oneIn(3) {
		set.replay = 1 + d.draw(4)
		options = append(options, fanout.WithReplay(set.replay))
	}
	q, err := d.top.OpenQueue(d.ctx, name, options...)
	d.say("open %s as %d %+v: %v", name, len(d.queues), set, err)
	if err == nil {
		d.queues = append(d.queues, q)
		d.sharing = append(d.sharing, set.shared)
	}
	d.erring(err, func(m *topic) error { return m.open(name, set) })
	if err == nil && d.oneIn(3) {
		d.subscribeTo(ref{queue: len(d.queues) - 1}, q)
	}
}

// waiting returns the backoff that the settings mean.
func (s settings) waiting() fanout.Backoff {
	switch s.kind {
	case linear:
		return fanout.BackoffFunc(func(attempt int) time.Duration { return time.Duration(attempt) * s.backoff })
	case exponential:
		return fanout.Exponential(s.backoff, 4*s.backoff)
	}
	return fanout.Constant(s.backoff)
}

// filter returns the filter that the settings mean, in one of its forms.
func (d *driver) filter(s settings) fanout.QueueOption {
	if d.draw(2) == 1 {
		return fanout.WithMessageFilter(func(m fanout.Message[int]) bool { return s.accepts(m.Body) })
	}
	return fanout.WithFilter(s.accepts)
}
