package slots

import (
	"go/parser"
	"go/token"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"unsafe"

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

// The memory of a table is that of the chunks in use.
func TestMemoryFollowsWhatIsInUse(t *testing.T) {
	var s Table[*int]
	require.Zero(t, s.Bytes())
	chunkBytes := int(unsafe.Sizeof(chunk[*int]{}))
	for k := range 10 * chunkLen {
		s.Add(Slot[*int]{Lease: &k})
	}
	full := s.Bytes()
	require.GreaterOrEqual(t, full, 10*chunkBytes+10*8)
	require.Less(t, full, 11*chunkBytes)
	for k := range int32(9 * chunkLen) {
		s.Remove(k)
	}
	lists := 8*cap(s.chunks) + 4*cap(s.roomy) + 4*cap(s.holes)
	require.Positive(t, cap(s.holes))
	require.Equal(t, 2*chunkBytes+lists, s.Bytes(), "the last one that was emptied waits for others")
	for k := range int32(chunkLen) {
		s.Remove(9*chunkLen + k)
	}
	require.Zero(t, s.Bytes(), "it begins anew")
	require.EqualValues(t, 0, s.Add(Slot[*int]{Lease: new(int)}))
	s.Remove(0)
	require.NotZero(t, s.Bytes(), "one chunk alone stays")
	require.EqualValues(t, 0, s.Add(Slot[*int]{Lease: new(int)}))
}

// A table in which something is wrong says what.
func TestACheckFindsWhatIsWrong(t *testing.T) {
	table := func() *Table[*int] {
		s := new(Table[*int])
		for range 4 * chunkLen {
			s.Add(Slot[*int]{Lease: new(int)})
		}
		for k := range int32(2*chunkLen + 5) {
			s.Remove(k) // of the chunks one is empty, one is gone, one has room and one is full
		}
		require.NoError(t, s.Check())
		return s
	}
	for says, spoil := range map[string]func(s *Table[*int]){
		"slot 40 is free: false":                               func(s *Table[*int]) { s.At(40).Lease = nil },
		"slot 3 is free: true":                                 func(s *Table[*int]) { s.At(3).Base = 1 },
		"slot 33 is free: true":                                func(s *Table[*int]) { s.At(33).Lease = new(int) },
		"2 chunks have room and 1 are gone, known are 3 and 1": func(s *Table[*int]) { s.roomy = append(s.roomy, 0) },
		"2 chunks have room and 1 are gone, known are 2 and 0": func(s *Table[*int]) { s.holes = nil },
		"chunk 3 has no room":                                  func(s *Table[*int]) { s.roomy[0] = 3 },
		"chunk 1 has no room":                                  func(s *Table[*int]) { s.roomy[0] = 1 },
	} {
		s := table()
		spoil(s)
		require.ErrorContains(t, s.Check(), says)
	}
}
