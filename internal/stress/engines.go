package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// An engineWorld is a topic on an engine that one process after the other uses.
// Some of them crash, and calls to the engine fail or lose their responses. In a
// calm one neither happens, so that nothing may come twice.
type engineWorld struct {
	seed  uint64
	sum   *summary
	store *fakeengine.Engine
	calm  bool // no process crashes and no call fails
	next  atomic.Int64
	draws atomic.Uint64

	mu       sync.Mutex // guards the fields below
	fates    [messagesOfAnEngine]messageFate
	problems []violation
	cut      bool // a process ended with messages in flight
}

const (
	queuesOfAnEngine    = 3
	messagesOfAnEngine  = 3000
	processesOfAnEngine = 4
)

// A messageFate is what is known of a message on an engine.
type messageFate struct {
	state  uint8 // underWay if its publish failed in a way that leaves it open
	queues [queuesOfAnEngine]queueFate
}

// A queueFate is what is known of it in one queue.
type queueFate struct {
	got     int  // deliveries
	nils    int  // handlers that returned nil, or acknowledged
	maybe   int  // acknowledgements that failed: the engine may have them all the same
	acked   bool // Ack returned nil
	letters int  // in the dead-letter queue at the end
}

// playEngine plays a round on an engine, proves it, and returns what was wrong.
func playEngine(c config, n int, sum *summary) []violation {
	w := newEngineWorld(mix(c.seed, uint64(n), forEngine), sum)
	if err := w.play(); err != nil {
		w.complain("clean end", "on an engine: %v", err)
	}
	return w.prove()
}

func newEngineWorld(seed uint64, sum *summary) *engineWorld {
	r := stream(seed)
	return &engineWorld{
		seed: seed, sum: sum, calm: r.IntN(3) == 0,
		store: fakeengine.New(fakeengine.Config{MaxReceive: r.IntN(11), FullFails: r.IntN(2) == 0}),
	}
}

func (w *engineWorld) complain(promise, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, violation{promise: promise, what: fmt.Sprintf(format, args...)})
}

// visibility is long where nothing may time out, on a busy machine either.
func (w *engineWorld) visibility() time.Duration {
	if w.calm {
		return 30 * time.Second
	}
	return 50 * time.Millisecond
}

// calmLocked reports whether each message must end once: nothing failed, and no process
// ended while it had messages in flight. Those come again after their visibility
// timeout, whatever their handlers returned.
func (w *engineWorld) calmLocked() bool { return w.calm && !w.cut }

func (w *engineWorld) options() []fanout.QueueOption {
	return []fanout.QueueOption{
		fanout.WithCapacity(100), fanout.WithVisibilityTimeout(w.visibility()), fanout.WithMaxAttempts(3),
		fanout.WithBackoff(fanout.Exponential(time.Millisecond, 8*time.Millisecond)), fanout.WithDeadLetterCapacity(fanout.Unlimited),
	}
}

// play lets the processes come and go, until all messages are where they end.
func (w *engineWorld) play() error {
	for n := range processesOfAnEngine {
		p, err := w.start(n)
		if err != nil {
			return err
		}
		if err := p.live(n == processesOfAnEngine-1); err != nil {
			return err
		}
	}
	return w.lookAtLetters()
}

// An engineProcess is one process that uses the topic.
type engineProcess struct {
	w    *engineWorld
	n    int
	r    *rand.Rand
	e    *fakeengine.Engine
	top  *fanout.Topic[ticket]
	stop chan struct{}
	home sync.WaitGroup
}

