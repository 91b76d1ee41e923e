package slots

import (
	"go/parser"
	"go/token"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThereIsNoLockClockOrGoroutine(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "slots.go", nil, parser.ImportsOnly)
	require.NoError(t, err)
	for _, i := range file.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		require.Contains(t, []string{"fmt", "math/bits", "unsafe"}, path)
	}
}

// TestASlotIsFoundUntilItIsGivenBack compares a table that fills and empties over and over with
// a map.
func TestASlotIsFoundUntilItIsGivenBack(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var s Table[*int]
		if seed%2 == 0 {
			s.Begin(new(First[*int]))
		}
		want, where, last, ever := map[int32]uint64{}, map[int32]*Slot[*int]{}, uint64(0), int32(0)
		for step := range 3000 {
			if grow := step/500%2 == 0; rnd.IntN(10) < 7 == grow {
				last++
				number := s.Add(Slot[*int]{Base: last, Lease: new(int)})
				if _, ok := want[number]; ok {
					t.Fatalf("slot %d is given out twice", number)
				}
				want[number], where[number] = last, s.At(number)
				ever = max(ever, number)
			} else if len(want) > 0 {
				number := rnd.Int32N(ever + 1)
				for ; want[number] == 0; number = (number + 1) % (ever + 1) {
				}
				s.Remove(number)
				delete(want, number)
			}
			if step%64 != 0 {
				continue
			}
			require.NoError(t, s.Check())
			got := map[int32]uint64{}
			before := int32(-1)
			for number, v := range s.All {
				require.Greater(t, number, before)
				require.True(t, where[number] == v, "a slot stays where it is")
				got[number], before = v.Base, number
			}
			require.Equal(t, want, got)
			for number := range ever + 1 {
				switch v, ok := want[number]; {
				case ok:
					require.True(t, s.At(number).Base == v && s.Find(number) == s.At(number))
				case s.Find(number) != nil:
					require.True(t, *s.Find(number) == Slot[*int]{})
				}
			}
		}
		for _, number := range slices.Sorted(maps.Keys(want)) {
			s.Remove(number)
		}
		require.NoError(t, s.Check())
		require.LessOrEqual(t, s.Bytes(), 2<<10, "of the chunks one is left")
		require.Nil(t, s.Find(1<<30))
	}
}

func TestWalkingStopsWhereItIsToldTo(t *testing.T) {
	var s Table[*int]
	for k := range 100 {
		s.Add(Slot[*int]{Lease: &k})
	}
	n := 0
	for number := range s.All {
		if n++; number == 40 {
			break
		}
	}
	require.Equal(t, 41, n)
}

func TestTheFirstChunkIsNoAllocation(t *testing.T) {
	type both struct {
		table Table[*int]
		first First[*int]
	}
	all := make([]both, 10)
	k := 0
	require.Zero(t, testing.AllocsPerRun(len(all)-1, func() {
		s := &all[k]
		k++
		s.table.Begin(&s.first)
		for range chunkLen {
			s.table.Add(Slot[*int]{Lease: &k})
		}
	}))
}
