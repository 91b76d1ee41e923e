package model

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

// An iteration is a range over Deliveries. Its steps are calls that may wait; in
// between its body waits until the program goes on or leaves.
type iteration struct {
	id      int
	ref     ref
	vis     time.Duration
	limit   time.Duration // when its context ends; never if 0
	neat    bool          // it always acknowledges before it goes on
	asks    bool          // it is not in its body
	over    bool          // it has ended or was left
	current deliveryID    // if it is, of what it got last
	ctx     context.Context
	cancel  context.CancelFunc
	next    func() (fanout.Delivery[int], error, bool)
	stop    func()
}

// A yield is a delivery that an iteration got.
type yield struct {
	*iteration
	fanout.Delivery[int]
	order int
}

// iterationsMost is how many ranges there are at once.
const iterationsMost = 5

// iterate begins a range, and its first step.
func (d *driver) iterate() {
	r, q := d.queue()
	if q == nil || len(d.iterations) == iterationsMost {
		return
	}
	d.last++
	it := &iteration{id: d.last, ref: r, vis: d.model.at(r).set.visibility, neat: d.draw(3) > 0}
	var options []fanout.ReceiveOption
	if d.oneIn(4) {
		it.vis, options = d.visibility(r)
	}
	it.ctx, it.cancel, it.limit = d.context(40, 53)
	it.next, it.stop = iter.Pull2(q.Deliveries(it.ctx, options...))
	d.iterations = append(d.iterations, it)
	step := d.asks(it)
	d.say("range %d over %v for %v until %v, %v", it.id, r, it.vis, it.limit, step)
	d.erring(nil, func(m *topic) error {
		m.loops = append(m.loops, loop{id: it.id, ref: r})
		m.ask(step.receive(), nil)
		return nil
	})
}

// goOn lets a range go on, or leave, perhaps several times in a row.
func (d *driver) goOn() {
	var can []*iteration
	for _, it := range d.iterations {
		if !it.asks {
			can = append(can, it)
		}
	}
	if len(can) == 0 {
		return
	}
	it := can[d.draw(len(can))]
	for k := range 1 + d.draw(4) {
		if it.asks || it.over {
			return
		}
		if q := d.at(it.ref); k > 0 && d.oneIn(8) {
			err := q.Pause(d.ctx)
			d.say("pause %v: %v", it.ref, err)
			d.erring(err, func(m *topic) error { return m.pause(it.ref, true) })
		}
		d.goOnOrLeave(it)
	}
}

// goOnOrLeave has a range acknowledge what it has, most often, and go on or leave.
func (d *driver) goOnOrLeave(it *iteration) {
	var err error
	settle := func(*topic) error { return nil }
	k := slices.IndexFunc(d.held, func(h held) bool { return h.id == it.current })
	if k >= 0 && (it.neat || d.draw(2) == 0) {
		h := d.held[k]
		err = h.Ack(d.ctx)
		d.say("range %d acknowledges %v: %v", it.id, h.id, err)
		settle = func(m *topic) error { return m.settle(h.ref, h.id, outcome{cause: fanout.Acked}) }
	}
	if d.oneIn(10) {
		d.leave(it, err, settle)
		return
	}
	if d.oneIn(20) {
		it.cancel()
	}
	d.goesOn(it, err, settle)
}

// goesOn lets a range go on whose body waits.
func (d *driver) goesOn(it *iteration, err error, settle func(m *topic) error) {
	ended := it.ctx.Err()
	step := d.asks(it)
	d.say("range %d goes on, %v, its context has ended: %v", it.id, step, ended)
	d.erring(err, func(m *topic) error {
		err := settle(m)
		m.ask(step.receive(), ended)
		return err
	})
}

// leave leaves a range whose body waits.
func (d *driver) leave(it *iteration, err error, settle func(m *topic) error) {
	d.say("leave range %d", it.id)
	d.forget(it)
	d.erring(err, func(m *topic) error {
		err := settle(m)
		m.endLoop(it.id)
		return err
	})
}

// A step is what a range does without the program: it acknowledges some of what it
// gets, and then waits for the program in its body, or leaves.
type step struct {
	*iteration
	acks   int
	leaves bool
}

func (s step) String() string {
	return fmt.Sprintf("acknowledges %d itself, leaves %t", s.acks, s.leaves)
}

var errLeft = errors.New("the range was left")

// asks begins the next step of a range.
func (d *driver) asks(it *iteration) step {
	s := step{iteration: it, leaves: d.oneIn(5)}
	switch {
	case d.quick && d.oneIn(2):
		s.acks = d.draw(100)
	case d.oneIn(2):
		s.acks = d.draw(5)
	}
	it.asks = true
	c := &call{id: it.id, ref: it.ref, iteration: it, ctx: it.ctx, cancel: it.cancel}
	c.do = func(context.Context) (int, []fanout.Delivery[int], error) { return 0, nil, d.goThrough(s) }
	d.calls = append(d.calls, c)
	go c.run()
	return s
}

