package message

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// told is an attempt with an error's text and a stack.
func told(text, stack string) Kept {
	return Kept{Attempt: Attempt{Cause: Failed, Err: errors.New(text), Stack: stack}, Text: text}
}

func textsOf(as []Kept) (n int) {
	for _, a := range as {
		n += len(a.Text) + len(a.Stack)
	}
	return n
}

// Only so many texts are kept: of the oldest it is said how long they were.
func TestTheTextsOfAHistoryAreBounded(t *testing.T) {
	text, stack := strings.Repeat("t", 4000), strings.Repeat("s", 4000)
	var h *History
	for n := range 100 {
		h = h.With(told(text, stack))
		require.LessOrEqual(t, h.texts, mostTexts)
		require.Equal(t, textsOf(h.Kept()), h.texts, "after %d", n+1)
		if 8000*(n+1) <= mostTexts {
			require.Equal(t, 8000*(n+1), h.texts, "nothing is shortened while there is room")
		}
	}
	as := h.Kept()
	require.Len(t, as, 100)
	require.Equal(t, []string{"... (4000 bytes left out)", "... (4000 bytes left out)"}, []string{as[0].Text, as[0].Stack})
	require.EqualError(t, as[0].Err, as[0].Text)
	require.Equal(t, []string{text, stack}, []string{as[99].Text, as[99].Stack})
	require.Greater(t, h.texts, mostTexts-8000, "no more is left out than has to be")

	again := Restored(as)
	require.Equal(t, h.texts, again.texts)
	require.Equal(t, h.Attempts(1), again.Attempts(1))
	require.LessOrEqual(t, again.With(told(text, stack)).texts, mostTexts)
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	as := []Kept{told(text(100), text(200)), told(text(100), text(200)), told(text(100), text(200))}
	for name, row := range map[string]struct {
		each, total int
		lens        []int // of text and stack of each
	}{
		"all has room":                              {200, 900, []int{100, 200, 100, 200, 100, 200}},
		"each is shortened":                         {150, 900, []int{100, 102 + 23, 100, 102 + 23, 100, 102 + 23}},
		"the first stack goes":                      {200, 899, []int{100, 24, 100, 200, 100, 200}},
		"the first stack is enough":                 {200, 724, []int{100, 24, 100, 200, 100, 200}},
		"and its text":                              {200, 723, []int{24, 24, 100, 200, 100, 200}},
		"and the second stack":                      {200, 647, []int{24, 24, 100, 24, 100, 200}},
		"all go, though their notes have no room":   {200, 1, []int{24, 24, 24, 24, 24, 24}},
		"exactly what is left if the first are not": {200, 648, []int{24, 24, 100, 200, 100, 200}},
	} {
		t.Run(name, func(t *testing.T) {
			out, n := Bounded(as, 10, row.each, row.total)
			var lens []int
			for _, a := range out {
				lens = append(lens, len(a.Text), len(a.Stack))
				require.EqualError(t, a.Err, a.Text)
			}
			require.Equal(t, row.lens, lens)
			require.Equal(t, textsOf(out), n)
		})
	}
	require.Len(t, as[0].Stack, 200, "it changes nothing")
	out, n := Bounded(nil, 10, 10, 10)
	require.Empty(t, out)
	require.Zero(t, n)
	kept, _ := Bounded(as[:1], 10, 200, 900)
	require.Same(t, as[0].Err, kept[0].Err, "an error whose text is short is kept as it is")
}

// What dead-letter queues did is left out first, the oldest first, then the middle; the
// newest stays.
func TestOfManyAttemptsThoseOfDeadLettersGoFirst(t *testing.T) {
	list := func(kinds string) (as []Kept) {
		for k, c := range kinds {
			as = append(as, Kept{Attempt: Attempt{Number: k + 1}, Letter: c == 'd'})
		}
		return as
	}
	for name, row := range map[string]struct {
		kinds string
		most  int
		want  []int
	}{
		"few":                    {"qdq", 3, []int{1, 2, 3}},
		"one letter too many":    {"qdqdq", 4, []int{1, 3, 4, 5}},
		"two letters too many":   {"qdqdq", 3, []int{1, 3, 5}},
		"the middle too":         {"qdqqqq", 4, []int{1, 3, 5, 6}},
		"no letters":             {"qqqqqq", 4, []int{1, 2, 5, 6}},
		"the newest is a letter": {"qqqd", 3, []int{1, 3, 4}},
		"all are letters":        {"dddd", 2, []int{3, 4}},
		"all but the newest":     {"dddd", 1, []int{4}},
	} {
		t.Run(name, func(t *testing.T) {
			as := list(row.kinds)
			var got []int
			for _, a := range cut(as, row.most) {
				got = append(got, a.Number)
			}
			require.Equal(t, row.want, got)
			require.Equal(t, list(row.kinds), as, "it changes nothing")
		})
	}
}

func TestAHistoryIsCutOnceItIsTooLong(t *testing.T) {
	var h *History
	for n := 1; n <= mostAttempts+slack; n++ {
		h = h.With(attempt(Failed))
		if n < mostAttempts+slack {
			require.Len(t, h.Kept(), n, "it is copied seldom")
		}
	}
	require.Len(t, h.Kept(), mostAttempts)

	c, err := NewClock()
	require.NoError(t, err)
	o := &Origin{Clock: c, Queue: "q"}
	for timedOut, want := range map[int]int{mostAttempts + slack - 1: mostAttempts + slack - 1, mostAttempts + slack: mostAttempts, mostAttempts + slack + 1: mostAttempts} {
		var g *History
		for range timedOut {
			g = Together(o, Group{At: 2, Start: 1, Before: g})
		}
		require.Len(t, g.Of(1).Kept(), want)
		require.Len(t, g.Attempts(1), mostAttempts)
	}
}

// Releases that were left out of a long history are counted by the numbers of the others.
func TestReleasesThatAreNotKeptCountToo(t *testing.T) {
	release := func(n int, err error) Kept { return Kept{Attempt: Attempt{Number: n, Cause: Released, Err: err}} }
	busy := errors.New("busy")
	require.Equal(t, 2+7, Restored([]Kept{release(1, busy), release(9, busy)}).Releases(100))
	require.Equal(t, 3+7+10, Restored([]Kept{release(1, busy), release(9, busy), release(20, busy)}).Releases(100))
	require.Equal(t, 1+7, Restored([]Kept{release(1, nil), release(9, busy)}).Releases(100))
	require.Equal(t, 1, Restored([]Kept{{Attempt: Attempt{Number: 1, Cause: Failed}}, release(9, busy)}).Releases(100))
}

func TestALetterDiedWhenItLeftItsQueue(t *testing.T) {
	at, queue := (*History)(nil).Died()
	require.Zero(t, at)
	require.Empty(t, queue)
	start := time.Unix(100, 0)
	h := Restored([]Kept{
		{Attempt: Attempt{Queue: "first", Start: start, Elapsed: time.Second}},
		{Attempt: Attempt{Queue: "orders", Start: start.Add(time.Minute), Elapsed: 2 * time.Second}},
		{Attempt: Attempt{Queue: "orders/dead", Start: start.Add(time.Hour), Elapsed: time.Second}, Letter: true},
	})
	at, queue = h.Died()
	require.True(t, start.Add(time.Minute+2*time.Second).Equal(at))
	require.Equal(t, "orders", queue)
}
