package routing

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/policy"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

type maker struct {
	core  *core.Core
	home  *queue.Home[int]
	spare log.Spare[message.Item[int]]
	n     int
}

func newMaker(t *testing.T) *maker {
	c, err := core.New("t", settings.Topic{})
	require.NoError(t, err)
	return &maker{core: c, home: &queue.Home[int]{Core: c}}
}

func (m *maker) queue(filters ...filter.Filter[int]) *queue.Queue[int] {
	set := settings.DefaultQueue()
	m.n++
	q := queue.NewQueue(m.core, m.home, strconv.Itoa(m.n), &set.Limits)
	if q.Filters = filter.New(filters); q.Filters != nil {
		q.ReadOwnLog(&m.spare)
	}
	return q
}

// What is in the list is what a slice has to which the same was done, and places that
// somebody holds are not moved.
func TestAListHoldsItsQueuesInTheOrderInWhichTheyWereAdded(t *testing.T) {
	m := newMaker(t)
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var l List[int]
		var model []*queue.Queue[int]
		for range 400 {
			if rng.IntN(200) < 90+len(model) && len(model) > 0 {
				k := rng.IntN(len(model))
				l.Remove(model[k])
				model = slices.Delete(model, k, k+1)
			} else {
				q := m.queue()
				l.Add(q)
				model = append(model, q)
			}
			require.Equal(t, len(model), l.Len())
			k := 0
			for q := range l.All() {
				require.Same(t, model[k], q)
				k++
			}
			require.Equal(t, len(model), k)
			require.LessOrEqual(t, len(l.places), 2*l.n+4, "gaps are closed")
			if len(model) == 0 {
				require.Nil(t, l.places)
			}
		}
		for range l.All() {
			break // it can be left
		}
	}
}

// What is found by an index, one by one and by several filters is what each queue's own
// filters say.
func TestEachQueueGetsWhatItsFiltersAccept(t *testing.T) {
	p, err := policy.Parse(`{"name": ["a", {"prefix": "b"}]}`)
	require.NoError(t, err)
	kinds := [][]filter.Filter[int]{
		{{Policy: p}},
		{{Body: func(n int) bool { return n%3 == 0 }}},
		{{Policy: p}, {Body: func(n int) bool { return n%2 == 0 }}},
		{{Message: func(m *message.Published[int]) bool { return m.ID != "x" }}, {Policy: p}},
	}
	m := newMaker(t)
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var r Routes[int]
		var open []*queue.Queue[int]
		require.True(t, r.None())
		var a Answer[int]
		for range 40 {
			if rng.IntN(3) == 0 && len(open) > 0 {
				k := rng.IntN(len(open))
				r.Remove(open[k])
				open = slices.Delete(open, k, k+1)
			} else {
				q := m.queue(kinds[rng.IntN(len(kinds))]...)
				r.Add(q)
				open = append(open, q)
			}
			require.Equal(t, len(open) == 0, r.None())
			items := make([]message.Item[int], rng.IntN(5))
			for k := range items {
				items[k].Body = rng.IntN(12)
				if rng.IntN(2) == 0 {
					items[k].Ext = &message.Extra{ID: []string{"x", "y"}[rng.IntN(2)], Attributes: map[string]string{"name": []string{"a", "bc", "c"}[rng.IntN(3)]}}
				}
			}
			var want []Row[int]
			unaccepted := len(items)
			taken := map[int]bool{}
			for _, q := range open {
				var accepted []int
				for k := range items {
					if q.Filters.Accepts(&items[k]) {
						accepted, taken[k] = append(accepted, k), true
					}
				}
				if accepted != nil {
					want = append(want, Row[int]{q, accepted})
				}
			}
			require.NoError(t, r.Ask(items, &a))
			require.Equal(t, len(want), len(a.Rows))
			for k := range want {
				require.Same(t, want[k].Q, a.Rows[k].Q)
				require.Equal(t, want[k].Accepted, a.Rows[k].Accepted)
			}
			require.EqualValues(t, unaccepted-len(taken), a.Unaccepted(len(items)))
			a.Reset()
			requireEmpty(t, &a)
		}
		r.Forget()
		require.True(t, r.None())
		require.Zero(t, r.policies.Len())
	}
}

// requireEmpty checks that an answer keeps nothing of what it was used for.
func requireEmpty(t *testing.T, a *Answer[int]) {
	t.Helper()
	require.Empty(t, a.Rows)
	for _, r := range a.Rows[:cap(a.Rows)] {
		require.Equal(t, Row[int]{}, r)
	}
	for _, s := range a.seen[:cap(a.seen)] {
		require.Equal(t, filter.Seen[int]{}, s)
	}
	for _, f := range a.found[:cap(a.found)] {
		require.Equal(t, found[int]{}, f)
	}
	for _, e := range a.entries[:cap(a.entries)] {
		require.Nil(t, e)
	}
}

