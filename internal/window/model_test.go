package window

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A model is what a window should be, with maps and slices. It runs each step
// on both and compares.
type model struct {
	t *testing.T

	win   Window[int]
	lists [2]List

	entries map[int32]*entry
	held    []int32    // the keys of entries, oldest first
	queued  [2][]int32 // what is in lists
	past    []pass     // every stamp that was ever given
	value   int
	now     int64
}

type entry struct {
	value    int
	stamp    uint64
	list     int // of queued; -1 is none
	waits    bool
	deadline int64
	ranks    []int64 // with the stamp of now
	expiries []int64 // likewise
}

func (e *entry) idle() bool { return e.list < 0 && !e.waits }

type pass struct {
	i     int32
	stamp uint64
}

func newModel(t *testing.T) *model {
	return &model{t: t, entries: make(map[int32]*entry), now: 100}
}

// The operations of a program. Each takes one byte as its argument.
const (
	opAdd = iota
	opAddMany
	opRemove
	opRemoveMany
	opRemoveLast
	opPush
	opPull
	opPop
	opSchedule
	opReschedule
	opUnschedule
	opPopDue
	opPassTime
	opRank
	opRestamp
	opExpire
	ops
)

// run runs a program: pairs of an operation and its argument.
func (m *model) run(program []byte) {
	for k := 0; k+1 < len(program); k += 2 {
		op, arg := program[k]%ops, int(program[k+1])
		m.step(op, arg)
		require.NoError(m.t, m.compare(), "after step %d: op %d, argument %d", k/2, op, arg)
	}
	for _, p := range m.past {
		require.NoError(m.t, m.compareOwner(p))
	}
}

func (m *model) step(op byte, arg int) {
	switch op {
	case opAdd:
		m.add()
	case opAddMany:
		for range arg % 64 {
			m.add()
		}
	case opRemove:
		m.remove(arg)
	case opRemoveMany:
		for k := range arg % 64 {
			m.remove(arg * (k + 7))
		}
	case opRemoveLast:
		for range arg % 64 {
			m.remove(len(m.held) - 1)
		}
	case opPush:
		if i, e, ok := m.pick(arg, (*entry).idle); ok {
			l := arg & 1
			m.win.Push(&m.lists[l], i)
			m.queued[l], e.list = append(m.queued[l], i), l
		}
	case opPull:
		if i, e, ok := m.pick(arg, func(e *entry) bool { return e.list >= 0 }); ok {
			m.pull(i, e)
		}
	case opPop:
		l := arg & 1
		i, ok := m.win.Pop(&m.lists[l])
		require.Equal(m.t, len(m.queued[l]) > 0, ok)
		if ok {
			require.Equal(m.t, m.queued[l][0], i)
			m.queued[l], m.entries[i].list = m.queued[l][1:], -1
		}
	case opSchedule:
		if i, e, ok := m.pick(arg, (*entry).idle); ok {
			m.schedule(i, e, m.now+int64(arg%16))
		}
	case opReschedule:
		if i, e, ok := m.pick(arg, func(e *entry) bool { return e.waits }); ok {
			m.win.Unschedule(i)
			m.schedule(i, e, m.now+int64(arg%16))
		}
	case opUnschedule:
		if i, e, ok := m.pick(arg, func(e *entry) bool { return e.waits }); ok {
			m.win.Unschedule(i)
			e.waits = false
		}
	case opPopDue:
		m.popDue()
	case opPassTime:
		m.now += int64(arg % 8)
	case opRank:
		if i, e, ok := m.pick(arg, func(*entry) bool { return true }); ok {
			rank := int64(arg*37%256) - 128
			m.win.Rank(i, rank)
			e.ranks = append(e.ranks, rank)
		}
	case opRestamp:
		if i, e, ok := m.pick(arg, func(e *entry) bool { return !e.waits }); ok {
			e.stamp, e.ranks, e.expiries = m.win.Restamp(i), nil, nil
			m.given(i, e.stamp)
		}
	case opExpire:
		if i, e, ok := m.pick(arg, func(*entry) bool { return true }); ok {
			at := m.now + int64(arg*37%16) - 8
			m.win.SetExpiry(i, at)
			e.expiries = append(e.expiries, at)
		}
	}
}

// pick returns an entry that fits, at or after the place that arg says.
func (m *model) pick(arg int, fits func(*entry) bool) (int32, *entry, bool) {
	for k := range m.held {
		i := m.held[(arg+k)%len(m.held)]
		if e := m.entries[i]; fits(e) {
			return i, e, true
		}
	}
	return 0, nil, false
}

