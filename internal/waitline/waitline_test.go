package waitline

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The model: who waits is in one list, and who holds back whom is asked of each two.

type modelQueue struct {
	*Queue
	closed bool
}

type offer struct {
	redrive *modelQueue
	queues  []*modelQueue // with a filter
	ids     []string
}

func (o *offer) Redrives() bool { return o.redrive != nil }

func (o *offer) Queues() int {
	if o.redrive != nil {
		return 1
	}
	return len(o.queues)
}

func (o *offer) Queue(k int) *Queue {
	q := o.redrive
	if q == nil {
		q = o.queues[k]
	}
	if q.closed {
		return nil
	}
	return q.Queue
}

func (o *offer) wants(q *modelQueue) bool {
	return !q.closed && (o.redrive == q || o.redrive == nil && (!q.Filtered || slices.Contains(o.queues, q)))
}

type waiter struct {
	Waiter
	*offer
}

type model struct {
	t       *testing.T
	lines   Lines
	queues  []*modelQueue
	waiters []*waiter
	stays   int // queues close the more seldom
}

func newModel(t *testing.T) *model {
	m := &model{t: t, stays: 1}
	for k := range 8 { // each kind twice
		m.queues = append(m.queues, &modelQueue{Queue: &Queue{Filtered: k&1 != 0, Drops: k&2 != 0}})
	}
	return m
}

// all reports whether there is an open queue without a filter.
func (m *model) all() bool {
	return slices.ContainsFunc(m.queues, func(q *modelQueue) bool { return !q.Filtered && !q.closed })
}

// holds reports whether w, which came earlier, holds o back: they want a queue both, unless
// it is one that drops, where a publish does not wait for a redrive.
func (m *model) holds(w *waiter, o *offer) bool {
	return slices.ContainsFunc(m.queues, func(q *modelQueue) bool {
		return w.wants(q) && o.wants(q) && !(q.Drops && w.Redrives() && !o.Redrives())
	})
}

// behind returns those who hold back an offer of the given number.
func (m *model) behind(o *offer, number uint64) (ws []*waiter) {
	for _, w := range m.waiters {
		if w.Number() < number && m.holds(w, o) {
			ws = append(ws, w)
		}
	}
	return ws
}

// free returns those whom nobody holds back.
func (m *model) free() map[*waiter]bool {
	free := map[*waiter]bool{}
	for _, w := range m.waiters {
		if len(m.behind(w.offer, w.Number())) == 0 {
			free[w] = true
		}
	}
	return free
}

// turns takes all turns, which come in the order of arrival.
func (m *model) turns() map[*waiter]bool {
	got := map[*waiter]bool{}
	last := uint64(0)
	for w := m.lines.Next(); w != nil; w = m.lines.Next() {
		require.Less(m.t, last, w.Number())
		last = w.Number()
		require.True(m.t, w.Waits(), "one who has left is not looked at")
		got[w.Of.(*waiter)] = true
	}
	require.False(m.t, m.lines.HasTurns())
	return got
}

// check compares who is ahead of whom, and requires that change gave a turn to all who
// were held back before it and are free now, but to those whose turn it is.
func (m *model) check(change func(), looking ...*waiter) {
	before := m.free()
	waited := slices.Clone(m.waiters)
	change()
	turns := m.turns()
	require.NoError(m.t, m.lines.Check())
	require.Equal(m.t, len(m.waiters), m.lines.Waiting())
	free := m.free()
	for _, w := range waited {
		if free[w] && !before[w] && !slices.Contains(looking, w) {
			require.True(m.t, turns[w], "one who is free is not looked at")
		}
	}
	for _, w := range m.waiters {
		m.compare(w.offer, w.Number())
	}
	var all []*Waiter
	for w := range m.lines.All() {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *Waiter) int { return cmp.Compare(a.number, b.number) })
	require.Len(m.t, all, len(m.waiters))
	for k, w := range m.waiters {
		require.Same(m.t, &w.Waiter, all[k])
	}
}

// compare requires that those ahead of an offer are some of those who hold it back, and
// nobody only if nobody does.
func (m *model) compare(o *offer, number uint64) {
	behind := m.behind(o, number)
	n := 0
	for w := range m.lines.Ahead(o, m.all(), number) {
		n++
		require.Contains(m.t, behind, w.Of.(*waiter))
	}
	require.Equal(m.t, len(behind) > 0, n > 0)
	first := m.lines.First(o, m.all(), number)
	require.Equal(m.t, n > 0, first != nil)
	if first != nil {
		require.Contains(m.t, behind, first.Of.(*waiter))
	}
}

