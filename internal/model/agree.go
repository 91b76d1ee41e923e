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

// An operation does to the model what was done to the topic.
type operation func(m *topic) (n int, got []messageView, err error)

// A pastStep is a step that was explained: other choices may be looked for if a
// later one is not.
type pastStep struct {
	before     *topic
	do         operation
	seen       view
	witness    *witness
	deliveries []held
	asleep     bool
	choices    []choice // that explained it
}

// retraceMost is how many steps back other choices are looked for, and triesMost
// how many are tried for one step.
const (
	retraceMost = 12
	triesMost   = 20000
)

// agree has the model do what the topic did, with those choices that explain
// what is seen, and fails if there are none.
func (d *driver) agree(err error, n int, got []held, do operation) {
	synctest.Wait()
	if d.check != nil {
		d.noError(d.check(d.top))
	}
	w := &witness{taker: map[copyID]int{}, finished: map[int]bool{}}
	for _, h := range got {
		w.taker[h.id.copyID] = caller
	}
	handlers := d.collectHandlers(w)
	finished := d.collectCalls(w)
	w.waits = d.collectWaits()
	d.trimHeld()
	seen := d.view()
	seen.Err, seen.N, seen.Finished = sentinel(err), n, finished
	for _, h := range got {
		seen.Got = append(seen.Got, d.message(h.Delivery))
	}
	seen.Runs = handlers
	s := pastStep{before: d.model, do: do, seen: seen, witness: w, deliveries: slices.Clone(d.held), asleep: d.asleep}
	d.search(s)
}

// caller takes what an operation returns itself.
const caller = -1

// search looks for choices that explain the step, and if there are none, for
// other ones before it.
func (d *driver) search(s pastStep) {
	tries := triesMost
	m, choices, first := s.explain(nil, &tries)
	if m != nil {
		d.model = m
		s.choices = choices
		d.past = append(d.past, s)
		if len(d.past) > retraceMost {
			d.past = slices.Delete(d.past, 0, 1)
		}
		return
	}
	d.report.Retraced++
	steps := append(slices.Clone(d.past), s)
	for k := len(steps) - 2; k >= 0; k-- {
		tries := triesMost
		if m := explore(steps[k:], steps[k].before, nextChoices(steps[k].choices), true, &tries); m != nil {
			d.model = m
			d.past = steps[max(len(steps)-retraceMost, 0):]
			return
		}
	}
	d.fail("the topic does what the model does not (model, topic):\n%s", first)
}

// explore looks for choices that explain all of steps, beginning with given
// ones for the first, if other says so. It notes the choices in steps.
func explore(steps []pastStep, before *topic, choices []choice, other bool, tries *int) *topic {
	if len(steps) == 0 {
		return before
	}
	if other && choices == nil {
		return nil
	}
	steps[0].before = before
	for *tries > 0 {
		m, made, _ := steps[0].explain(choices, tries)
		if m == nil {
			return nil
		}
		steps[0].choices = made
		if end := explore(steps[1:], m, nil, false, tries); end != nil {
			return end
		}
		if choices = nextChoices(made); choices == nil {
			return nil
		}
	}
	return nil
}

