package enginetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
)

// A fixture is what a check works with: an engine of its own, names that nobody
// else uses, and the words of failures.
type fixture struct {
	testing.TB
	ctx   context.Context
	o     *settings
	check *check
	e     engine.Engine // nil is the memory engine, on the public level only
	caps  engine.Capabilities

	mu    sync.Mutex // guards the fields below
	names int
	ends  map[string]time.Time // when the lease of a message may have ended, by its ID
}

// fail ends the check with the sentence that doesn't hold and with what was seen.
func (x *fixture) fail(format string, args ...any) {
	x.Fatalf("%s\n\tmust hold: %s\n\twas seen:  %s", where(), x.check.rule, fmt.Sprintf(format, args...))
}

// must ends the check if err isn't nil.
func (x *fixture) must(err error, format string, args ...any) {
	if err != nil {
		x.fail("%s: %v", fmt.Sprintf(format, args...), err)
	}
}

// mustBe ends the check if err isn't target.
func (x *fixture) mustBe(err, target error, format string, args ...any) {
	if !errors.Is(err, target) {
		x.fail("%s: got the error %v, not %q", fmt.Sprintf(format, args...), err, target)
	}
}

// equal ends the check if got isn't want.
func equal[V comparable](x *fixture, got, want V, format string, args ...any) {
	if got != want {
		x.fail("%s: got %v, not %v", fmt.Sprintf(format, args...), got, want)
	}
}

// unique makes a name that no other check or run uses, of characters that every
// engine takes.
func (x *fixture) unique(name string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.names++
	return fmt.Sprintf("%s-%d-%08x", name, x.names, rand.Uint32())
}

// long is a lease that doesn't end while a check runs.
func (x *fixture) long() time.Duration { return x.lease(4 * x.o.patience) }

// lease is d, or as much of it as the engine can keep: 0, which is the engine's
// own, if it does not support any.
func (x *fixture) lease(d time.Duration) time.Duration {
	v := x.caps[engine.Visibility]
	switch {
	case !v.Kept:
		return 0
	case v.Most > 0:
		return min(d, v.Most)
	}
	return d
}

// within returns a context that ends after d.
func (x *fixture) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(x.ctx, d)
}

// tooSlow ends the check, to be run again, if d has passed since start: then a
// lease or window may have ended that the check took to be running.
func (x *fixture) tooSlow(start time.Time, d time.Duration) {
	if !x.o.virtual && time.Since(start) >= d {
		x.TB.(*recorder).tooSlow()
	}
}

// mustSettle is must for what settles a lease, or extends it: it can't be blamed
// for a lease that has ended.
func (x *fixture) mustSettle(err error, id, format string, args ...any) {
	if errors.Is(err, engine.ErrStale) && !x.o.virtual {
		x.mu.Lock()
		end, short := x.ends[id]
		x.mu.Unlock()
		if short && time.Now().After(end) {
			x.TB.(*recorder).tooSlow()
		}
	}
	x.must(err, format, args...)
}

// pause lets d pass, for what must not happen meanwhile.
func (x *fixture) pause(d time.Duration) {
	ctx, cancel := x.within(d)
	defer cancel()
	<-ctx.Done()
}

// quiet is how long nothing must come before it counts as not coming. A late
// arrival is missed by that, never an innocent engine blamed.
func (x *fixture) quiet() time.Duration {
	switch {
	case !x.o.virtual:
		return x.o.pace / 2
	case x.caps.Keeps(engine.Visibility, 0):
		return 50 * x.o.pace
	}
	return x.o.pace // the engine's own leases must not end meanwhile
}

// notBefore ends the check if less than d passed since start. It is sound under
// any load: start was read before the engine could begin to count.
func (x *fixture) notBefore(start time.Time, d time.Duration, what string) {
	if passed := time.Since(start); passed < d-x.o.early {
		x.fail("%s came after %v, not after %v", what, passed, d)
	}
}

// topic opens a new topic.
func (x *fixture) topic() engine.Topic {
	return x.openTopic(x.e, engine.TopicSpec{Name: x.unique("topic")})
}

func (x *fixture) openTopic(e engine.Engine, spec engine.TopicSpec) engine.Topic {
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	t, err := e.OpenTopic(ctx, spec)
	x.must(err, "OpenTopic(%+v)", spec)
	if t == nil {
		x.fail("OpenTopic(%+v) returned no topic and no error", spec)
	}
	x.Cleanup(func() { _ = t.Close() })
	return t
}

// open opens a queue whose leases don't end by themselves.
func (x *fixture) open(t engine.Topic, name string) engine.Queue {
	return x.openQueue(t, engine.QueueSpec{Name: name})
}

func (x *fixture) openQueue(t engine.Topic, spec engine.QueueSpec) engine.Queue {
	if spec.Visibility == 0 {
		spec.Visibility = x.long()
	}
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	q, err := t.OpenQueue(ctx, spec)
	x.must(err, "OpenQueue(%+v)", spec)
	if q == nil {
		x.fail("OpenQueue(%+v) returned no queue and no error", spec)
	}
	x.Cleanup(func() { _ = q.Close() })
	return q
}

