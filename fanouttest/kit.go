package fanouttest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"
)

// A Kit holds the topics of one test, waits for all of them together, and checks what they
// leave. [New] makes it, and it ends with its test.
//
// All methods may be called concurrently, except that Settle, Advance and Next, which can
// end the test, must be called in the test's own goroutine.
type Kit struct {
	tb      TB
	created uint64 // goroutines, before the test's; see leaks.go
	counted bool   // created is known

	mu       sync.Mutex // guards the fields below
	topics   []member
	version  uint64        // counts the changes
	changed  chan struct{} // closed by the next change; nil if nobody waits
	runs     map[*run]struct{}
	sending  int // publishes under way
	ran      bool
	problems []string
	settle   string // what the test did not do to have all settled; "" if it did
	closing  bool   // the kit closes its topics
}

// A member is a topic of whatever type, as its kit sees it.
type member interface {
	// working says what is under way now, unsettled what a test must not leave.
	working() []string
	waiting(s settling) []string
	holding() []string
	unsettled() []string
	letters() []string
	unstruck() []string
	checkBodies()
	close() error
	ended() <-chan struct{}
	// started is how many goroutines the topic is known to have started.
	started() uint64
	title() string
}

// A run is one run of a handler.
type run struct {
	topic, queue, id string
	attempt          int
	began            time.Time
}

func (r *run) String() string {
	return fmt.Sprintf("topic %q, queue %q: the handler of message %s, attempt %d, has been running for %v",
		r.topic, r.queue, r.id, r.attempt, time.Since(r.began))
}

// New returns a kit for the test tb. When the test ends, the kit closes its topics and fails
// the test, with a list, if one of these is left:
//
//   - a message that is not settled, unless its topic was made with [AllowUnsettled];
//   - a dead letter that the test has neither asserted, see [Topic.DeadLettered], nor taken away, unless its topic was
//     made with [AllowDeadLetters];
//   - a handler that doesn't return, or, in real time, a goroutine that a handler started; in virtual time the bubble
//     finds all goroutines itself;
//   - a body that was changed, unless its topic was made with [AllowChanges];
//   - a fault that did not happen.
//
// In a bubble of testing/synctest call New inside the bubble, with the bubble's T.
func New(tb TB) *Kit {
	tb.Helper()
	k := &Kit{tb: tb, runs: make(map[*run]struct{}), settle: "Settle was not called"}
	k.created, k.counted = goroutinesCreated()
	tb.Cleanup(func() { // a closure, not k.finish: the test's line is found only through helpers
		tb.Helper()
		k.finish()
	})
	return k
}

// patience is how long the kit waits for what should come soon, when no context
// says it: in virtual time it can be generous.
func patience() time.Duration {
	if virtual() {
		return 30 * 24 * time.Hour
	}
	return 10 * time.Second
}

// virtual reports whether this is a bubble of testing/synctest, whose time
// begins with the year 2000. No real clock can stand there.
func virtual() bool {
	year := time.Now().UTC().Year()
	return year >= 2000 && year < 2020
}

// change tells those who wait that something has happened.
func (k *Kit) change(note func()) {
	k.mu.Lock()
	if note != nil {
		note()
	}
	k.version++
	changed := k.changed
	k.changed = nil
	k.mu.Unlock()
	if changed != nil {
		close(changed)
	}
}

// watch returns a channel that is closed by the next change after version.
func (k *Kit) watch() (changed <-chan struct{}, version uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.changed == nil {
		k.changed = make(chan struct{})
	}
	return k.changed, k.version
}

func (k *Kit) members() []member {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.topics)
}

func (k *Kit) problem(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problems = append(k.problems, fmt.Sprintf(format, args...))
}

// report fails the test with what was found meanwhile in other goroutines.
func (k *Kit) report() {
	k.tb.Helper()
	k.mu.Lock()
	found := k.problems
	k.problems = nil
	k.mu.Unlock()
	for _, p := range found {
		k.tb.Errorf("%s", p)
	}
}

// await waits until left returns nothing and nothing has changed meanwhile, so
// that what it looked at one after the other holds at one instant. It returns
// what was left when ctx ended. If again is positive it looks again after so
// long, and then less and less often, even if nothing has happened.
func (k *Kit) await(ctx context.Context, again time.Duration, left func() []string) []string {
	var look <-chan time.Time
	for {
		changed, version := k.watch()
		lines := left()
		if _, now := k.watch(); now != version {
			continue
		}
		if len(lines) == 0 {
			return nil
		}
		if again > 0 {
			look = time.After(again)
			again *= 2
		}
		select {
		case <-changed:
		case <-look:
		case <-ctx.Done():
			return lines
		}
	}
}

// handling lists the handlers that run.
func (k *Kit) handling() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var lines []string
	for r := range k.runs {
		lines = append(lines, r.String())
	}
	slices.Sort(lines)
	return lines
}

// quiet waits until nothing goes on: in virtual time until every goroutine
// waits for something, else until no handler runs and none is about to, or most
// has passed.
func (k *Kit) quiet(most time.Duration) []string {
	if virtual() {
		synctest.Wait()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	// A worker that ends because nothing is left for it tells nobody.
	return k.await(ctx, time.Millisecond, func() []string {
		lines := k.handling()
		for _, m := range k.members() {
			lines = append(lines, m.working()...)
		}
		return lines
	})
}

// finish ends the topics and says what the test left behind.
func (k *Kit) finish() {
	k.tb.Helper()
	failed := hasFailed(k.tb)
	k.quiet(patience() / 5) // what it returns is found below
	members := k.members()
	var found []string
	add := func(what string, lines []string) {
		if len(lines) > 0 {
			found = append(found, fmt.Sprintf("fanouttest: %s:\n    %s", what, strings.Join(lines, "\n    ")))
		}
	}
	k.mu.Lock()
	why := k.settle
	k.mu.Unlock()
	if why != "" {
		why = " (" + why + ")"
	}
	for _, m := range members {
		add(fmt.Sprintf("topic %q ends with messages that are not settled%s", m.title(), why), m.unsettled())
		add(fmt.Sprintf("topic %q ends with dead letters that were not expected", m.title()), m.letters())
		add(fmt.Sprintf("topic %q was given faults that never struck", m.title()), m.unstruck())
	}
	k.change(func() { k.closing = true })
	for _, m := range members {
		_ = m.close() // in memory it returns nil
	}
	add("handlers or goroutines that don't end", k.leaks(members))
	for _, m := range members {
		m.checkBodies()
	}
	k.mu.Lock()
	found = append(k.problems, found...)
	k.problems = nil
	k.mu.Unlock()
	for _, f := range found {
		if failed {
			k.tb.Logf("%s", f)
		} else {
			k.tb.Errorf("%s", f)
		}
	}
}