func (m *model) add() {
	m.value++
	i := m.win.Add(m.value)
	require.NotContains(m.t, m.entries, i, "Add returned an entry that is held")
	e := &entry{value: m.value, stamp: m.win.Meta(i).Stamp, list: -1}
	require.Equal(m.t, Meta{Stamp: e.stamp}, *m.win.Meta(i))
	m.entries[i], m.held = e, append(m.held, i)
	m.given(i, e.stamp)
	// What belongs to the owner is cleared for the next one, and kept until then.
	meta := m.win.Meta(i)
	meta.State, meta.Passes, meta.Spent = uint8(m.value), 1, 2
}

// given notes a stamp, which is above all that were given before.
func (m *model) given(i int32, stamp uint64) {
	if n := len(m.past); n > 0 {
		require.Greater(m.t, stamp, m.past[n-1].stamp)
	}
	require.NotZero(m.t, stamp)
	m.past = append(m.past, pass{i, stamp})
}

func (m *model) remove(at int) {
	if len(m.held) == 0 {
		return
	}
	at %= len(m.held)
	i := m.held[at]
	switch e := m.entries[i]; {
	case e.list >= 0:
		m.pull(i, e)
	case e.waits:
		m.win.Unschedule(i)
	}
	m.win.Remove(i)
	delete(m.entries, i)
	m.held = slices.Delete(m.held, at, at+1)
}

func (m *model) pull(i int32, e *entry) {
	m.win.Pull(&m.lists[e.list], i)
	k := slices.Index(m.queued[e.list], i)
	m.queued[e.list] = slices.Delete(m.queued[e.list], k, k+1)
	e.list = -1
}

func (m *model) schedule(i int32, e *entry, at int64) {
	m.win.Schedule(i, at)
	e.waits, e.deadline = true, at
}

func (m *model) popDue() {
	at, due := m.nextDue()
	due = due && at <= m.now
	i, ok := m.win.PopDue(m.now)
	require.Equal(m.t, due, ok)
	if !ok {
		return
	}
	e := m.entries[i]
	require.NotNil(m.t, e, "PopDue returned a free entry")
	require.True(m.t, e.waits, "PopDue returned an entry that does not wait")
	require.Equal(m.t, at, e.deadline, "PopDue did not return the earliest")
	e.waits = false
}

func (m *model) nextDue() (at int64, ok bool) {
	for _, e := range m.entries {
		if e.waits && (!ok || e.deadline < at) {
			at, ok = e.deadline, true
		}
	}
	return at, ok
}

func (m *model) lowest() (rank int64, ok bool) {
	return m.least(func(e *entry) []int64 { return e.ranks })
}

func (m *model) firstExpiry() (at int64, ok bool) {
	return m.least(func(e *entry) []int64 { return e.expiries })
}

// least returns the least of all that of gives for the entries.
func (m *model) least(of func(e *entry) []int64) (least int64, ok bool) {
	for _, e := range m.entries {
		for _, k := range of(e) {
			if !ok || k < least {
				least, ok = k, true
			}
		}
	}
	return least, ok
}

// compare checks the window's invariants and compares all that it answers.
func (m *model) compare() error {
	if err := check(&m.win, &m.lists[0], &m.lists[1]); err != nil {
		return err
	}
	if m.win.Len() != len(m.held) {
		return fmt.Errorf("Len is %d, it should be %d", m.win.Len(), len(m.held))
	}
	for i, e := range m.entries {
		meta := m.win.Meta(i)
		if *m.win.At(i) != e.value || meta.Stamp != e.stamp || meta.State != uint8(e.value) || meta.Passes != 1 || meta.Spent != 2 {
			return fmt.Errorf("entry %d is %d, %+v; it should be %+v", i, *m.win.At(i), *meta, *e)
		}
		if e.waits && meta.Deadline != e.deadline {
			return fmt.Errorf("entry %d waits until %d, it should be %d", i, meta.Deadline, e.deadline)
		}
	}
	for k := range m.lists {
		var got []int32
		for at := m.lists[k].first; at != 0; at = m.win.Meta(at - 1).next {
			got = append(got, at-1)
		}
		if !slices.Equal(got, m.queued[k]) {
			return fmt.Errorf("list %d is %v, it should be %v", k, got, m.queued[k])
		}
		first, ok := m.lists[k].First()
		if ok != (len(got) > 0) || ok && first != got[0] {
			return fmt.Errorf("list %d begins with %d, %v", k, first, ok)
		}
	}
	wantAt, wantDue := m.nextDue()
	if at, ok := m.win.NextDue(); ok != wantDue || at != wantAt {
		return fmt.Errorf("NextDue is %d, %v; it should be %d, %v", at, ok, wantAt, wantDue)
	}
	wantRank, wantRanked := m.lowest()
	i, rank, ok := m.win.Lowest()
	if ok != wantRanked || rank != wantRank || ok && (m.entries[i] == nil || !slices.Contains(m.entries[i].ranks, rank)) {
		return fmt.Errorf("Lowest is %d with %d, %v; it should have %d, %v", i, rank, ok, wantRank, wantRanked)
	}
	wantExpiry, wantExpires := m.firstExpiry()
	i, at, ok := m.win.FirstExpiry()
	if ok != wantExpires || at != wantExpiry || ok && (m.entries[i] == nil || !slices.Contains(m.entries[i].expiries, at)) {
		return fmt.Errorf("FirstExpiry is %d at %d, %v; it should be at %d, %v", i, at, ok, wantExpiry, wantExpires)
	}
	return m.compareOwners()
}