// message makes a message with a body of its own.
func message(id string) engine.Message {
	return engine.Message{
		ID: id, Body: []byte(`{"id":"` + id + `"}`), ContentType: "application/json",
		PublishedAt: time.Now().Add(-time.Minute).Truncate(time.Millisecond),
	}
}

func messages(ids ...string) (ms []engine.Message) {
	for _, id := range ids {
		ms = append(ms, message(id))
	}
	return ms
}

// publish publishes messages and expects no error.
func (x *fixture) publish(t engine.Topic, ms ...engine.Message) {
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	x.must(t.Publish(ctx, ms), "Publish of %d messages", len(ms))
}

// receive takes one message, which must come.
func (x *fixture) receive(q engine.Queue, lease time.Duration) engine.Received {
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	got, err := q.Receive(ctx, 1, lease)
	x.must(err, "Receive, waiting for a message")
	if len(got) != 1 {
		x.fail("Receive of at most 1 returned %d messages and no error", len(got))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ends == nil {
		x.ends = map[string]time.Time{}
	}
	delete(x.ends, got[0].ID)
	if lease > 0 && lease < x.long() {
		// It began before Receive returned. How long before isn't known, so that
		// nothing is judged in its second half.
		x.ends[got[0].ID] = time.Now().Add(lease / 2)
	}
	return got[0]
}

// receiveID takes one message, which must be this one.
func (x *fixture) receiveID(q engine.Queue, lease time.Duration, id string) engine.Received {
	r := x.receive(q, lease)
	equal(x, r.ID, id, "the message received")
	return r
}

// collect takes n messages, in as many receives as it needs, and none twice.
func (x *fixture) collect(q engine.Queue, n int) map[string]engine.Received {
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	all := map[string]engine.Received{}
	for len(all) < n {
		got, err := q.Receive(ctx, 10, x.long())
		x.must(err, "Receive, after %d of %d messages", len(all), n)
		if len(got) == 0 || len(got) > 10 {
			x.fail("Receive of at most 10 returned %d messages and no error", len(got))
		}
		for _, r := range got {
			if old, twice := all[r.ID]; twice {
				x.fail("message %q came twice, with Deliveries %d and %d, while its first lease runs", r.ID, old.Deliveries, r.Deliveries)
			}
			all[r.ID] = r
		}
	}
	return all
}

// mustHold ends the check if all isn't these messages.
func (x *fixture) mustHold(all map[string]engine.Received, ids ...string) {
	got := []string{}
	for id := range all {
		got = append(got, id)
	}
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		x.fail("got the messages %q, not %q", got, ids)
	}
}

// none ends the check if a message comes within d.
func (x *fixture) none(q engine.Queue, d time.Duration, format string, args ...any) {
	ctx, cancel := x.within(d)
	defer cancel()
	got, err := q.Receive(ctx, 1, x.long())
	if len(got) > 0 {
		x.fail("%s: message %q came, with Deliveries %d", fmt.Sprintf(format, args...), got[0].ID, got[0].Deliveries)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		x.fail("%s: Receive with nothing to receive returned %v, not its context's error", fmt.Sprintf(format, args...), err)
	}
}

func (x *fixture) ack(q engine.Queue, r engine.Received) {
	x.mustSettle(q.Ack(x.ctx, r.Receipt), r.ID, "Ack of message %q", r.ID)
}

func (x *fixture) giveBack(q engine.Queue, r engine.Received, wait time.Duration, state string) {
	var s []byte
	if state != "" {
		s = []byte(state)
	}
	x.mustSettle(q.Return(x.ctx, r.Receipt, wait, s), r.ID, "Return of message %q with wait %v", r.ID, wait)
}

// bury dead-letters a message with this state, which must be there then.
func (x *fixture) bury(q engine.Queue, r engine.Received, state string) {
	m := r.Message
	m.State = []byte(state)
	x.mustSettle(q.DeadLetter(x.ctx, r.Receipt, m), r.ID, "DeadLetter of message %q", r.ID)
}

// dead returns the dead-letter queue.
func (x *fixture) dead(q engine.Queue) engine.Queue {
	d := q.DeadLetters()
	if d == nil {
		x.fail("DeadLetters of a queue returned nil")
	}
	return d
}

// A waiter is a call that is under way.
type waiter struct {
	f    func() error
	done chan error
}

// begin starts a call that may wait. What it returns is read from done.
func (x *fixture) begin(f func() error) *waiter {
	w := &waiter{f: f, done: make(chan error, 1)}
	var wg sync.WaitGroup
	wg.Go(w.call)
	x.Cleanup(wg.Wait)
	return w
}

// call calls f. Started by begin; ends when f returns, which the end of the check's
// context makes it do; joined by the check's cleanup.
func (w *waiter) call() { w.done <- w.f() }

// end waits for the call's result.
func (x *fixture) end(w *waiter, what string) error {
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		x.fail("%s did not return within %v", what, x.o.patience)
		return nil
	}
}
