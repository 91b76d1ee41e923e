package lease

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/message"
)

// A counter gives out stamps, and checks nothing.
type counter uint64

func (c *counter) Reserve(n int) uint64 {
	first := uint64(*c) + 1
	*c += counter(n)
	return first
}

func origin(t testing.TB) *message.Origin {
	clock, err := message.NewClock()
	require.NoError(t, err)
	return &message.Origin{Clock: clock, Queue: "q"}
}

type body = *uint64

type state int

const (
	waiting state = iota
	current       // of a lease in step
	open
	timedOut
	gone_
)

// A msg is a message as the naive table keeps it.
type msg struct {
	item     message.Item[body]
	ref      message.Ref
	state    state
	start    int64
	vis      int64
	until    int64 // 0: not extended
	spent    uint32
	passes   uint16
	attempts []message.Attempt
	with     *consumer
}

func (m *msg) deadline() int64 { return max(m.start+m.vis, m.until) }

type consumer struct {
	lease   *Lease[body]
	inStep  bool
	gathers bool
	knows   bool // when its current message began
	msgs    []*msg
	at      int // of the current one
	forgot  bool
}

func (c *consumer) At(l *Lease[body], k int) int64 { return c.Message(l, k).At }

func (c *consumer) Began(now int64) int64 {
	if c.knows {
		return c.msgs[c.at].start
	}
	return now
}

// Message is what the consumer keeps.

func (c *consumer) Message(l *Lease[body], k int) message.Item[body] {
	if c.forgot || l != c.lease && c.lease != nil || c.msgs[k].state == gone_ {
		panic("a consumer is asked for what it need not have")
	}
	return c.msgs[k].item
}

// A model is a naive table, and the real one, which it takes through the same
// steps.
type model struct {
	t      testing.TB
	table  *Table[body]
	origin *message.Origin
	stamps counter
	arg    func(n int) int // the next choice

	now       int64
	seq       uint64
	consumers []*consumer
	held      map[uint64]*msg // by stamp; timed-out ones by the stamp they had
	timedOut  []*msg          // in the order in which they are to be taken
	ended     []message.Ref
	popped    []*msg // left the table, may come again with a past
	began     int
	acked     int
	gotBegan  int
	gotAcked  int
}

func newModel(t testing.TB, arg func(n int) int) *model {
	m := &model{t: t, origin: origin(t), arg: arg, held: map[uint64]*msg{}, now: 1000}
	m.table = New[body](&m.stamps, new(block.Pool), m.origin)
	return m
}

// fresh returns items that have no past.
func (m *model) fresh(n int) ([]message.Item[body], []*msg) {
	items, msgs := make([]message.Item[body], n), make([]*msg, n)
	for k := range items {
		m.seq++
		b := m.seq
		items[k] = message.Item[body]{Seq: m.seq, At: int64(m.seq), Body: &b} // published one after the other
		msgs[k] = &msg{item: items[k]}
	}
	return items, msgs
}

// add adds messages to a lease, some of them with a past if mixed.
func (m *model) add(l *Lease[body], n int, vis int64, mixed bool, owner *consumer) {
	for n > 0 {
		var added []*msg
		from := l.Len()
		if mixed && len(m.popped) > 0 && m.arg(2) == 0 {
			again := *m.popped[0] // another delivery: its last lease may remember the one before
			x := &again
			m.popped = m.popped[1:]
			p := message.Past{Spent: x.spent, Passes: x.passes}
			for _, a := range x.attempts {
				p.Hist = p.Hist.With(message.Kept{Attempt: a})
			}
			if m.arg(4) == 0 {
				x.item.Ext = &message.Extra{Key: "k"}
			}
			m.table.AddPast(l, x.item, p, m.now)
			added = []*msg{x}
		} else {
			items, msgs := m.fresh(min(n, 1+m.arg(n)))
			k := m.table.Add(l, items, m.now)
			require.Equal(m.t, min(len(items), l.Room()+k), k)
			added = msgs[:k]
		}
		if len(added) == 0 {
			return
		}
		n -= len(added)
		for k := from; k < l.Len(); {
			r := m.table.Run(l, k)
			require.NotEmpty(m.t, r.Items)
			for j := range r.Items {
				x := added[k-from+j]
				m.deliver(x, r.First.Next(j), r.Items[j], r.History, vis)
				x.with = owner
			}
			k += len(r.Items)
		}
		m.began += len(added)
		if owner != nil {
			owner.msgs = append(owner.msgs, added...)
		}
	}
}

