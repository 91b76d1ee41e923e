package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/gofanout/fanout"
)

// Options say how a program is run.
type Options struct {
	// Check looks at what can't be seen from outside, after every step. It may
	// be nil.
	Check func(t *fanout.Topic[int]) error
	// Tell is told of searches that take long. It may be nil.
	Tell func(format string, args ...any)
}

// A Report counts what a program did.
type Report struct {
	Operations int // steps that did something, sleeps included
	Deliveries int
	Retraced   int // steps that were explained only by other choices before
	Tries      int // at explaining those steps that leave a choice
}

// A Disagreement is what Run returns if the topic did what the model does not
// allow. It tells the program as text.
type Disagreement struct {
	Program string
	What    string
}

func (d *Disagreement) Error() string { return d.What + "\nthe program:\n" + d.Program }

// A driver runs one program on a topic and on its model.
type driver struct {
	*draws // of the step
	ctx    context.Context
	check  func(t *fanout.Topic[int]) error
	tell   func(format string, args ...any)
	lines  []line // the program as text
	report Report

	top    *fanout.Topic[int]
	epoch  time.Time
	model  *topic
	past   []*pastStep
	kept   int  // messages in the models of past
	forgot bool // there were more steps
	steps  int
	queues []*fanout.Queue[int]
	shared *fanout.Queue[int]
	// sharing says which queues use the shared dead-letter queue.
	sharing []bool
	subs    []*fanout.Subscriber[int]
	held    []held // deliveries in hand, and the latest others
	nth     map[copyID]int

	bodies int
	ids    map[int]string // of the messages, by their bodies
	byID   map[string]int
	rich   bool // publishes batches only
	keyed  bool // and with ordering keys
	quick  bool // long runs of messages, for handlers that return at once
	hooked bool // backoffs may be random, as hooks tell them
	asleep bool // not looking at the topic's counters, which makes it forget IDs

	last       int // ID of a call or subscriber
	calls      []*call
	handlers   []*handler
	iterations []*iteration
	shutdown   chan error // nil before
	left       []fanout.Left
	why        error
	done       bool

	mu     sync.Mutex // guards the fields below
	order  int        // how many handlers have begun, and how much ranges have got
	begun  []*handler
	yields []yield
	waits  map[string][]time.Duration // by queue and message ID
}

// A held delivery is one that a program can settle.
type held struct {
	ref ref
	id  deliveryID
	fanout.Delivery[int]
}

// heldMost is how many deliveries that own nothing are kept, to settle them late.
const heldMost = 12

// Run runs a program. It must be called in a bubble of testing/synctest, and
// returns when nothing of the topic is left in it. It returns a [*Disagreement]
// if the topic did what the model does not allow.
func Run(ctx context.Context, p Program, o Options) (report Report, err error) {
	d := &driver{
		ctx: ctx, check: o.Check, tell: o.Tell, epoch: time.Now(), draws: newDraws(nil), ids: map[int]string{}, byID: map[string]int{},
		nth: map[copyID]int{}, waits: map[string][]time.Duration{},
	}
	defer func() {
		d.tearDown()
		report = d.report
		switch p := recover().(type) {
		case nil:
		case disagreement:
			err = &Disagreement{Program: d.text(), What: string(p)}
		default:
			err = &Disagreement{Program: d.text(), What: fmt.Sprintf("panic: %v\n%s", p, debug.Stack())}
		}
		d.past, d.model = nil, nil // what a bubble held is collected a cycle late, and this is most of it
	}()
	for k, bytes := range p {
		d.draws = newDraws(bytes)
		if k == 0 {
			d.begin()
			continue
		}
		if len(bytes) == 0 {
			continue // left out
		}
		d.report.Operations++
		d.step()
		if d.model.over() {
			break
		}
	}
	if d.top != nil {
		d.finish()
	}
	return d.report, nil
}

// disagreement is what fail panics with.
type disagreement string

func (d *driver) fail(format string, args ...any) {
	panic(disagreement(fmt.Sprintf(format, args...)))
}

func (d *driver) noError(err error) {
	if err != nil {
		d.fail("unexpected error: %v", err)
	}
}

func (d *driver) say(format string, args ...any) {
	d.lines = append(d.lines, line{d.model.now, format, args})
}

// ms draws a duration of 1 to n milliseconds: few different ones, so that
// deadlines meet.
func (d *driver) ms(n int) time.Duration { return time.Duration(1+d.draw(n)) * time.Millisecond }

// over reports whether the topic has been closed for a while.
func (m *topic) over() bool { return m.phase == ended && m.now > m.limit+5*time.Millisecond }

var silent = fanout.WithLogger(slog.New(slog.DiscardHandler))