// compareOwners compares some of the stamps that were given, the last ones and
// an even choice of the others. At its end a program compares all.
func (m *model) compareOwners() error {
	step := 1 + len(m.past)/32
	for k := 0; k < len(m.past); k += step {
		if err := m.compareOwner(m.past[k]); err != nil {
			return err
		}
	}
	for _, p := range m.past[max(0, len(m.past)-8):] {
		if err := m.compareOwner(p); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) compareOwner(p pass) error {
	e, held := m.entries[p.i]
	if m.win.Holds(p.i) != held {
		return fmt.Errorf("Holds(%d) is %v", p.i, !held)
	}
	if owns := held && e.stamp == p.stamp; m.win.Owns(p.i, p.stamp) != owns {
		return fmt.Errorf("Owns(%d, %d) is %v", p.i, p.stamp, !owns)
	}
	if m.win.Owns(p.i, 0) {
		return fmt.Errorf("Owns(%d, 0) is true", p.i)
	}
	return nil
}

func TestAWindowFollowsItsModel(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			program := make([]byte, 500)
			for k := range program {
				program[k] = byte(r.UintN(256))
			}
			newModel(t).run(program)
		})
	}
}

// Programs that favour one operation reach states that an even choice of
// operations does not: a window that grows, one that shrinks, a long schedule.
func TestAWindowFollowsItsModelWhenOneOperationIsFrequent(t *testing.T) {
	for favourite := range byte(ops) {
		t.Run(fmt.Sprintf("op %d", favourite), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(favourite), 3))
			program := make([]byte, 0, 240)
			for len(program) < cap(program) {
				op := favourite
				if r.IntN(3) > 0 {
					op = byte(r.IntN(ops))
				}
				program = append(program, op, byte(r.UintN(256)))
			}
			newModel(t).run(program)
		})
	}
}

// repeat is n times the same steps.
func repeat(n int, steps ...byte) []byte { return slices.Repeat(steps, n) }

func FuzzWindow(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{opAdd, 0, opRemove, 0, opAdd, 0})
	// Chunks are filled, given back in another order, and made anew.
	f.Add([]byte{opAddMany, 63, opAddMany, 63, opRemoveMany, 63, opRemoveLast, 63, opAddMany, 40, opRemoveMany, 63})
	// One entry in each of some chunks.
	f.Add(slices.Concat([]byte{opAddMany, 63}, repeat(30, opRemove, 1), repeat(20, opRemove, 5, opAdd, 0)))
	// Lists: push, pull from the middle and the ends, pop.
	f.Add(slices.Concat([]byte{opAddMany, 9}, repeat(6, opPush, 0), repeat(3, opPush, 1),
		[]byte{opPull, 4, opPull, 0, opRestamp, 2, opPull, 5}, repeat(5, opPop, 0, opPop, 1)))
	// Deadlines in order, in reverse, and equal ones; then time passes.
	f.Add(slices.Concat([]byte{opAddMany, 20, opSchedule, 1, opSchedule, 2, opSchedule, 15, opSchedule, 14, opSchedule, 14,
		opReschedule, 3, opReschedule, 3, opUnschedule, 1}, repeat(6, opPassTime, 3, opPopDue, 0, opPopDue, 0)))
	// The same entry is scheduled over and over, out of order.
	f.Add(slices.Concat([]byte{opAddMany, 2, opSchedule, 15}, repeat(80, opSchedule, 4, opUnschedule, 4)))
	// Ranks that stop to count, more than a heap keeps without looking.
	f.Add(slices.Concat([]byte{opAddMany, 4}, repeat(80, opRank, 1, opRank, 6, opRestamp, 1), []byte{opRemove, 0}))
	// Expiries likewise.
	f.Add(slices.Concat([]byte{opAddMany, 4}, repeat(80, opExpire, 1, opExpire, 6, opRestamp, 1, opPassTime, 3), []byte{opRemove, 0}))
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 2000 {
			return // too long to be run quickly
		}
		newModel(t).run(program)
	})
}