func (w *engineWorld) start(n int) (*engineProcess, error) {
	p := &engineProcess{w: w, n: n, r: stream(w.seed, forEngine, uint64(n)), e: w.store.Sibling(), stop: make(chan struct{})}
	var err error
	if p.top, err = w.open(p.e); err != nil {
		return nil, err
	}
	for k := range queuesOfAnEngine {
		h := &engineHandler{w: w, k: k}
		o := []fanout.SubscribeOption{fanout.WithConcurrency(1 + p.r.IntN(4)), fanout.QueueOptions(w.options()...)}
		if _, err = p.top.Subscribe(context.Background(), engineQueue(k), h.handle, o...); err != nil {
			return nil, err
		}
	}
	for k := range 4 {
		b := &enginePublisher{p: p, r: stream(w.seed, forEngine, uint64(n), forPublisher, uint64(k))}
		p.home.Go(b.run)
	}
	if !w.calm {
		p.home.Go(p.fail)
	}
	return p, nil
}

func engineQueue(k int) string { return fmt.Sprintf("q%d", k) }

func (w *engineWorld) open(e *fakeengine.Engine) (*fanout.Topic[ticket], error) {
	return fanout.NewTopic[ticket]("shared", fanout.WithEngine(e), fanout.WithLogger(slog.New(slog.DiscardHandler)))
}

// live is what happens to a process: it ends in order, or it crashes. The last one
// goes on until nothing is left to do.
func (p *engineProcess) live(last bool) error {
	w := p.w
	if !last {
		wait(micros(p.r, 200_000), nil)
		if !w.calm && p.r.IntN(3) > 0 {
			p.e.Crash()
			close(p.stop)
			p.home.Wait()
			return p.top.Close()
		}
		close(p.stop)
		p.home.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), micros(p.r, 50_000))
		defer cancel()
		var left *fanout.ShutdownError
		if errors.As(p.top.Shutdown(ctx), &left) && slices.ContainsFunc(left.Queues, inHands) {
			w.mu.Lock()
			w.cut = true
			w.mu.Unlock()
		}
		return nil // the next one has what it left
	}
	for until := time.Now().Add(5 * time.Second); w.next.Load() < messagesOfAnEngine && time.Now().Before(until); {
		wait(5*time.Millisecond, nil)
	}
	close(p.stop)
	p.home.Wait()
	p.e.Heal()
	// What another process had in flight at its end comes after its visibility timeout.
	ctx, cancel := context.WithTimeout(context.Background(), w.visibility()+time.Minute)
	defer cancel()
	return p.top.Shutdown(ctx)
}

// inHands reports whether a process ended before handlers had settled what they had.
func inHands(l fanout.Left) bool { return l.InFlight > 0 || l.Running > 0 }

// errFault is how the engine fails.
var errFault = errors.New("the engine failed")

// fail makes calls of the process to its engine fail. Started by start; ends with
// stop; joined by live.
func (p *engineProcess) fail() {
	r := stream(p.w.seed, forEngine, uint64(p.n), forHandler)
	ops := []fakeengine.Op{
		fakeengine.Publish, fakeengine.Receive, fakeengine.Ack, fakeengine.Return, fakeengine.Extend, fakeengine.DeadLetter,
	}
	for !ended(p.stop) {
		wait(micros(r, 20_000), p.stop)
		f := fakeengine.Fault{Op: ops[r.IntN(len(ops))], Nth: 1 + r.IntN(20), Err: errFault, Lost: r.IntN(2) == 0}
		if r.IntN(4) == 0 {
			f.Err, f.Lost, f.Latency = nil, false, micros(r, 5000)
		}
		f.Halfway = f.Op == fakeengine.DeadLetter && r.IntN(2) == 0
		p.e.Inject(f)
	}
}

// An enginePublisher publishes to the topic.
type enginePublisher struct {
	p *engineProcess
	r *rand.Rand
}

// run publishes until the process ends or there is no more to publish. Started by
// start; joined by live.
func (b *enginePublisher) run() {
	w := b.p.w
	for !ended(b.p.stop) {
		m := ticket(w.next.Add(1) - 1)
		if m >= messagesOfAnEngine {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond+micros(b.r, 200_000))
		var err error
		if b.r.IntN(4) == 0 {
			err = b.p.top.TryPublish(ctx, m)
		} else {
			err = b.p.top.Publish(ctx, m)
		}
		cancel()
		state := underWay
		switch {
		case err == nil:
			state = accepted
		case errors.Is(err, fanout.ErrQueueFull):
			state = refused
		}
		w.sum.publish(err, 1)
		w.mu.Lock()
		w.fates[m].state = state
		w.mu.Unlock()
		if b.r.IntN(4) == 0 {
			wait(micros(b.r, 1000), b.p.stop)
		}
	}
}