// keep has a consumer keep n new messages, which its lease has just taken.
func (m *model) keep(c *consumer, n int, vis int64) {
	first := m.table.First(c.lease)
	items, msgs := m.fresh(n)
	if m.arg(6) == 0 {
		k := m.arg(n)
		items[k].Ext = &message.Extra{TTL: 1}
		msgs[k].item = items[k]
	}
	c.msgs, c.at = msgs, 0
	for k, x := range msgs {
		m.deliver(x, first.Next(k), items[k], nil, vis)
		x.with = c
		if c.inStep && k > 0 {
			x.state = waiting
			continue
		}
		if c.inStep {
			x.state = current
		}
		m.began++
	}
}

// deliver notes a delivery, and compares it with what it should be.
func (m *model) deliver(x *msg, r message.Ref, it message.Item[body], h *message.History, vis int64) {
	require.Equal(m.t, x.item, it)
	require.Equal(m.t, int32(x.spent)+1, r.Attempt)
	if len(x.attempts) > 0 {
		require.Equal(m.t, x.attempts, h.Attempts(x.item.Seq))
	} else {
		require.Empty(m.t, h.Attempts(x.item.Seq))
	}
	require.Nil(m.t, m.held[r.Stamp], "a stamp comes twice")
	x.ref, x.state, x.start, x.vis, x.until = r, open, m.now, vis, 0
	m.held[r.Stamp] = x
}

func (m *model) end(x *msg) {
	delete(m.held, x.ref.Stamp)
	m.ended = append(m.ended, x.ref)
	if len(m.ended) > 500 {
		m.ended = m.ended[100:]
	}
	x.state = gone_
}

func (m *model) ack(x *msg) {
	m.acked++
	m.end(x)
}

// pick returns any message in one of the given states, often a current one, nil if there is
// none.
func (m *model) pick(states ...state) *msg {
	if c := m.consumer(); c != nil && slices.Contains(states, current) && m.arg(4) == 0 {
		if x := c.current(); x != nil && x.state == current {
			return x
		}
	}
	var all []*msg
	for _, x := range m.held {
		if slices.Contains(states, x.state) {
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *msg) int { return cmp.Compare(a.ref.Stamp, b.ref.Stamp) })
	return all[m.arg(len(all))]
}

// detached is what the model does when a current message gets a bit.
func (m *model) detach(x *msg) {
	if x.state != current {
		return
	}
	x.state = open
	if c := x.with; c.at > 0 {
		x.start = c.Began(m.now)
	}
}

func (m *model) left(x *msg, out Out[body], timedOut bool) {
	require.Equal(m.t, x.item, out.Item)
	require.Equal(m.t, x.passes, out.Past.Passes)
	require.Equal(m.t, x.spent, out.Past.Spent)
	require.Equal(m.t, len(x.attempts), len(out.Past.Hist.Attempts(x.item.Seq)))
	if len(x.attempts) > 0 {
		require.Equal(m.t, x.attempts, out.Past.Hist.Attempts(x.item.Seq))
	}
	if timedOut {
		m.note(x, x.start, m.now)
	}
	m.popped = append(m.popped, x)
	if len(m.popped) > 200 {
		m.popped = m.popped[100:]
	}
}

// note notes a time-out in a message's history.
func (m *model) note(x *msg, start, at int64) {
	x.spent++
	x.attempts = append(slices.Clone(x.attempts), message.Attempt{
		Number: len(x.attempts) + 1, Cause: message.TimedOut, Queue: "q",
		Start: m.origin.Clock.Time(start), Elapsed: time.Duration(at - start),
	})
}

