package window

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// An ordered is a window with a list that is in the order of its values, and how often
// the key of an entry was asked for.
type ordered struct {
	w     Window[uint64]
	l     List
	asked int
}

func (o *ordered) put(v uint64) int32 {
	i := o.w.Add(v)
	o.w.PushInOrder(&o.l, o.w.Order(), i, func(i int32) uint64 { o.asked++; return *o.w.At(i) })
	return i
}

func (o *ordered) values() (vs []uint64) {
	for i, ok := o.l.First(); ok; i, ok = o.w.Next(i) {
		vs = append(vs, *o.w.At(i))
	}
	return vs
}

// checkOrder checks the marks of a window.
func checkOrder[E any](w *Window[E]) error {
	o := &w.order
	if !slices.IsSortedFunc(o.marks, func(a, b mark) int { return cmp.Compare(a.key, b.key) }) {
		return fmt.Errorf("marks are not in order: %v", o.marks)
	}
	if len(o.marks) > max(o.limit, 64) {
		return fmt.Errorf("%d marks, the limit is %d", len(o.marks), o.limit)
	}
	return nil
}

func TestWhatIsPushedInOrderStandsInOrder(t *testing.T) {
	for seed := range uint64(10) {
		var (
			o     ordered
			other List
			want  []uint64
			at    = map[uint64]int32{}
			r     = rand.New(rand.NewPCG(seed, 11))
			run   = uint64(0) // some come one after the other
		)
		for range 2000 {
			switch v := uint64(r.IntN(1 << 20)); {
			case len(want) > 0 && r.IntN(3) == 0: // one leaves for good, from anywhere or from the front
				k := 0
				if r.IntN(2) == 0 {
					k = r.IntN(len(want))
				}
				v = want[k]
				o.w.Pull(&o.l, at[v])
				if r.IntN(2) == 0 {
					o.w.Remove(at[v])
				} else { // it is in another list
					o.w.Restamp(at[v])
					o.w.Push(&other, at[v])
				}
				want = slices.Delete(want, k, k+1)
			default:
				if r.IntN(2) == 0 {
					v = run + 1
				}
				run = v
				k, found := slices.BinarySearch(want, v)
				if found {
					continue
				}
				at[v] = o.put(v)
				want = slices.Insert(want, k, v)
			}
			require.NoError(t, checkOrder(&o.w))
		}
		require.Equal(t, want, o.values())
		require.NoError(t, check(&o.w, &o.l, &other))
	}
}

// How often the key of an entry is asked for says how many are looked at.
func TestWhatIsPushedInOrderFindsItsPlaceSoon(t *testing.T) {
	const n = 6_000
	r := rand.New(rand.NewPCG(1, 12))
	blocks := func() (vs []uint64) { // blocks of 64 that are in order, in any order
		for _, b := range r.Perm(n / 64) {
			for k := range 64 {
				vs = append(vs, uint64(64*b+k))
			}
		}
		return vs
	}
	any := func() (vs []uint64) {
		for _, k := range r.Perm(n) {
			vs = append(vs, uint64(k))
		}
		return vs
	}
	up := func() (vs []uint64) {
		for k := range uint64(n) {
			vs = append(vs, k)
		}
		return vs
	}
	for _, c := range []struct {
		name string
		vs   []uint64
		each int // entries that are looked at for each that is pushed
	}{
		{"in order", up(), 3},
		{"in reverse order", func() []uint64 { vs := up(); slices.Reverse(vs); return vs }(), 3},
		{"in blocks", blocks(), 5},
		{"in any order", any(), near + 2*far},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o ordered
			for _, v := range c.vs {
				o.put(v)
			}
			require.Len(t, o.values(), len(c.vs))
			require.True(t, slices.IsSorted(o.values()))
			require.LessOrEqual(t, o.asked, c.each*len(c.vs), "%d each", o.asked/len(c.vs))
			t.Logf("%.1f each, %d marks", float64(o.asked)/float64(len(c.vs)), len(o.w.order.marks))
		})
	}
}

// Entries come at any place for ever, and leave from the front.
func TestTheMarksOfAListAreBounded(t *testing.T) {
	var o ordered
	r := rand.New(rand.NewPCG(1, 13))
	next := uint64(0)
	for range 60_000 {
		next += 1 << 10
		o.put(next - uint64(r.IntN(1<<20)))
		if o.l.Len() > 2000 {
			i, _ := o.w.Pop(&o.l)
			o.w.Remove(i)
		}
	}
	require.LessOrEqual(t, len(o.w.order.marks), 200)
	require.LessOrEqual(t, o.asked/60_000, near+2*far)
	for o.l.Len() > 0 {
		i, _ := o.w.Pop(&o.l)
		o.w.Remove(i)
	}
	require.Nil(t, o.w.order.marks, "an empty window keeps marks")
}

func TestPushInOrderAllocatesNothingForWhatComesInOrder(t *testing.T) {
	var w Window[uint64]
	var l List
	var seq uint64
	push := func() {
		for range 64 {
			seq++
			i := w.Add(seq)
			w.PushInOrder(&l, w.Order(), i, func(i int32) uint64 { return *w.At(i) })
		}
		for l.Len() > 0 {
			i, _ := w.Pop(&l)
			w.Remove(i)
		}
	}
	push()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	push()
	runtime.ReadMemStats(&after)
	// What there are more of than are kept to be used again is made anew.
	require.LessOrEqual(t, after.Mallocs-before.Mallocs, uint64(64+10))
}