func (m *model) random(r *rand.Rand) *offer {
	o := &offer{}
	open := slices.DeleteFunc(slices.Clone(m.queues), func(q *modelQueue) bool { return q.closed })
	if len(open) > 0 && r.IntN(3) == 0 {
		o.redrive = open[r.IntN(len(open))]
		return o
	}
	for _, q := range open {
		if q.Filtered && r.IntN(2) == 0 {
			o.queues = append(o.queues, q)
		}
	}
	for id := range r.IntN(3) {
		o.ids = append(o.ids, string(rune('a'+id)))
	}
	return o
}

func (m *model) step(r *rand.Rand) {
	switch k := r.IntN(20); {
	case k < 8 || len(m.waiters) == 0:
		o := m.random(r)
		m.compare(o, 1<<63)
		w := &waiter{offer: o}
		w.Of, w.InHandler = w, r.IntN(2) == 0
		m.check(func() {
			m.lines.Enter(&w.Waiter, o, o.ids...)
			m.waiters = append(m.waiters, w)
		})
		require.True(m.t, w.Waits())
	case k < 14:
		at := r.IntN(len(m.waiters))
		w := m.waiters[at]
		m.check(func() {
			m.lines.Turn(&w.Waiter) // one who has left gets no turn
			m.waiters = slices.Delete(m.waiters, at, at+1)
			m.lines.Leave(&w.Waiter)
		})
		require.False(m.t, w.Waits())
	case k < 16:
		w := m.waiters[r.IntN(len(m.waiters))]
		if w.Redrives() || len(w.queues) == 0 {
			return
		}
		m.check(func() {
			w.queues = slices.Delete(w.queues, 0, 1+r.IntN(len(w.queues)))
			m.lines.Narrow(&w.Waiter, w.offer)
		}, w)
	case k < 18:
		q := m.queues[r.IntN(len(m.queues))]
		if q.closed {
			return
		}
		free := m.free()
		m.lines.RoomMade(q.Queue, q.Filtered)
		turns := m.turns()
		for w := range free {
			require.True(m.t, turns[w] || !w.wants(q), "one who is free and wants that room is not looked at")
		}
	case k == 18:
		id := string(rune('a' + r.IntN(2)))
		m.lines.Published(id)
		turns := m.turns()
		for _, w := range m.waiters {
			require.Equal(m.t, slices.Contains(w.ids, id), turns[w])
		}
	case k == 19 && r.IntN(m.stays) == 0:
		q := m.queues[r.IntN(len(m.queues))]
		if q.closed {
			return
		}
		m.check(func() {
			q.closed = true
			m.lines.Closed(q.Queue, q.Filtered, m.all())
			for _, w := range slices.Clone(m.waiters) { // its redrives end
				if w.redrive == q {
					m.waiters = slices.DeleteFunc(m.waiters, func(x *waiter) bool { return x == w })
					m.lines.Leave(&w.Waiter)
				}
			}
		})
	}
}

func (m *model) run(seed uint64, steps int) {
	r := rand.New(rand.NewPCG(seed, 0))
	m.stays = 1 + r.IntN(3)
	for range steps {
		m.step(r)
	}
	for len(m.waiters) > 0 { // all leave, the last ones first now and then
		at := r.IntN(len(m.waiters))
		w := m.waiters[at]
		m.check(func() {
			m.waiters = slices.Delete(m.waiters, at, at+1)
			m.lines.Leave(&w.Waiter)
		})
	}
	require.Empty(m.t, m.lines.wanted)
	require.Zero(m.t, m.lines.inHandlers)
}

func TestLinesFollowTheirModel(t *testing.T) {
	for seed := range uint64(100) {
		newModel(t).run(seed, 150)
	}
}

func FuzzLines(f *testing.F) {
	f.Add(uint64(1), uint8(20))
	f.Fuzz(func(t *testing.T, seed uint64, steps uint8) { newModel(t).run(seed, int(steps)) })
}

func TestNobodyIsLookedAtOnceTurnsAreForgotten(t *testing.T) {
	m := newModel(t)
	w := &waiter{offer: &offer{}}
	w.Of = w
	m.lines.Enter(&w.Waiter, w.offer)
	m.lines.Turn(&w.Waiter)
	m.lines.Forget()
	require.Nil(t, m.lines.Next())
}

func TestTurnsThatWereManyAreGivenBack(t *testing.T) {
	var l Lines
	for range 100 {
		w := &Waiter{}
		l.Enter(w, &offer{})
		l.Turn(w)
	}
	for l.Next() != nil {
	}
	require.Nil(t, l.turns)
	w := &Waiter{}
	l.Enter(w, &offer{})
	l.Turn(w)
	require.Same(t, w, l.Next())
	require.NotNil(t, l.turns, "one spares the next the allocation")
}