// goThrough makes a step.
func (d *driver) goThrough(s step) error {
	for k := range s.acks + 1 {
		del, err := s.get()
		if err != nil {
			return err
		}
		d.yielded(s.iteration, del)
		if k == s.acks {
			break
		}
		if err := del.Ack(d.ctx); err != nil {
			return errors.New("a range can't acknowledge what it got")
		}
	}
	if s.leaves {
		s.stop()
		return errLeft
	}
	return nil
}

// get returns what the range yields next. Its end without an error is ErrClosed.
func (it *iteration) get() (del fanout.Delivery[int], err error) {
	del, err, more := it.next()
	switch {
	case !more:
		return del, fanout.ErrClosed
	case err == nil:
		return del, nil
	case errors.Is(err, fanout.ErrClosed):
		return del, errors.New("a range yields that its queue is closed")
	}
	if _, _, more := it.next(); more {
		return del, errors.New("a range goes on after an error")
	}
	return del, err
}

func (d *driver) yielded(it *iteration, del fanout.Delivery[int]) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.order++
	d.yields = append(d.yields, yield{it, del, d.order})
}

// collectYields takes down what ranges got.
func (d *driver) collectYields(w *witness) (results []result) {
	d.mu.Lock()
	yields := d.yields
	d.yields = nil
	d.mu.Unlock()
	for k, y := range yields {
		more := slices.ContainsFunc(yields[k+1:], func(z yield) bool { return z.iteration == y.iteration })
		h := d.hold(y.ref, y.Delivery, !more || len(yields)-k < 3)
		y.current = h.id
		w.taker[h.id], w.order[h.id] = y.id, y.order
		results = append(results, result{ID: y.id, N: 1, Got: []deliveryView{{h.id, d.message(y.Delivery)}}})
	}
	return results
}

// endsStep takes down what ended a range, if c is a step of one.
func (d *driver) endsStep(c *call) (stepped bool) {
	it := c.iteration
	if it == nil {
		return false
	}
	it.asks = false
	if c.err == nil {
		return true
	}
	d.forget(it)
	return false
}

// forget leaves a range that does not wait, if it is not over, and forgets it.
func (d *driver) forget(it *iteration) {
	it.stop()
	it.cancel()
	it.over = true
	d.iterations = slices.DeleteFunc(d.iterations, func(i *iteration) bool { return i == it })
}

// The model's part.

// A loop is a range over Deliveries.
type loop struct {
	id  int
	ref ref
	// took is when it last got something that may be out of a hand, which gives back
	// room late, and keeps from others for a while what they would get else.
	took   time.Duration
	had    bool // it has got something of that kind
	leaves bool // now
}

func (s step) receive() receive {
	return receive{id: s.id, ref: s.ref, visibility: s.vis, most: 1, limit: s.limit, loop: true, acks: s.acks, leaves: s.leaves}
}

// ask begins to receive. The context may have ended.
func (m *topic) ask(r receive, ended error) {
	switch {
	case m.at(r.ref).closed:
		m.finish(result{ID: r.id, Err: fanout.ErrClosed})
	case ended != nil:
		m.finish(result{ID: r.id, Err: ended})
	default:
		m.receives = append(m.receives, r)
	}
}

// yield has a range get a delivery, and returns how it ends at once, if it does.
func (m *topic) yield(k int, v deliveryView) (end *outcome) {
	r := &m.receives[k]
	m.finish(result{ID: r.id, N: 1, Got: []deliveryView{v}})
	if r.acks == 0 {
		m.loops[m.loop(r.id)].leaves = r.leaves
		m.receives = slices.Delete(m.receives, k, k+1)
		return nil
	}
	r.acks--
	return &outcome{cause: fanout.Acked}
}

// loopTook says that a range got x, perhaps out of a hand.
func (m *topic) loopTook(k int, q *queue, x *message) {
	m.loosen(q, x)
	if x.loose() {
		m.loops[k].took, m.loops[k].had = m.now, true
		m.beginning()
	}
	if m.loops[k].leaves {
		m.finish(result{ID: m.loops[k].id, Err: errLeft})
	}
}

// acknowledges has a range acknowledge what it got.
func (m *topic) acknowledges(k int) {
	r := &m.receives[k]
	id := r.acking
	r.acking = deliveryID{}
	_ = m.settle(r.ref, id, outcome{cause: fanout.Acked})
}

func (m *topic) loop(id int) int {
	return slices.IndexFunc(m.loops, func(l loop) bool { return l.id == id })
}

// endLoop ends a range, if that is what id names.
func (m *topic) endLoop(id int) {
	m.loops = slices.DeleteFunc(m.loops, func(l loop) bool { return l.id == id })
}