// An engineHandler is the handler of one queue, in whichever process.
type engineHandler struct {
	w *engineWorld
	k int
}

func (h *engineHandler) note(m ticket, what func(f *queueFate)) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	what(&h.w.fates[m].queues[h.k])
}

func (h *engineHandler) handle(ctx context.Context, d fanout.Delivery[ticket]) error {
	w, m := h.w, d.Body
	w.sum.deliveries.Add(1)
	h.note(m, func(f *queueFate) {
		f.got++
		if f.acked && w.calmLocked() {
			w.problems = append(w.problems, violation{
				promise: "no delivery after the acknowledgement", what: fmt.Sprintf("on an engine: queue %s, message %d", engineQueue(h.k), m),
			})
		}
	})
	dice := dice(mix(w.seed, forHandler, uint64(h.k), uint64(m), w.draws.Add(1)))
	switch n := dice.roll(100); {
	case n < 60:
	case n < 70:
		return errBusy
	case n < 74:
		panic(errBusy)
	case n < 78:
		return fanout.Permanent(errFatal)
	case n < 82:
		return fanout.Snooze(time.Duration(1+dice.roll(4)) * time.Millisecond)
	case n < 84 && !w.calm:
		wait(w.visibility()*5/4, nil) // too late, unless nobody else has it by then
	case n < 92:
		if err := d.Ack(ctx); err != nil {
			h.note(m, func(f *queueFate) { f.maybe++ }) // its response may be what was lost
			return errBusy
		}
		h.note(m, func(f *queueFate) { f.nils++; f.acked = true })
		return nil
	}
	h.note(m, func(f *queueFate) { f.nils++ })
	return nil
}

// lookAtLetters looks, as one more process, at what is in the dead-letter queues.
func (w *engineWorld) lookAtLetters() error {
	top, err := w.open(w.store.Sibling())
	if err != nil {
		return err
	}
	for k := range queuesOfAnEngine {
		q, err := top.OpenQueue(context.Background(), engineQueue(k), w.options()...)
		if err != nil {
			return err
		}
		ls, err := q.DeadLetters().Peek(context.Background(), fanout.Unlimited)
		if err != nil {
			return err
		}
		w.mu.Lock()
		for _, l := range ls {
			w.fates[l.Body].queues[k].letters++
		}
		w.mu.Unlock()
	}
	return top.Close()
}

// prove proves that each message whose publish was confirmed was handled or is
// dead in each queue, that none is anywhere whose publish was refused, and of a calm
// world that each ended once.
func (w *engineWorld) prove() []violation {
	w.mu.Lock()
	defer w.mu.Unlock()
	broken := func(promise string, m, k int, f *messageFate, why string) {
		w.problems = append(w.problems, violation{promise: promise, what: fmt.Sprintf(
			"on an engine: message %d, queue %s: %s: calm %v, published %d, %+v", m, engineQueue(k), why, w.calm, f.state, f.queues[k])})
	}
	for m := range w.fates {
		f := &w.fates[m]
		for k := range f.queues {
			switch q := f.queues[k]; {
			case f.state == accepted && q.nils == 0 && q.maybe == 0 && q.letters == 0:
				broken("nothing lost", m, k, f, "it ended nowhere")
			case f.state == refused && (q.got > 0 || q.letters > 0):
				broken("all or none", m, k, f, "its publish was refused")
			case w.calmLocked() && q.nils+q.letters > 1:
				broken("one end", m, k, f, "it ended more than once")
			}
		}
	}
	return w.problems
}
