package fanouttest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

// A script is the faults of a queue's handlers or of a topic's publishes.
type script struct {
	tb   TB
	what string

	mu    sync.Mutex // guards the fields below, and the counts of faults
	rules []*Fault
	begun []*Fault // those that a test began to say
}

// A Fault makes something go wrong. Its last method says what; until one of Fail, Panic,
// Exit, TimeOut, Delay, Duplicate and Do is called, nothing happens. It counts runs or
// publishes from that call on.
//
//	orders.Handling("billing").Nth(2).Fail(errDown)
//	orders.Handling("billing").Message("o-17").First(3).TimeOut()
//	orders.Publishing().Nth(1).Fail(fanout.ErrQueueFull)
//
// The test fails if at its end a fault has not happened as often as it says, and if a fault
// has no last method. If several faults apply to one run, they are nested, the first one
// outermost. They are inside the interceptors of the topic and outside of those of the
// subscriber.
type Fault struct {
	script  *script
	message string
	nth     []int
	first   int
	do      fanout.Interceptor
	name    string

	// Guarded by the script's mu.
	seen, struck int
	said         bool // narrowed, or ended by an action: a begun one that is not says nothing
}

// Handling returns a fault for the runs of a queue's handlers, also if the queue is opened
// later. The name of a dead-letter queue is its queue's with "/dead" behind. A run of a
// batch handler counts as one, and [Fault.Message] looks at its first message.
//
// There are no faults around Receive and its siblings. To test code that receives, use Nack,
// let time pass, use fanout.Queue.Pause, and look at what it does with ErrStale.
func (t *Topic[T]) Handling(queue string) *Fault {
	return begin(&Fault{script: t.scriptOf(queue, "Handling("+quote(queue)+")")})
}

// Publishing returns a fault for the topic's publishes. A batch counts as one, and
// [Fault.Message] looks at its first message. It knows only IDs that the publisher gave.
func (t *Topic[T]) Publishing() *Fault {
	return begin(&Fault{script: t.scriptOf("", "Publishing()")})
}

// begin notes a fault that has no action yet, and returns it.
func begin(f *Fault) *Fault {
	s := f.script
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = append(s.begun, f)
	return f
}

// narrow notes that f goes on as g, which has no action yet, and returns g.
func (f *Fault) narrow(g *Fault) *Fault {
	f.say()
	return begin(g)
}

// say notes that f goes on.
func (f *Fault) say() {
	f.script.mu.Lock()
	defer f.script.mu.Unlock()
	f.said = true
}

func (t *Topic[T]) scriptOf(queue, what string) *script {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.scripts[queue]
	if s == nil {
		s = &script{tb: t.kit.tb, what: what}
		t.scripts[queue] = s
	}
	return s
}

// Message makes the fault happen to one message only, by its ID. Then only that message is
// counted.
func (f *Fault) Message(id string) *Fault {
	return f.narrow(&Fault{script: f.script, message: id, nth: f.nth, first: f.first})
}

// Nth makes the fault happen to the n-th run or publish from now on; 1 is the next. It takes
// several numbers.
func (f *Fault) Nth(n ...int) *Fault {
	f.script.tb.Helper()
	for _, k := range n {
		if k < 1 {
			f.refuse(fmt.Sprintf("Nth(%d)", k), "1, the next, or more")
		}
	}
	if len(n) == 0 {
		f.refuse("Nth()", "at least one number")
	}
	return f.narrow(&Fault{script: f.script, message: f.message, nth: slices.Clone(n)})
}

// First makes the fault happen to the next n runs or publishes. Without First and Nth it
// happens to all.
func (f *Fault) First(n int) *Fault {
	f.script.tb.Helper()
	if n < 1 {
		f.refuse(fmt.Sprintf("First(%d)", n), "at least 1")
	}
	return f.narrow(&Fault{script: f.script, message: f.message, first: n})
}

// Fail makes the handler or the publish return err without doing anything. err can be a
// Permanent, RetryAfter, Snooze or Release.
func (f *Fault) Fail(err error) {
	f.script.tb.Helper()
	if err == nil {
		f.refuse("Fail(nil)", "an error")
	}
	f.add(fmt.Sprintf("Fail(%v)", err), func(context.Context, fanout.Info, func(context.Context) error) error { return err })
}

// Panic makes the handler, or the publish, panic with v.
func (f *Fault) Panic(v any) {
	f.add(fmt.Sprintf("Panic(%v)", v), func(context.Context, fanout.Info, func(context.Context) error) error { panic(v) })
}

