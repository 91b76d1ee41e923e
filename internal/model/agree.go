package model

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/gofanout/fanout"
)

// lookEach says at which steps all is looked at, those at which nothing asks
// for it: looking changes what the topic does by itself, a little.
const lookEach = 8

// agree has the model do what the topic did, with those choices that explain
// what is seen, and fails if there are none. What costs little is looked at
// always, all of it from time to time, and when the rest leaves a choice.
func (d *driver) agree(err error, n int, got []held, do operation) {
	synctest.Wait()
	if d.check != nil {
		d.noError(d.check(d.top))
	}
	// Who looks at a queue tells of the room that its consumers have made, so that publishes
	// that wait are let in: before it is taken down which have returned.
	for _, q := range d.top.Queues() {
		q.Stats()
	}
	synctest.Wait()
	w := &witness{taker: map[deliveryID]int{}, order: map[deliveryID]int{}, before: map[deliveryID]deliveryID{}, finished: map[int]bool{}}
	for _, h := range got {
		w.taker[h.id] = caller
	}
	handlers := d.collectHandlers(w)
	finished := d.collectCalls(w)
	w.waits = d.collectWaits()
	d.steps++
	s := &pastStep{before: d.model, do: do, witness: w, asleep: d.asleep}
	look := func(full bool) {
		s.seen = d.view(s, full)
		s.seen.Err, s.seen.N, s.seen.Finished, s.seen.Runs = sentinel(err), n, finished, handlers
		for _, h := range got {
			s.seen.Got = append(s.seen.Got, d.message(h.Delivery))
		}
	}
	if d.steps%lookEach != 0 && !d.model.doubts(time.Since(d.epoch)) {
		look(false)
		if m, why := s.explain(d.model).try(nil); why == "" && len(m.choices) == 0 {
			d.remember(s, m)
			d.model.forgetEndings(d.held)
			return
		}
	}
	d.trimHeld()
	look(true)
	d.explained(s)
	d.model.forgetEndings(d.held)
}

// caller takes what an operation returns itself.
const caller = -1

// erring is agree for operations that only return an error.
func (d *driver) erring(err error, do func(m *topic) error) {
	d.agree(err, 0, nil, func(m *topic) (int, []messageView, error) { return 0, nil, do(m) })
}

// collectHandlers takes down which handlers have begun and which have ended.
func (d *driver) collectHandlers(w *witness) (views []runView) {
	d.mu.Lock()
	begun := d.begun
	d.begun = nil
	d.mu.Unlock()
	if len(begun) > 0 {
		w.batches = map[deliveryID][]deliveryID{}
	}
	for k, h := range begun {
		var ids []deliveryID
		for _, del := range h.ds {
			id := d.hold(h.ref, del, !h.home.Load() || len(begun)-k < 3).id
			ids = append(ids, id)
			w.taker[id], w.order[id] = h.sub, h.order
		}
		h.id = ids[0]
		w.batches[h.id] = ids[1:]
	}
	slices.SortFunc(begun, func(a, b *handler) int { return compareIDs(a.id, b.id) })
	d.handlers = append(d.handlers, begun...)
	d.handlers = slices.DeleteFunc(d.handlers, func(h *handler) bool { return h.home.Load() })
	for _, h := range d.handlers {
		v := runView{id: h.id, Sub: h.sub, Got: len(h.ds)}
		if h.looks {
			v.Why = h.why()
		}
		views = append(views, v)
	}
	sortRuns(views)
	return views
}

func sortRuns(vs []runView) {
	slices.SortFunc(vs, func(a, b runView) int { return compareIDs(a.id, b.id) })
}

func compareIDs(a, b deliveryID) int {
	return cmp.Or(cmp.Compare(a.root, b.root), cmp.Compare(a.body, b.body), cmp.Compare(a.nth, b.nth))
}