func TestAFilterThatPanicsIsAnErrorThatNamesItsQueue(t *testing.T) {
	m := newMaker(t)
	var r Routes[int]
	r.Add(m.queue(filter.Filter[int]{Body: func(int) bool { return true }}))
	r.Add(m.queue(filter.Filter[int]{Body: func(int) bool { panic("no") }}))
	var a Answer[int]
	require.ErrorContains(t, r.Ask(make([]message.Item[int], 1), &a), `filter of queue "2"`)
}

func TestItemsThatAreTakenOutOfABatchAreTakenOutOfItsRows(t *testing.T) {
	m := newMaker(t)
	q, other := m.queue(), m.queue()
	a := Answer[int]{Rows: []Row[int]{{q, []int{0, 2, 3}}, {other, []int{1}}}}
	a.Renumber([]int{0, -1, -1, 1})
	require.Equal(t, 1, len(a.Rows))
	require.Same(t, q, a.Rows[0].Q)
	require.Equal(t, []int{0, 1}, a.Rows[0].Accepted)
	require.Nil(t, a.Rows[:2][1].Q, "it is kept")
}

func TestAClosedQueueGetsNothingAndNeedsNoRoom(t *testing.T) {
	m := newMaker(t)
	accept := filter.Filter[int]{Body: func(int) bool { return true }}
	open, closed, direct := m.queue(accept), m.queue(accept), m.queue(accept)
	for _, n := range []int{1, 2, 20} { // 20 are too many for the stack
		items := make([]message.Item[int], n)
		all := make([]int, n)
		for k := range all {
			all[k] = k
		}
		a := Answer[int]{Rows: []Row[int]{{closed, all}, {open, all[:n-n/2]}}}
		closed.Closing, open.Closing = true, false
		require.EqualValues(t, n/2, a.Unaccepted(n))
		require.True(t, a.Fit())
		before := open.Store.Log.Head()
		a.Append(items)
		require.Equal(t, before, open.Store.Log.Published())
		a.Show()
		require.Equal(t, before+int64(n-n/2), open.Store.Log.Published())
		require.Zero(t, closed.Store.Log.Head())
		open.Closing = true
		require.EqualValues(t, n, a.Unaccepted(n))
	}
	direct.Store.Direct = true
	a := Answer[int]{Rows: []Row[int]{{direct, []int{0}}}}
	require.False(t, a.Fit())
	a.Append(make([]message.Item[int], 1))
	require.Zero(t, direct.Store.Log.Head())

	open.Closing = false
	most := int(open.Store.Room())
	a = Answer[int]{Rows: []Row[int]{{open, make([]int, most)}}}
	require.True(t, a.Fit())
	a.Rows[0].Accepted = make([]int, most+1)
	require.False(t, a.Fit())
}

// Of a direct queue, and of one that is closing, nothing is shown.
func TestOnlyWhatReadsALogIsShown(t *testing.T) {
	m := newMaker(t)
	accept := filter.Filter[int]{Body: func(int) bool { return true }}
	direct, closing := m.queue(accept), m.queue(accept)
	for _, q := range []*queue.Queue[int]{direct, closing} {
		q.Store.Log.Append(message.Item[int]{})
	}
	direct.Store.Direct, closing.Closing = true, true
	a := Answer[int]{Rows: []Row[int]{{direct, []int{0}}, {closing, []int{0}}}}
	a.Show()
	require.Zero(t, direct.Store.Log.Published())
	require.Zero(t, closing.Store.Log.Published())
}

func TestAnAnswerSaysHowMuchRoomItHas(t *testing.T) {
	var a Answer[int]
	require.Equal(t, unsafe.Sizeof(message.Item[int]{})+unsafe.Sizeof(filter.Seen[int]{}), a.ItemBytes())
	a.found, a.indexes = make([]found[int], 0, 3), make([]int, 0, 5)
	require.Equal(t, 8, a.Words())
}

// A list is made anew seldom: when there are more gaps than queues, and with some room.
func TestAListIsMadeAnewSeldom(t *testing.T) {
	m := newMaker(t)
	var l List[int]
	var qs []*queue.Queue[int]
	made, last := 0, 0
	count := func() {
		if c := cap(l.places); c != last {
			made, last = made+1, c
		}
	}
	for range 400 {
		qs = append(qs, m.queue())
		l.Add(qs[len(qs)-1])
		require.LessOrEqual(t, cap(l.places), l.n+l.n/8+4)
		count()
	}
	require.Less(t, made, 45)
	made = 0
	for _, q := range qs {
		l.Remove(q)
		count()
	}
	require.Less(t, made, 12)
	require.Zero(t, l.Len())
}

func TestWhoIsForgottenIsInNoList(t *testing.T) {
	m := newMaker(t)
	var r Routes[int]
	r.Add(m.queue(filter.Filter[int]{Body: func(int) bool { return true }}))
	r.Forget()
	require.Zero(t, r.filters.Len())
	r.Add(m.queue(filter.Filter[int]{Body: func(int) bool { return true }}))
	var a Answer[int]
	require.NoError(t, r.Ask(make([]message.Item[int], 1), &a))
	require.Len(t, a.Rows, 1)
}