func (m *model) consumer() *consumer {
	if len(m.consumers) == 0 {
		return nil
	}
	return m.consumers[m.arg(len(m.consumers))]
}

var steps = []struct {
	name string
	run  func(m *model)
}{
	{"open in step", func(m *model) { m.open(true) }},
	{"open whole", func(m *model) { m.open(false) }},
	{"fill", func(m *model) {
		n, vis := 1+m.arg(80), int64(100+300*(m.arg(8)/7))
		mixed := m.arg(4) == 0
		for n > 0 {
			l := m.table.Fill(n, vis)
			k := min(n, l.Room())
			m.add(l, k, vis, mixed, nil)
			n -= k
		}
	}},
	{"again", func(m *model) {
		if c := m.consumer(); c != nil {
			m.again(c)
		}
	}},
	{"take", func(m *model) {
		items, msgs := m.fresh(1 + m.arg(80))
		for len(items) > 0 {
			r := Run[body]{Items: items, History: new(message.History)} // it is overwritten
			m.table.Take(&r, items[:1+m.arg(len(items))], len(items), 100, m.now)
			require.NotEmpty(m.t, r.Items)
			for k := range r.Items {
				m.deliver(msgs[k], r.First.Next(k), r.Items[k], r.History, 100)
			}
			m.began += len(r.Items)
			items, msgs = items[len(r.Items):], msgs[len(r.Items):]
		}
	}},
	{"fill one", func(m *model) { m.add(m.table.Fill(1, 100), 1, 100, false, nil) }},
	{"go on", func(m *model) {
		if c := m.consumer(); c != nil && c.inStep {
			for range 1 + m.arg(8) {
				m.goOn(c)
			}
		}
	}},
	{"detach", func(m *model) {
		if c := m.consumer(); c != nil {
			x := c.current()
			require.Equal(m.t, x != nil && x.state == current, m.table.Detach(c.lease, m.now))
			if x != nil {
				m.detach(x)
			}
			require.NoError(m.t, m.compareKept(c))
		}
	}},
	{"take back", func(m *model) {
		if c := m.consumer(); c != nil {
			m.takeBack(c)
		}
	}},
	{"end", func(m *model) {
		if len(m.consumers) > 3 || m.arg(4) == 0 {
			m.leave(m.consumer())
		}
	}},
	{"ack whole", func(m *model) {
		if c := m.consumer(); c != nil && !c.inStep {
			all := len(c.msgs) > 0
			for _, x := range c.msgs {
				all = all && x.state == open && x.with == c
			}
			require.Equal(m.t, all, m.table.AckWhole(c.lease))
			if all {
				for _, x := range c.msgs {
					m.ack(x)
				}
			}
		}
	}},
	{"ack", func(m *model) {
		for range 1 + m.arg(20) {
			if x := m.pick(open, current); x != nil {
				require.True(m.t, m.table.Ack(x.ref))
				m.ack(x)
				require.False(m.t, m.table.Ack(x.ref), "twice")
			}
		}
	}},
	{"ack many", func(m *model) {
		acked := map[int32]uint64{}
		var blocks []int32
		var many []message.Ref
		for stamp := uint64(max(int(m.stamps)-m.arg(300), 1)); stamp <= uint64(m.stamps); stamp++ {
			x := m.held[stamp]
			if x == nil || x.state != open && x.state != current || m.arg(5) == 0 {
				continue
			}
			first, isOpen := m.table.Open(x.ref)
			require.Equal(m.t, x.state == open, isOpen != 0)
			if isOpen == 0 {
				require.True(m.t, m.table.Ack(x.ref))
			} else {
				if acked[x.ref.Block] == 0 {
					blocks = append(blocks, x.ref.Block)
				}
				acked[x.ref.Block] |= 1 << (stamp - first)
				require.Zero(m.t, acked[x.ref.Block]&^isOpen)
				many = append(many, x.ref)
			}
			m.ack(x)
		}
		for _, id := range blocks {
			m.table.AckOpen(id, acked[id])
		}
		for _, r := range many {
			_, isOpen := m.table.Open(r)
			require.Zero(m.t, isOpen, "twice")
		}
	}},
	{"ack what is over", func(m *model) {
		if len(m.ended) > 0 {
			r := m.ended[m.arg(len(m.ended))]
			require.False(m.t, m.table.Ack(r))
			_, ok := m.table.Extract(r, m.now)
			require.False(m.t, ok)
			require.False(m.t, m.table.Extend(r, m.now+1, m.now))
			_, _, ok = m.table.Lookup(r)
			require.False(m.t, ok)
		}
		if x := m.pick(waiting, timedOut); x != nil {
			require.False(m.t, m.table.Ack(x.ref), "it is not delivered")
		}
	}},
	{"extract", func(m *model) {
		if x := m.pick(open, current); x != nil {
			m.detach(x)
			out, ok := m.table.Extract(x.ref, m.now)
			require.True(m.t, ok)
			require.Equal(m.t, x.ref.Stamp, out.Stamp)
			require.Equal(m.t, x.start, out.Start)
			m.left(x, out, false)
			m.end(x)
			x.passes++
		}
	}},
	{"extend", func(m *model) {
		if x := m.pick(open, current); x != nil {
			m.detach(x)
			until := m.now + int64(m.arg(400))
			require.True(m.t, m.table.Extend(x.ref, until, m.now))
			if until > x.deadline() {
				x.until = until
			}
			at, ok := m.table.Deadline(x.ref, m.now)
			require.True(m.t, ok)
			require.Equal(m.t, x.deadline(), at)
			it, owner, ok := m.table.Lookup(x.ref)
			require.True(m.t, ok)
			require.Equal(m.t, x.item, it)
			require.Equal(m.t, x.with != nil, owner != nil)
		}
	}},
	{"time", func(m *model) { m.now += int64(m.arg(40)) }},
	{"expire", func(m *model) {
		m.expire(due.Instant{At: m.now - int64(m.arg(5)), Stamp: m.held64()}, []int{0, 3, 1 << 30}[m.arg(3)])
	}},
	{"expire all", func(m *model) { m.expire(due.Never, 1<<30) }},
	{"a long time", func(m *model) {
		if m.arg(8) == 0 {
			m.now += 1000
			m.expire(due.Never, 1<<30)
		}
	}},
	{"take timed out", func(m *model) { m.takeTimedOut() }},
	{"pop timed out", func(m *model) {
		for range m.arg(4) {
			rank, _ := m.table.FirstTimedOut()
			out, ok := m.table.PopTimedOut()
			require.Equal(m.t, len(m.timedOut) > 0, ok)
			if ok {
				x := m.timedOut[0]
				m.timedOut = m.timedOut[1:]
				require.Equal(m.t, rank, out.Stamp)
				require.Greater(m.t, rank, x.ref.Stamp)
				delete(m.held, x.ref.Stamp)
				m.left(x, out, false)
			}
		}
	}},
	{"clean", func(m *model) {
		m.table.Clean()
		for _, c := range m.consumers {
			require.NoError(m.t, m.compareKept(c))
		}
	}},
	{"trim", func(m *model) { m.table.Trim() }},
	{"rest", func(m *model) {
		if again := m.table.Rest(uint64(m.arg(2))); !again {
			require.False(m.t, m.table.warm && m.table.Spare(), "spare memory is left alone")
		}
	}},
	{"settle all", func(m *model) {
		if m.arg(6) == 0 {
			m.settleAll()
		}
	}},
}

