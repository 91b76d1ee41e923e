package due

import (
	"go/parser"
	"go/token"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThereIsNoLockClockOrGoroutine(t *testing.T) {
	for _, name := range []string{"due.go", "ranks.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range file.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			require.Contains(t, []string{"fmt", "math", "unsafe"}, path)
		}
	}
}

func TestOfTwoAtOneTimeTheLowerStampIsFirst(t *testing.T) {
	order := []Instant{{1, 5}, {1, 6}, {2, 1}, {2, 2}, {math.MaxInt64, 1}, Never}
	for i, a := range order {
		for j, b := range order {
			require.Equal(t, i < j, a.Before(b), "%v, %v", a, b)
		}
	}
}

// TestTheOrderIsThatOfASortedList: nodes that enter in all orders, leave and enter again come up
// as those of a list that is sorted.
func TestTheOrderIsThatOfASortedList(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		inOrder := rnd.IntN(100) // of hundred, come with the latest instant
		var s Schedule
		var in []*Node
		nodes := make([]Node, 40)
		latest, stamp := int64(0), uint64(0)
		for k := range nodes {
			nodes[k].ID = int32(k)
		}
		for range 600 {
			n := &nodes[rnd.IntN(len(nodes))]
			switch rnd.IntN(4) {
			case 0, 1:
				at := rnd.Int64N(latest+1) + 1
				if rnd.IntN(100) < inOrder {
					at = latest + rnd.Int64N(2) + 1
				}
				latest = max(latest, at)
				stamp++
				want := Instant{at, stamp}
				if n.When.At == 0 {
					in = append(in, n)
				} else if n.When.Before(want) {
					want = n.When
				}
				s.Enter(n, at, stamp)
				require.Equal(t, want, n.When)
			case 2:
				in = slices.DeleteFunc(in, func(m *Node) bool { return m == n })
				s.Leave(n)
				require.Zero(t, n.When.At)
			case 3:
				if first := s.First(); first != nil {
					in = slices.DeleteFunc(in, func(m *Node) bool { return m == first })
					s.Leave(first)
				}
			}
			require.NoError(t, s.Check(len(in)))
			if len(in) == 0 {
				require.Nil(t, s.First())
				continue
			}
			first := slices.MinFunc(in, func(a, b *Node) int {
				if a.When.Before(b.When) {
					return -1
				}
				return 1
			})
			require.Same(t, first, s.First())
		}
		for range in {
			s.Leave(s.First())
		}
		require.Equal(t, Schedule{}, s, "nothing of what was in is kept")
		for k := range nodes {
			require.Equal(t, Node{ID: int32(k), When: Instant{0, nodes[k].When.Stamp}}, nodes[k])
		}
	}
}

func TestWhatComesInOrderNeedsNoHeap(t *testing.T) {
	var s Schedule
	nodes := make([]Node, 1000)
	for k := range nodes {
		s.Enter(&nodes[k], int64(k/10+1), uint64(k))
	}
	require.Zero(t, s.Outside())
	s.Enter(new(Node), 5, 1)
	require.Positive(t, s.Outside())
}

// A schedule in which something is wrong says what.
func TestACheckFindsWhatIsWrong(t *testing.T) {
	for says, spoil := range map[string]func(s *Schedule, line, heap []*Node){
		"2 does not belong where it stands in the line": func(_ *Schedule, line, _ []*Node) { line[1].When.At = 0 },
		"1 does not belong where it stands in the line": func(_ *Schedule, line, _ []*Node) { line[0].at = 1 },
		"3 does not belong where it stands in the line": func(_ *Schedule, line, _ []*Node) { line[2].prev = line[0] },
		"2 stands before 3, which is due earlier":       func(_ *Schedule, line, _ []*Node) { line[1].When.At = 35 },
		"the line does not end with its last":           func(s *Schedule, line, _ []*Node) { s.last = line[1] },
		"4 does not belong where it is in the heap":     func(_ *Schedule, _, heap []*Node) { heap[0].When.At = 0 },
		"5 does not belong where it is in the heap":     func(_ *Schedule, _, heap []*Node) { heap[1].at = 3 },
		"6 does not belong where it is in the heap":     func(_ *Schedule, _, heap []*Node) { heap[2].When.At = 1 },
		"5 are scheduled, 6 say so":                     func(s *Schedule, _, heap []*Node) { s.heap = s.heap[:2] },
	} {
		var s Schedule
		var all []*Node
		for k, at := range []int64{10, 20, 30, 15, 16, 17} { // the last three are out of order
			n := &Node{ID: int32(k + 1)}
			s.Enter(n, at, uint64(k))
			all = append(all, n)
		}
		require.NoError(t, s.Check(6))
		spoil(&s, all[:3], all[3:])
		require.EqualError(t, s.Check(6), says)
	}
}

func TestRanksAreAQueueThatForgetsWhatItDropped(t *testing.T) {
	var r Ranks
	var want []Ranked
	for k := range 10_000 {
		r.Add(int32(k%7), uint64(k))
		want = append(want, Ranked{int32(k % 7), uint64(k)})
		if len(want) > 50 {
			require.Equal(t, want[0], r.First())
			r.Drop()
			want = want[1:]
		}
		if k%97 == 0 {
			require.Equal(t, want, r.All())
		}
	}
	require.LessOrEqual(t, r.Bytes(), 16*256)
	require.Equal(t, 16*cap(r.all), r.Bytes())
	var long Ranks // of which many wait
	for k := range 100_000 {
		if long.Add(1, uint64(k)); k >= 300 {
			long.Drop()
		}
	}
	require.LessOrEqual(t, long.Bytes(), 16*2048)
}