// explain returns a model after the step that looks like the topic, with the
// choices that led there, beginning with those given; or nil, and how the first
// try differed.
func (s *pastStep) explain(choices []choice, tries *int) (m *topic, made []choice, first string) {
	for begun := *tries; *tries > 0; {
		*tries--
		m := s.before.clone()
		m.choices, m.asked, m.seen, m.stirred, m.wrong = choices, 0, s.witness, false, ""
		n, got, err := s.do(m)
		m.settleDown()
		why := m.wrong
		if why == "" {
			want := m.view(s.deliveries)
			want.Err, want.N, want.Got = err, n, got
			if s.asleep {
				want.Topic = fanout.TopicStats{}
			}
			if reflect.DeepEqual(want, s.seen) {
				made = m.choices
				m.choices = nil
				return m, made, ""
			}
			if first == "" {
				why = differences(want, s.seen)
			}
		}
		if first == "" || begun == *tries+1 {
			first = cmp.Or(why, first)
		}
		if choices = nextChoices(m.choices); choices == nil {
			break
		}
	}
	return nil, nil, first
}

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
	for _, h := range begun {
		got := d.hold(h.ref, h.d)
		h.id = got.id
		w.taker[h.id.copyID] = h.sub
	}
	slices.SortFunc(begun, func(a, b *handler) int { return compareIDs(a.id, b.id) })
	d.handlers = append(d.handlers, begun...)
	d.handlers = slices.DeleteFunc(d.handlers, func(h *handler) bool { return h.home.Load() })
	for _, h := range d.handlers {
		v := runView{id: h.id, Sub: h.sub}
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

// collectCalls takes down which calls have returned.
func (d *driver) collectCalls(w *witness) (results []result) {
	var waiting []*call
	for _, c := range d.calls {
		if !c.done.Load() {
			waiting = append(waiting, c)
			continue
		}
		w.finished[c.id] = true
		r := result{ID: c.id, N: c.n, Err: sentinel(c.err)}
		for _, del := range c.got {
			h := d.hold(c.ref, del)
			w.taker[h.id.copyID] = c.id
			r.Got = append(r.Got, deliveryView{h.id, d.message(del)})
		}
		results = append(results, r)
	}
	d.calls = waiting
	slices.SortFunc(results, func(a, b result) int { return cmp.Compare(a.ID, b.ID) })
	return results
}

// collectWaits takes down how long messages wait that were given back.
func (d *driver) collectWaits() map[copyID]time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waits) == 0 {
		return nil
	}
	waits := map[copyID]time.Duration{}
	for name, wait := range d.waits {
		name, id, _ := strings.Cut(name, "\x00")
		for k, q := range d.queues {
			if name == q.Name() || name == q.Name()+"/dead" || d.shared != nil && name == d.shared.Name() {
				waits[copyID{k, d.byID[id]}] = wait
			}
		}
	}
	clear(d.waits)
	return waits
}

// hold keeps a delivery that was just made.
func (d *driver) hold(r ref, del fanout.Delivery[int]) held {
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
	d.held = append(d.held, h)
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

// view looks at all that can be seen of the topic.
func (d *driver) view() view {
	if d.shutdown != nil && !d.done {
		select {
		case err := <-d.shutdown:
			d.shutdownEnded(err)
		default:
		}
	}
	v := view{Now: time.Since(d.epoch), Done: d.done, Left: d.left, Why: d.why}
	if !d.asleep {
		v.Topic = d.top.Stats()
	}
	for _, q := range d.queues {
		v.Queues = append(v.Queues, d.queueView(q))
	}
	if d.shared != nil {
		v.Queues = append(v.Queues, d.queueView(d.shared))
	}
	for _, h := range d.held {
		until := time.Duration(-1)
		if at := h.Deadline(); !at.IsZero() {
			until = at.Sub(d.epoch)
		}
		v.Deadlines = append(v.Deadlines, until)
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

func (d *driver) queueView(q *fanout.Queue[int]) queueView {
	v := queueView{Stats: q.Stats()}
	depth, err := q.Depth(d.ctx)
	d.noError(err)
	s := v.Stats
	if depth != s.Unsettled() || depth > s.Capacity {
		d.fail("queue %s: depth %d, %d unsettled, capacity %d", q.Name(), depth, s.Unsettled(), s.Capacity)
	}
	if depth > 0 {
		ds, err := q.Peek(d.ctx, fanout.Unlimited)
		d.noError(err)
		for _, del := range ds {
			v.Peek = append(v.Peek, d.message(del))
		}
	}
	v.Left = d.leftovers(q.Leftovers())
	k := slices.Index(d.queues, q)
	if k < 0 || d.sharing[k] {
		return v
	}
	// Asking for a dead-letter queue makes it.
	if k < len(d.model.deads) && d.model.deads[k] != nil || s.DeadLettered > 0 {
		v.Dead = []queueView{d.queueView(q.DeadLetters())}
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
		as = append(as, attempt{a.Number, a.Cause, a.Queue, a.Start.Sub(d.epoch), a.Elapsed, sentinel(a.Err)})
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