func (m *model) held64() uint64 { return uint64(m.arg(int(m.stamps) + 1)) }

func (m *model) open(inStep bool) {
	if len(m.consumers) > 6 {
		return
	}
	room, vis := 1+m.arg(70), int64(100+300*(m.arg(8)/7))
	c := &consumer{inStep: inStep, gathers: !inStep && m.arg(2) == 0, knows: m.arg(2) == 0}
	m.consumers = append(m.consumers, c)
	switch n := min(room, Len); {
	case c.gathers:
		c.lease = m.table.Gather(c, room, vis)
		require.Equal(m.t, n, c.lease.Room())
		m.add(c.lease, min(n, m.arg(80)), vis, m.arg(3) == 0, c)
	case inStep:
		c.lease = m.table.InStep(c, n, m.now, vis)
		m.keep(c, n, vis)
	default:
		c.lease = m.table.Whole(c, n, m.now, vis)
		m.keep(c, n, vis)
	}
	require.Same(m.t, c, c.lease.Owner())
	require.Equal(m.t, !c.gathers, c.lease.Kept())
	require.LessOrEqual(m.t, c.lease.Len(), Len)
}

// again has a consumer take more into the lease that it has.
func (m *model) again(c *consumer) {
	done := !c.gathers && c.lease.Kept() && c.lease.more == nil
	for k, x := range c.msgs {
		done = done && x.state == gone_ && (!c.inStep || k <= c.at)
	}
	n := 1 + m.arg(Len)
	require.Equal(m.t, done, m.table.Again(c.lease, n, m.now))
	if done {
		m.keep(c, n, c.lease.vis)
	}
}