// collectCalls takes down which calls have returned, and what ranges got.
func (d *driver) collectCalls(w *witness) (results []result) {
	results = d.collectYields(w)
	var waiting []*call
	for _, c := range d.calls {
		if !c.done.Load() {
			waiting = append(waiting, c)
			continue
		}
		if d.endsStep(c) {
			continue
		}
		c.cancel()
		w.finished[c.id] = true
		r := result{ID: c.id, N: c.n, Err: sentinel(c.err)}
		for k, del := range c.got {
			h := d.hold(c.ref, del, true)
			w.taker[h.id] = c.id
			if k > 0 {
				w.before[h.id] = r.Got[k-1].id
			}
			r.Got = append(r.Got, deliveryView{h.id, d.message(del)})
		}
		results = append(results, r)
	}
	d.calls = waiting
	slices.SortStableFunc(results, func(a, b result) int { return cmp.Compare(a.ID, b.ID) })
	return results
}

// collectWaits takes down how long messages wait that were given back.
func (d *driver) collectWaits() map[waitID][]time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waits) == 0 {
		return nil
	}
	waits := map[waitID][]time.Duration{}
	for name, ws := range d.waits {
		name, id, _ := strings.Cut(name, "\x00")
		for k, q := range d.queues {
			letters := name == q.Name()+"/dead" || d.shared != nil && name == d.shared.Name()
			if letters || name == q.Name() {
				waits[waitID{copyID{k, d.byID[id]}, letters}] = ws
			}
		}
	}
	clear(d.waits)
	return waits
}

// hold gives a delivery that was just made its number, and keeps it.
func (d *driver) hold(r ref, del fanout.Delivery[int], keep bool) held {
	d.report.Deliveries++
	d.know(del.Body, del.ID())
	c := copyID{r.queue, del.Body}
	if r == sharedRef { // its last attempt tells where it comes from
		for _, a := range del.History() {
			if a.Queue != d.shared.Name() {
				c.root = slices.IndexFunc(d.queues, func(q *fanout.Queue[int]) bool { return q.Name() == a.Queue })
			}
		}
	}
	d.nth[c]++
	h := held{r, deliveryID{c, d.nth[c]}, del}
	if keep {
		d.held = append(d.held, h)
	}
	return h
}

// trimHeld lets go of deliveries that own nothing, but for the latest.
func (d *driver) trimHeld() {
	lost := 0
	for _, h := range d.held {
		if h.Deadline().IsZero() {
			lost++
		}
	}
	d.held = slices.DeleteFunc(d.held, func(h held) bool {
		if lost <= heldMost || !h.Deadline().IsZero() {
			return false
		}
		lost--
		return true
	})
}

// know checks that a message has one ID wherever it is met.
func (d *driver) know(body int, id string) {
	if d.ids[body] == "" {
		d.ids[body] = id
		d.byID[id] = body
	}
	if d.ids[body] != id {
		d.fail("message %d has the ID %q, and %q before", body, id, d.ids[body])
	}
}

// view looks at what can be seen of the topic: at all of it, or at what costs
// little and changes nothing. What tells what has happened goes to the witness.
func (d *driver) view(s *pastStep, full bool) view {
	if d.shutdown != nil && !d.done {
		select {
		case err := <-d.shutdown:
			d.shutdownEnded(err)
		default:
		}
	}
	v := view{full: full, Now: time.Since(d.epoch), Done: d.done, Left: d.left, Why: d.why}
	if !d.asleep {
		v.Topic = d.top.Stats()
	}
	for _, q := range d.queues {
		v.Queues = append(v.Queues, d.queueView(q, full))
	}
	if d.shared != nil {
		v.Queues = append(v.Queues, d.queueView(d.shared, full))
	}
	s.witness.queues = v.Queues
	if full {
		s.deliveries, s.witness.deadlines = slices.Clone(d.held), map[deliveryID]time.Duration{}
		for _, h := range d.held {
			until := time.Duration(-1)
			if at := h.Deadline(); !at.IsZero() {
				until = at.Sub(d.epoch)
			}
			v.Deadlines = append(v.Deadlines, until)
			s.witness.deadlines[h.id] = until
		}
		s.witness.letters = map[copyID]bool{}
		for k := range d.queues {
			for _, dead := range v.Queues[k].Dead {
				for _, x := range dead.Peek {
					s.witness.letters[copyID{k, x.Body}] = true
				}
			}
		}
	}
	for _, s := range d.subs {
		select {
		case <-s.Done():
			v.Stopped = append(v.Stopped, true)
		default:
			v.Stopped = append(v.Stopped, false)
		}
	}
	return v
}

