package keyline

import (
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/window"
)

// TestThereIsNoLockClockOrGoroutine: what the package may import says what it can do.
func TestThereIsNoLockClockOrGoroutine(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "keyline.go", nil, parser.ImportsOnly)
	require.NoError(t, err)
	for _, i := range file.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		require.Contains(t, []string{"iter", "maps", "github.com/gofanout/fanout/internal/window"}, path)
	}
}

func TestAKeyHasALineFromItsFirstMessageToItsLast(t *testing.T) {
	var s Lines
	require.Nil(t, s.Of("a"))
	s.Begin("a", 3)
	s.Begin("b", InFlight)
	require.Equal(t, int32(3), s.Of("a").Head)
	require.Equal(t, InFlight, s.Of("b").Head)
	require.Equal(t, 2, s.Len())
	heads := map[string]int32{}
	for key, l := range s.All() {
		heads[key] = l.Head
	}
	require.Equal(t, map[string]int32{"a": 3, "b": InFlight}, heads)

	s.End("a")
	require.Nil(t, s.Of("a"))
	require.Equal(t, 1, s.Len())
	s.Clear()
	require.Nil(t, s.Of("b"))
	require.Zero(t, s.Len())
}

func TestALineThatIsUsedAgainHasNothingOfThatBefore(t *testing.T) {
	var s Lines
	s.Begin("a", 1)
	var w window.Window[int]
	i := w.Add(1)
	l := s.Of("a")
	w.Push(&l.Waiting, i)
	l.Order = new(window.Order)
	w.Pop(&l.Waiting)
	s.End("a")
	require.Equal(t, &Line{}, s.spare, "the order of a line that has ended is let go of at once")
	s.Begin("b", 2)
	require.Equal(t, &Line{Head: 2}, s.Of("b"))
	s.Begin("c", 4)
	require.Equal(t, &Line{Head: 2}, s.Of("b"), "a line is one key's")
}

func TestOneKeyAfterAnotherAllocatesNothing(t *testing.T) {
	var s Lines
	one := func() {
		s.Begin("a", 1)
		s.End("a")
	}
	one()
	require.Zero(t, testing.AllocsPerRun(100, one))
}

// TestManyKeysLeaveNothingBehind: a map does not shrink, so one that had many lines goes with the last.
func TestManyKeysLeaveNothingBehind(t *testing.T) {
	for n, kept := range map[int]bool{fewLines: true, fewLines + 1: false} {
		var s Lines
		for k := range n {
			s.Begin(strconv.Itoa(k), int32(k))
		}
		for k := range n {
			require.Equal(t, n-k, s.Len())
			s.End(strconv.Itoa(k))
		}
		require.Equal(t, kept, s.lines != nil, "after %d", n)
		s.Rest()
		require.Equal(t, Lines{}, s)
	}
	var s Lines
	s.Begin("a", 1)
	s.Rest()
	require.Equal(t, 1, s.Len(), "what has a line keeps it")
}