func (c *consumer) current() *msg {
	if !c.inStep || c.at >= len(c.msgs) {
		return nil
	}
	return c.msgs[c.at]
}

// goOn is what a worker or a range does between two messages.
func (m *model) goOn(c *consumer) {
	x, more := c.current(), c.at+1 < len(c.msgs)
	if x == nil {
		return
	}
	went := false
	switch p := c.lease.Word.Place(); m.arg(4) {
	case 0:
		_, went = c.lease.Word.Step(p)
		require.Equal(m.t, more && x.state == current, went)
		if went {
			m.ack(x)
		}
	case 1:
		ok := c.lease.Word.AckCurrent(x.ref.Stamp)
		require.Equal(m.t, more && x.state == current, ok)
		if ok {
			m.ack(x)
			require.False(m.t, c.lease.Word.AckCurrent(x.ref.Stamp), "twice")
		}
	case 2:
		acked := p.Acked()
		_, went = c.lease.Word.Advance()
		require.Equal(m.t, more && acked, went)
	default:
		if m.arg(2) == 0 {
			require.Equal(m.t, x.state == current, m.table.Detach(c.lease, m.now))
			m.detach(x)
		}
		over := x.state != current
		went = m.table.Next(c.lease)
		require.Equal(m.t, more && over, went)
	}
	if went {
		c.at++
		c.msgs[c.at].state, c.msgs[c.at].start = current, m.now
		m.began++
	}
}

func (m *model) takeBack(c *consumer) {
	var outs []Out[body]
	m.table.TakeBack(c.lease, func(o Out[body]) { outs = append(outs, o) })
	if !c.inStep || len(c.msgs) == 0 {
		require.Empty(m.t, outs)
		return
	}
	back := c.msgs[c.at+1:]
	require.Len(m.t, outs, len(back))
	for k, x := range back {
		require.Zero(m.t, outs[k].Stamp)
		delete(m.held, x.ref.Stamp)
		m.left(x, outs[k], false)
	}
	c.msgs = c.msgs[:c.at+1]
}

func (m *model) leave(c *consumer) {
	if c == nil {
		return
	}
	m.takeBack(c)
	if x := c.current(); x != nil {
		m.detach(x)
	}
	m.table.End(c.lease, m.now)
	c.forgot = true
	for _, x := range c.msgs {
		x.with = nil
	}
	m.consumers = slices.DeleteFunc(m.consumers, func(o *consumer) bool { return o == c })
}

