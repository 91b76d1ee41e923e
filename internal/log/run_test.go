package log

import (
	"testing"
	"weak"

	"github.com/stretchr/testify/require"
)

// Room is made for some elements together, up to the end of a segment.
func TestRoomForSeveralIsThatOfOneSegment(t *testing.T) {
	l := New[int64](16)
	c := l.Cursor()
	var got []int
	for want := 100; l.Head() < 60; want = 5 {
		room := l.Extend(want)
		require.LessOrEqual(t, len(room), want)
		got = append(got, len(room))
		for k := range room {
			room[k] = value(l.Head() - int64(len(room)) + int64(k))
		}
	}
	require.Equal(t, []int{8, 5, 5, 5, 1, 5, 5, 5, 1, 5, 5, 5, 1, 5}, got[:14])
	require.Zero(t, l.Published())
	l.Publish()
	check(t, l)
	for pos := range l.Head() {
		require.Equal(t, value(pos), *c.Next())
	}
	l.Append(1)
	require.Len(t, l.Extend(2), 2, "behind what was appended")
}

// A run is what stands together from the cursor on, and the cursor stays until it is stepped.
func TestARunIsWhatStandsTogether(t *testing.T) {
	l := New[int64](8)
	c := l.Cursor()
	appendN(l, 20)
	l.Publish()
	var got []int64
	for _, row := range []struct{ most, run, step int }{{3, 3, 3}, {10, 5, 2}, {3, 3, 3}, {1, 1, 0}, {100, 8, 8}, {2, 2, 2}, {2, 2, 2}} {
		run := c.Run(row.most)
		require.Len(t, run, row.run)
		require.Equal(t, value(c.Pos()), run[0])
		got = append(got, run[:row.step]...)
		c.Step(row.step)
	}
	require.EqualValues(t, 20, c.Pos())
	for pos, v := range got {
		require.Equal(t, value(int64(pos)), v)
	}
	checkCursor(t, l, c)
}

func TestALogKnowsWhetherItIsRead(t *testing.T) {
	l := New[int64](8)
	require.False(t, l.Read())
	a, b := l.Cursor(), l.Cursor()
	a.Close()
	a.Close()
	require.True(t, l.Read())
	b.Close()
	require.False(t, l.Read())
}

// filled appends pointers, each to an int of its own.
func filled(l *Log[*int], n int) (refs []weak.Pointer[int]) {
	for range n {
		p := new(int)
		l.Append(p)
		refs = append(refs, weak.Make(p))
	}
	l.Publish()
	return refs
}

// cleared counts the elements of the segment that hold nothing.
func cleared(s *segment[*int]) (n int) {
	for _, e := range s.items {
		if e == nil {
			n++
		}
	}
	return n
}

// What all cursors rest behind is cleared at once, though the segment is read still.
func TestWhatAllAreDoneWithIsCleared(t *testing.T) {
	l := New[*int](8)
	a, b := l.Cursor(), l.Cursor()
	require.True(t, a.Resting())
	filled(l, 8)
	a.Run(1)
	b.Run(1)
	s := a.seg
	a.Step(5)
	require.False(t, a.Resting())
	a.Rest()
	require.True(t, a.Resting())
	require.Zero(t, cleared(s), "the other does not rest in it")
	b.Step(2)
	b.Rest()
	require.Equal(t, 2, cleared(s))
	b.Rest()
	require.Equal(t, 2, cleared(s))
	b.Step(5)
	require.Equal(t, 2, cleared(s), "it has not rested there")
	b.Rest()
	require.Equal(t, 5, cleared(s))
	a.Step(1)
	a.Rest()
	require.Equal(t, 6, cleared(s))
	require.NotNil(t, s.items[6])
	require.NotNil(t, s.items[7])
	b.Close()
	require.Equal(t, 6, cleared(s))
	a.Step(1)
	a.Rest()
	require.Equal(t, 7, cleared(s), "of the one that is left")
	require.True(t, new(Cursor[int]).Resting(), "the zero Cursor")
	new(Cursor[int]).Rest()
}

// One that goes takes its rest along: what only it had not passed is cleared then.
func TestACursorThatClosesKeepsNothing(t *testing.T) {
	l := New[*int](8)
	a, b, c := l.Cursor(), l.Cursor(), l.Cursor()
	filled(l, 8)
	for _, x := range []*Cursor[*int]{&a, &b, &c} {
		x.Run(1)
	}
	s := a.seg
	a.Step(4)
	a.Rest()
	b.Step(3)
	b.Rest()
	require.Zero(t, cleared(s))
	c.Close() // it never rested here
	require.Equal(t, 3, cleared(s))
	b.Close()
	require.Equal(t, 4, cleared(s))
}

func TestASegmentHoldsSomeKilobytes(t *testing.T) {
	require.Equal(t, MaxSegment, SegmentOf[byte]())
	require.Equal(t, 128, SegmentOf[[64]byte]())
	require.Equal(t, 1, SegmentOf[[SegmentBytes]byte]())
	require.Equal(t, 1, SegmentOf[[SegmentBytes + 1]byte]())
}

// A cursor of one log that all have left gives its segment to others, empty.
func TestASegmentIsGivenBackEmpty(t *testing.T) {
	l := New[*int](4)
	a, b := l.Cursor(), l.Cursor()
	filled(l, 8)
	a.Run(1)
	s := a.seg
	a.SkipTo(6)
	require.Zero(t, cleared(s), "the other stands before it")
	b.SkipTo(6)
	require.Equal(t, 4, cleared(s))
	require.Nil(t, s.next)
	require.Same(t, a.seg, b.seg)
}