// shutdownEnded takes down what Shutdown returned.
func (d *driver) shutdownEnded(err error) {
	d.done = true
	var left *fanout.ShutdownError
	if errors.As(err, &left) {
		d.left, d.why = left.Queues, sentinel(left.Err)
	} else {
		d.noError(err)
	}
}

func (d *driver) queueView(q *fanout.Queue[int], full bool) queueView {
	v := queueView{Stats: q.Stats()}
	v.Stats.WorkersStarted = 0 // as many as the library likes
	s := v.Stats
	depth := s.Unsettled()
	if full {
		all, err := q.Depth(d.ctx)
		d.noError(err)
		depth = all.Unsettled()
	}
	if depth != s.Unsettled() || depth > s.Capacity {
		d.fail("queue %s: depth %d, %d unsettled, capacity %d", q.Name(), depth, s.Unsettled(), s.Capacity)
	}
	if full && depth > 0 {
		ds, err := q.Peek(d.ctx, fanout.Unlimited)
		d.noError(err)
		for _, del := range ds {
			v.Peek = append(v.Peek, d.message(del))
		}
	}
	if full {
		v.Left = d.leftovers(q.Leftovers())
	}
	k := slices.Index(d.queues, q)
	if k < 0 || d.sharing[k] {
		return v
	}
	// Asking for a dead-letter queue makes it.
	if k < len(d.model.deads) && d.model.deads[k] != nil || s.DeadLettered > 0 {
		v.Dead = []queueView{d.queueView(q.DeadLetters(), full)}
	}
	return v
}

// leftovers returns messages without the IDs that the topic gave them.
func (d *driver) leftovers(ms []fanout.Message[int]) []fanout.Message[int] {
	for k := range ms {
		d.know(ms[k].Body, ms[k].ID)
		if !strings.HasPrefix(ms[k].ID, "own-") {
			ms[k].ID = ""
		}
	}
	return ms
}

func (d *driver) message(del fanout.Delivery[int]) messageView {
	d.know(del.Body, del.ID())
	var as []attempt
	for _, a := range del.History() {
		as = append(as, attempt{
			Number: a.Number, Cause: a.Cause, Queue: a.Queue, Start: a.Start.Sub(d.epoch), Elapsed: a.Elapsed, Err: sentinel(a.Err),
		})
		if (a.Stack != "") != (a.Cause == fanout.Panicked) {
			d.fail("an attempt that %v has the stack %q", a.Cause, a.Stack)
		}
	}
	return messageView{
		Body: del.Body, Attempt: del.Attempt(), At: del.PublishedAt().Sub(d.epoch), Key: del.OrderingKey(), History: shortened(as),
	}
}

// differences tells where two values differ, one line for each.
func differences(a, b any) string {
	as, bs := map[string]string{}, map[string]string{}
	flatten("", reflect.ValueOf(a), as)
	flatten("", reflect.ValueOf(b), bs)
	var lines []string
	for path, x := range as {
		if y, ok := bs[path]; !ok || x != y {
			lines = append(lines, fmt.Sprintf("%s: %s, %s", path, x, cmp.Or(bs[path], "none")))
		}
	}
	for path, y := range bs {
		if _, ok := as[path]; !ok {
			lines = append(lines, fmt.Sprintf("%s: none, %s", path, y))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// flatten takes down the leaves of a value by their paths.
func flatten(path string, v reflect.Value, to map[string]string) {
	switch {
	case v.IsValid() && v.Kind() == reflect.Struct:
		for k := range v.NumField() {
			flatten(path+"."+v.Type().Field(k).Name, v.Field(k), to)
		}
	case v.IsValid() && v.Kind() == reflect.Slice:
		for k := range v.Len() {
			flatten(fmt.Sprintf("%s[%d]", path, k), v.Index(k), to)
		}
		to[path+" len"] = fmt.Sprint(v.Len())
	default:
		to[path] = fmt.Sprintf("%v", v)
	}
}