// inOrder returns all that is in flight by its bit, by deadline and stamp.
func (m *model) inOrder() []*msg {
	var all []*msg
	for _, x := range m.held {
		if x.state == open {
			all = append(all, x)
		}
	}
	slices.SortFunc(all, func(a, b *msg) int {
		return cmp.Or(cmp.Compare(a.deadline(), b.deadline()), cmp.Compare(a.ref.Stamp, b.ref.Stamp))
	})
	return all
}

func (m *model) expire(until due.Instant, most int) {
	all := m.inOrder()
	for {
		e, ok := m.table.TimeOut(m.now, until, most)
		due := len(all) > 0 && all[0].deadline() <= m.now &&
			(all[0].deadline() < until.At || all[0].deadline() == until.At && all[0].ref.Stamp < until.Stamp)
		require.Equal(m.t, due, ok)
		if !ok {
			return
		}
		n := 0
		for first, run := range e.Runs() {
			for stamp := first; stamp < first+uint64(run); stamp++ {
				x := all[n]
				n++
				require.Equal(m.t, x.ref.Stamp, stamp, "in the order of their instants and stamps")
				require.LessOrEqual(m.t, x.deadline(), m.now)
				if e.Several {
					require.Nil(m.t, x.with)
					require.Less(m.t, int(x.spent)+1, most)
					require.Zero(m.t, x.until)
					require.True(m.t, x.item.Ext.Plain())
					m.note(x, x.start, m.now)
					x.state = timedOut
					m.ended = append(m.ended, x.ref)
					m.timedOut = append(m.timedOut, x)
					continue
				}
				require.Equal(m.t, x.with != nil, e.Owner != nil)
				require.Equal(m.t, x.start, e.Out.Start)
				m.left(x, e.Out, true)
				m.end(x)
			}
		}
		require.Equal(m.t, n, e.Len())
		all = all[n:]
	}
}

func (m *model) takeTimedOut() {
	most := 1 + m.arg(70)
	_, any := m.table.FirstTimedOut()
	require.Equal(m.t, len(m.timedOut) > 0, any)
	vis := int64(100 + 100*(m.arg(8)/7))
	r, ok := m.table.TakeTimedOut(most, vis, m.now)
	if !ok {
		return
	}
	require.NotEmpty(m.t, r.Items)
	require.LessOrEqual(m.t, len(r.Items), most)
	for k := range r.Items {
		x := m.timedOut[k]
		delete(m.held, x.ref.Stamp)
		m.deliver(x, r.First.Next(k), r.Items[k], r.History, vis)
	}
	m.began += len(r.Items)
	m.timedOut = m.timedOut[len(r.Items):]
}

func (m *model) settleAll() {
	for len(m.consumers) > 0 {
		m.leave(m.consumers[0])
	}
	for range len(m.timedOut) {
		_, ok := m.table.PopTimedOut()
		require.True(m.t, ok)
	}
	for _, x := range m.timedOut {
		delete(m.held, x.ref.Stamp)
	}
	m.timedOut = nil
	for _, x := range m.inOrder() {
		require.True(m.t, m.table.Ack(x.ref))
		m.ack(x)
	}
	require.Empty(m.t, m.held)
	require.Zero(m.t, m.table.Held())
	m.table.Trim()
	require.Zero(m.t, m.table.slots)
	require.Zero(m.t, m.table.bytes(), "an idle table keeps nothing")
}