// begin makes the topic.
func (d *driver) begin() {
	d.model = &topic{window: time.Hour, seen: &witness{}}
	options := []fanout.TopicOption{silent}
	if d.draw(2) == 1 {
		d.model.ordering = true
		options = append(options, fanout.WithOrdering())
		d.keyed = d.oneIn(2)
	}
	d.rich = d.keyed || d.oneIn(4)
	d.quick = !d.keyed && d.oneIn(3)
	if d.draw(2) == 1 {
		d.model.window, d.model.maxIDs = d.ms(20), 1+d.draw(4)
		options = append(options, fanout.WithDeduplication(d.model.window, d.model.maxIDs))
	}
	if d.draw(2) == 1 {
		d.model.retention = 1 + d.draw(5)
		options = append(options, fanout.WithRetention(d.model.retention))
	}
	hooks := fanout.WithHooks(fanout.Hooks{Settled: d.settled})
	d.hooked = d.oneIn(3) && (!d.quick || d.oneIn(4))
	d.model.hooked = d.hooked
	if d.hooked {
		options = append(options, hooks)
	}
	var err error
	d.top, err = fanout.NewTopic[int](topicName, options...)
	d.noError(err)
	if d.hooked && !d.quick && d.draw(2) == 1 {
		d.share(hooks)
	}
	m := d.model
	d.say("topic: ordering %t, %d IDs for %v, retains %d, shared dead letters %t", m.ordering, m.maxIDs, m.window, m.retention, d.shared != nil)
	for range 1 + d.draw(3) {
		d.open()
	}
}

// share makes the shared dead-letter queue.
func (d *driver) share(hooks fanout.DeadLetterOption) {
	const name = "cemetery"
	set := settings{
		capacity: 1 + d.draw(4), overflow: []fanout.Overflow{fanout.Block, fanout.DropOldest}[d.draw(2)], visibility: d.ms(8),
		kind: standard, maxAttempts: fanout.Unlimited,
	}
	var err error
	d.shared, err = fanout.NewDeadLetterQueue[int](name, silent, hooks, fanout.WithDeadLetterCapacity(set.capacity),
		fanout.WithDeadLetterOverflow(set.overflow), fanout.WithVisibilityTimeout(set.visibility))
	d.noError(err)
	d.model.shared = &queue{ref: sharedRef, topic: name, name: name, set: set, letters: true}
	d.say("shared dead-letter queue %+v", set)
}

// settled is the hook that tells how long a message waits.
func (d *driver) settled(e fanout.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := e.Queue + "\x00" + e.MessageID
	d.waits[id] = append(d.waits[id], e.Wait)
}

// sleep waits in virtual time.
func sleep(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// finish closes the topic and looks at what is left.
func (d *driver) finish() {
	d.say("close")
	d.noError(d.top.Close())
	synctest.Wait()
	if !d.done && d.shutdown == nil {
		d.shutdownEnded(d.top.Shutdown(d.ctx)) // says what was left
	}
	d.erring(nil, func(m *topic) error { m.endAll(nil); return nil })
	if d.shared != nil {
		d.say("close the shared dead-letter queue")
		d.erring(d.shared.Close(), func(m *topic) error { return m.close(sharedRef) })
	}
	for len(d.handlers) > 0 {
		d.finishHandler(d.handlers[0], 0)
	}
	for len(d.iterations) > 0 { // they are in their bodies
		it := d.iterations[0]
		if it.asks {
			d.fail("a range over a closed queue waits still")
		}
		d.goesOn(it, nil, func(*topic) error { return nil }) // to its end
	}
	want := map[string][]fanout.Message[int]{}
	for _, q := range d.model.queues {
		if q.last && len(q.left) > 0 {
			want[q.name] = q.left
		}
	}
	got := d.top.Leftovers()
	if len(got) != len(want) {
		d.fail("leftovers of %d queues, want %d", len(got), len(want))
	}
	for name, ms := range got {
		if diff := differences(want[name], d.leftovers(ms)); diff != "" {
			d.fail("leftovers of %s:\n%s", name, diff)
		}
	}
	synctest.Wait()
	select {
	case <-d.top.Done():
	default:
		d.fail("something of the topic runs still")
	}
	if len(d.calls) > 0 {
		d.fail("%d calls wait still", len(d.calls))
	}
}

// tearDown ends all that a failed program left running.
func (d *driver) tearDown() {
	if d.top == nil {
		return
	}
	_ = d.top.Close()
	if d.shared != nil {
		_ = d.shared.Close()
	}
	for _, c := range d.calls {
		c.cancel()
	}
	synctest.Wait()
	for _, it := range slices.Clone(d.iterations) {
		if !slices.ContainsFunc(d.calls, func(c *call) bool { return c.iteration == it && !c.done.Load() }) {
			d.forget(it)
		}
	}
	d.mu.Lock()
	handlers := append(slices.Clone(d.handlers), d.begun...)
	d.mu.Unlock()
	for _, h := range handlers {
		select {
		case h.command <- func() error { return nil }:
		default: // it has one
		}
	}
	synctest.Wait()
}

// sentinels are the errors that callers look for.
var sentinels = []error{
	errBoom, fanout.ErrStale, fanout.ErrSettled, fanout.ErrClosed, fanout.ErrQueueFull, fanout.ErrBatchTooLarge, fanout.ErrInvalidMessage,
	fanout.ErrUnsupported, context.Canceled, context.DeadlineExceeded, errBusy, fanout.ErrUnknownID, fanout.ErrInvalidOption,
}

func sentinel(err error) error {
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return s
		}
	}
	return err
}
