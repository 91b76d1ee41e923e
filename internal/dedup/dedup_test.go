package dedup

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnIDIsRememberedForTheWindow(t *testing.T) {
	d := New(10, 100)
	require.False(t, 0 < d.Until("a"))
	d.Remember("a", 5)
	require.True(t, 5 < d.Until("a"))
	require.True(t, 14 < d.Until("a"))
	require.False(t, 15 < d.Until("a"))
	require.False(t, 5 < d.Until("b"))
	require.Equal(t, 1, d.Len())
	d.Expire(14)
	require.Equal(t, 1, d.Len())
	d.Expire(15)
	require.Zero(t, d.Len())
	d.Remember("a", math.MaxInt64-5) // the window ends with time
	require.True(t, math.MaxInt64-1 < d.Until("a"))
}

func TestTheOldestIsForgottenForWantOfRoom(t *testing.T) {
	d := New(10, 2)
	for k, id := range []string{"a", "b", "c"} {
		d.Remember(id, int64(k))
	}
	require.False(t, 2 < d.Until("a"))
	require.True(t, 2 < d.Until("b") && 2 < d.Until("c"))
	require.EqualValues(t, 1, d.Forgotten())
	d.Remember("d", 11) // b has ended: that is not for want of room
	require.EqualValues(t, 1, d.Forgotten())
	require.Equal(t, 2, d.Len())
}

func TestWhatIsForgottenCostsNothing(t *testing.T) {
	d := New(time.Hour, 100)
	for n := range 5000 {
		d.Remember(strconv.Itoa(n), int64(n))
		require.LessOrEqual(t, len(d.order), 2*100+64)
		require.Len(t, d.until, len(d.order)-d.first)
		for k, r := range d.order {
			require.Equal(t, k < d.first, r == remembered{}, "place %d of %d, the first is at %d", k, len(d.order), d.first)
		}
	}
	require.Equal(t, 100, d.Len())
	require.EqualValues(t, 4900, d.Forgotten())
	d.Expire(math.MaxInt64)
	require.Nil(t, d.until)
	require.Nil(t, d.order)
	d.Remember("a", 0)
	d.Clear()
	require.Nil(t, d.until)
	require.Nil(t, d.order)
	require.Zero(t, d.first)
}

// Of few that come and go little is kept, however many there were.
func TestTheListOfAFewStaysShort(t *testing.T) {
	d := New(10, 1000)
	for n := range 2000 {
		d.Remember(strconv.Itoa(n), int64(n)) // ten at a time
		require.LessOrEqual(t, cap(d.order), 512)
		for _, r := range d.order[len(d.order):cap(d.order)] {
			if r != (remembered{}) {
				t.Fatal("something is kept of what was forgotten")
			}
		}
	}
	require.Equal(t, 10, d.Len())
	now := New(0, 5)
	now.Remember("a", 5)
	require.EqualValues(t, 5, now.Until("a"), "a window of nothing ends at once")
}

func TestHowLongToWait(t *testing.T) {
	d := New(80, 100)
	_, ok := d.Wait(0)
	require.False(t, ok)
	d.Remember("a", 5)
	d.Remember("b", 50)
	for now, want := range map[int64]time.Duration{5: 80, 60: 25, 80: 10, 200: 10} {
		wait, ok := d.Wait(now)
		require.True(t, ok)
		require.Equal(t, want, wait, "at %d", now)
	}
	d.Expire(85)
	wait, _ := d.Wait(85)
	require.Equal(t, time.Duration(45), wait)
}