// compare compares the table with the model.
func (m *model) compare() error {
	var c Counts
	for _, x := range m.held {
		switch x.state {
		case waiting:
			c.Waiting++
		case timedOut:
			c.TimedOut++
		default:
			c.InFlight++
		}
	}
	if err := m.compareAhead(c); err != nil {
		return err
	}
	if got := m.table.Counts(); got != c {
		return fmt.Errorf("counts are %+v, want %+v", got, c)
	}
	if err := m.table.Check(); err != nil {
		return err
	}
	began, acked := m.table.Tally()
	m.gotBegan, m.gotAcked = m.gotBegan+began, m.gotAcked+acked
	if m.gotBegan != m.began || m.gotAcked != m.acked {
		return fmt.Errorf("%d began and %d acknowledged, want %d and %d", m.gotBegan, m.gotAcked, m.began, m.acked)
	}
	refs := m.table.InFlight()
	byBit := m.inOrder()
	slices.SortFunc(byBit, func(a, b *msg) int { return cmp.Compare(a.ref.Stamp, b.ref.Stamp) })
	if !slices.EqualFunc(refs, byBit, func(r message.Ref, x *msg) bool { return r == x.ref }) {
		return fmt.Errorf("in flight are %v", refs)
	}
	if len(byBit) > 0 {
		if err := m.compareOne(byBit[m.arg(len(byBit))]); err != nil {
			return err
		}
	}
	if n := len(m.table.Leases()); n != len(m.consumers) {
		return fmt.Errorf("%d leases have consumers, want %d", n, len(m.consumers))
	}
	for _, c := range m.consumers {
		done, inFlight := true, 0
		for _, x := range c.msgs {
			done = done && x.state == gone_
			if x.state == open || x.state == current {
				inFlight++
			}
		}
		if x := c.current(); x != nil && x.state == current {
			if err := m.compareOne(x); err != nil {
				return err
			}
		}
		if m.table.Done(c.lease) != done {
			return fmt.Errorf("a consumer is done: %v", !done)
		}
		if n := m.table.InFlightOf(c.lease); n != inFlight {
			return fmt.Errorf("%d of a consumer's are in flight, want %d", n, inFlight)
		}
		if int(c.lease.step) > m.table.ahead {
			if err := m.compareKept(c); err != nil {
				return err
			}
		}
	}
	if m.table.Held() != len(m.held) {
		return fmt.Errorf("holds %d, want %d", m.table.Held(), len(m.held))
	}
	at, stamp, ok := m.table.NextDue()
	var first *msg
	for _, x := range m.held {
		if x.state == open && (first == nil || x.deadline() < first.deadline() || x.deadline() == first.deadline() && x.ref.Stamp < first.ref.Stamp) {
			first = x
		}
	}
	if ok != (first != nil) || ok && (at != first.deadline() || stamp != first.ref.Stamp) {
		return fmt.Errorf("next due is %d of %d, %v; want %+v", at, stamp, ok, first)
	}
	return m.compareMemory()
}

// compareAhead compares what the table says of what waits, or is to be taken again.
func (m *model) compareAhead(c Counts) error {
	steps, oldest, timed := false, int64(math.MaxInt64), 0
	for _, x := range m.held {
		if x.state == open {
			timed++
		}
		steps = steps || x.state == waiting || x.state == current
		if x.state == waiting || x.state == timedOut {
			oldest = min(oldest, x.item.At)
		}
	}
	if at, ok := m.table.Oldest(); ok != (c.Waiting+c.TimedOut > 0) || ok && at != oldest {
		return fmt.Errorf("the oldest is of %d, %v; want %d", at, ok, oldest)
	}
	l := m.table.FirstAhead()
	if (l != nil) != (c.Waiting > 0) || l != nil && l.Word.Place().Waiting() == 0 {
		return fmt.Errorf("%d wait, and %v is a lease in which they do", c.Waiting, l)
	}
	if w, o, n := m.table.Waiting(), m.table.Timed(), m.table.TimedOut(); w != c.Waiting || n != c.TimedOut || o != timed {
		return fmt.Errorf("%d wait, %d have timed out, %d will; want %+v, and %d", w, n, o, c, timed)
	}
	if got := m.table.Steps(); got != steps {
		return fmt.Errorf("some wait or are current: %v, want %v", got, steps)
	}
	return nil
}

// compareOne compares what the table says of a delivery that owns its message.
func (m *model) compareOne(x *msg) error {
	p, ok := m.table.Past(x.ref)
	if it, _, found := m.table.Lookup(x.ref); !ok || !found || it != x.item || p.Spent != x.spent || p.Passes != x.passes ||
		!slices.Equal(p.Hist.Attempts(it.Seq), x.attempts) {
		return fmt.Errorf("%v has been through %+v, want %+v", it, p, x)
	}
	return nil
}