// Exit ends the goroutine of the handler or the publisher by runtime.Goexit.
func (f *Fault) Exit() {
	f.add("Exit()", func(context.Context, fanout.Info, func(context.Context) error) error {
		runtime.Goexit()
		return nil
	})
}

// TimeOut makes the handler wait, without doing anything, until its visibility timeout
// passes, or the publish until its context ends. In virtual time that takes no time.
func (f *Fault) TimeOut() {
	f.add("TimeOut()", func(ctx context.Context, _ fanout.Info, _ func(context.Context) error) error {
		<-ctx.Done()
		return context.Cause(ctx)
	})
}

// Delay makes the handler or the publish begin d later. It fails if its context ends before.
func (f *Fault) Delay(d time.Duration) {
	f.script.tb.Helper()
	if d < 0 {
		f.refuse(fmt.Sprintf("Delay(%v)", d), "a duration that is not negative")
	}
	f.add(fmt.Sprintf("Delay(%v)", d), func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return next(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// Duplicate makes the handler run twice on the same delivery, one run after the other, as if
// the message had come again because its acknowledgement was lost. If the first run fails
// there is no second. A publish is done twice.
func (f *Fault) Duplicate() {
	f.add("Duplicate()", func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
		if err := next(ctx); err != nil {
			return err
		}
		return next(ctx)
	})
}

// Do puts i around the handler or the publish. It is for faults that the other methods don't
// offer, such as one after the work is done, or one that depends on the message, whose ID
// and body Info has.
func (f *Fault) Do(i fanout.Interceptor) {
	f.script.tb.Helper()
	if i == nil {
		f.refuse("Do(nil)", "an interceptor")
	}
	f.add("Do", i)
}

// refuse ends the test for an argument that can't be.
func (f *Fault) refuse(call, want string) {
	f.script.tb.Helper()
	f.say() // wrongly, which is told now
	f.script.tb.Fatalf("fanouttest: %v.%s: want %s", f, call, want)
}

// add puts a copy of the fault into its script.
func (f *Fault) add(name string, do fanout.Interceptor) {
	rule := &Fault{script: f.script, message: f.message, nth: f.nth, first: f.first, do: do, name: name}
	s := f.script
	s.mu.Lock()
	defer s.mu.Unlock()
	f.said = true
	s.rules = append(s.rules, rule)
}

func (f *Fault) String() string {
	var b strings.Builder
	b.WriteString(f.script.what)
	if f.message != "" {
		fmt.Fprintf(&b, ".Message(%q)", f.message)
	}
	if f.nth != nil {
		fmt.Fprintf(&b, ".Nth(%s)", strings.Trim(fmt.Sprint(f.nth), "[]"))
	} else if f.first > 0 {
		fmt.Fprintf(&b, ".First(%d)", f.first)
	}
	if f.name != "" {
		b.WriteString("." + f.name)
	}
	return b.String()
}

// wanted is how often the fault has to strike.
func (f *Fault) wanted() int {
	if f.nth != nil {
		return len(f.nth)
	}
	return max(f.first, 1)
}

// strikesLocked counts one more handler or publish.
func (f *Fault) strikesLocked(id string) bool {
	if f.message != "" && f.message != id {
		return false
	}
	f.seen++
	if f.nth != nil && !slices.Contains(f.nth, f.seen) || f.nth == nil && f.first > 0 && f.seen > f.first {
		return false
	}
	f.struck++
	return true
}

// strike is the interceptor, of handlers and of publishes, that does what the
// scripts say.
func (t *Topic[T]) strike(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	t.mu.Lock()
	s := t.scripts[info.Queue]
	t.mu.Unlock()
	if s == nil {
		return next(ctx)
	}
	s.mu.Lock()
	var striking []fanout.Interceptor
	for _, f := range s.rules {
		if f.strikesLocked(info.MessageID) {
			striking = append(striking, f.do)
		}
	}
	s.mu.Unlock()
	for _, do := range slices.Backward(striking) {
		inner := next
		next = func(ctx context.Context) error { return do(ctx, info, inner) }
	}
	return next(ctx)
}

// unstruck lists the faults that struck less often than they should, and those
// without an action.
func (t *Topic[T]) unstruck() (lines []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.scripts {
		s.mu.Lock()
		for _, f := range s.begun {
			if !f.said {
				lines = append(lines, fmt.Sprintf("%v: says when, not what: end it with Fail, TimeOut or another action", f))
			}
		}
		for _, f := range s.rules {
			if f.struck < f.wanted() {
				lines = append(lines, fmt.Sprintf("%v: struck %d times, of %d", f, f.struck, f.wanted()))
			}
		}
		s.mu.Unlock()
	}
	slices.Sort(lines)
	return lines
}