// compareKept checks that nothing is kept that is over in the lease of a consumer, which has
// just been looked at, before its current message.
func (m *model) compareKept(c *consumer) error {
	l, live := c.lease, false
	if l.Kept() {
		return nil
	}
	over := map[uint64]bool{}
	for k, x := range c.msgs {
		live = live || x.state != gone_
		if x.state == gone_ && (!c.inStep || k < c.at) {
			over[x.item.Seq] = true
		}
	}
	if !live {
		return nil // it is given back with the lease
	}
	for p := range l.block.Items {
		if it := &l.block.Items[p]; it.Body != nil && over[it.Seq] {
			return fmt.Errorf("a consumer's lease keeps %d, which is over", it.Seq)
		}
	}
	return nil
}

// compareMemory checks that nothing is kept that is over, but where that is allowed,
// and that what is kept needs little memory.
func (m *model) compareMemory() error {
	live := map[uint64]bool{}
	for _, x := range m.held {
		live[x.item.Seq] = true
	}
	t := m.table
	for _, beyond := range [][]*Lease[body]{t.steps[len(t.steps):cap(t.steps)], t.heads[len(t.heads):cap(t.heads)]} {
		for _, l := range beyond {
			if l != nil {
				return fmt.Errorf("a lease that is over is kept beyond a slice's end")
			}
		}
	}
	for id, s := range t.slots.All {
		if l := s.Lease; l.block.Present == ^uint64(0) {
			for p := int(l.n); p < len(l.block.Items); p++ {
				if l.block.Items[p].Body != nil {
					return fmt.Errorf("block %d keeps something behind its last message", id)
				}
			}
		}
		if s.Lease.step != 0 {
			continue
		}
		over := 0
		for p := range s.Lease.block.Items {
			if it := &s.Lease.block.Items[p]; it.Body != nil && !live[it.Seq] {
				over++
			}
		}
		if n := bitsOf(s.Open | s.TimedOut); over > 3*n && s.Lease != m.table.filling || over >= deadEach*max(n, 1) || n < 2 && over > 0 {
			return fmt.Errorf("block %d keeps %d that are over, for %d", id, over, n)
		}
	}
	return nil
}

func bitsOf(b uint64) (n int) {
	for ; b != 0; b &= b - 1 {
		n++
	}
	return n
}

// modelSeeds is how many random programs are run: go test ./internal/lease -seeds 1000
var modelSeeds = flag.Int("seeds", 8, "how many random `programs` the table is held against a naive one with")

func TestTheTableIsAsANaiveOne(t *testing.T) {
	seeds, n := *modelSeeds, 2_000
	if testing.Short() {
		seeds, n = min(seeds, 4), 1_000
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		m := newModel(t, rng.IntN)
		m.table.bulky = seed%2 == 1
		var weights []int // some steps are rare in some runs
		for k := range steps {
			for range 1 + rng.IntN(6) {
				weights = append(weights, k)
			}
		}
		for k := range n {
			s := steps[weights[rng.IntN(len(weights))]]
			s.run(m)
			require.NoError(t, m.compare(), "seed %d, step %d: %s", seed, k, s.name)
			if len(m.held) > 800 {
				m.settleAll()
			}
		}
		m.settleAll()
		require.NoError(t, m.compare())
	}
}

func FuzzOperations(f *testing.F) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		program := make([]byte, 300)
		for k := range program {
			program[k] = byte(rng.Uint32())
		}
		f.Add(program)
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		m := newModel(t, nil)
		m.table.bulky = len(program)%2 == 1
		m.arg = func(n int) int {
			if len(program) == 0 {
				return 0
			}
			b := int(program[0])
			program = program[1:]
			return b * n / 256
		}
		for len(program) > 0 {
			s := steps[m.arg(len(steps))]
			s.run(m)
			require.NoError(t, m.compare(), s.name)
		}
		m.settleAll()
	})
}
