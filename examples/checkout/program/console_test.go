package program

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

func views(depth int) func() snapshot {
	return func() snapshot {
		return snapshot{
			at: time.Now(), published: 10 * depth, all: 1_000_000, waiting: true,
			queues: []queueView{
				{
					Stats: fanout.Stats{Queue: "inventory", InFlight: 8, Failed: 1_000_000, Acked: uint64(100 * depth)},
					held:  held{depth: depth + 8, dead: 1000}, room: "256", most: 256,
				},
			},
		}
	}
}

func TestATerminalIsRedrawnInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		o := newConsole(&out, true)
		o.refresh(views(1))
		lines := strings.Count(out.String(), "\n")
		require.Equal(t, 3, lines)
		o.refresh(views(2)) // too early
		require.Equal(t, lines, strings.Count(out.String(), "\n"))

		out.Reset()
		time.Sleep(o.every)
		o.refresh(views(2))
		require.True(t, strings.HasPrefix(out.String(), "\x1b[3A\r\x1b[J"), "%q", out.String())

		// A line that stays goes above the board.
		out.Reset()
		o.say("hello")
		require.True(t, strings.HasPrefix(out.String(), "\x1b[3A\r\x1b[Jhello\n"), "%q", out.String())
		require.Equal(t, 4, strings.Count(out.String(), "\n"))

		out.Reset()
		o.end()
		require.Equal(t, "\x1b[3A\r\x1b[J", out.String())
		o.say("bye")
		require.True(t, strings.HasSuffix(out.String(), "\x1b[Jbye\n"), "%q", out.String())
	})
}

func TestAPipeGetsALineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		o := newConsole(&out, false)
		for range 35 {
			o.refresh(views(1))
			time.Sleep(100 * time.Millisecond)
		}
		require.Equal(t, 3*2, strings.Count(out.String(), "\n"), out.String())
		require.True(t, strings.HasPrefix(out.String(), "   1.0s  published  10 of 1,000,000, waiting for room\n"+
			"         inventory  100 settled, 100/s; 9 of 256 held; 1,000,000 retried; 1,000 dead\n   2.0s  "), out.String())
		require.NotContains(t, out.String(), "\x1b")
	})
}

// large is a snapshot whose numbers are as long as they get.
func large() snapshot {
	s := views(248)()
	s.published, s.all = 99_999_999, 100_000_000
	q := &s.queues[0]
	q.rate, q.Acked, q.Failed, q.dead, q.InFlight = 999_999, 99_999_999, 9_999_999, 999_999, 10_000
	return s
}

func TestTheBoardFitsATerminal(t *testing.T) {
	o := newConsole(&bytes.Buffer{}, true)
	for width := 40; width <= 200; width++ {
		for _, o.colour = range []bool{false, true} {
			for _, line := range o.board(large(), width) {
				require.Less(t, wide(line), width, "%d columns: %q", width, line)
			}
		}
	}
	require.Contains(t, o.board(large(), 40)[0], "depth", "the first to be shown")
	require.Contains(t, o.board(large(), 80)[0], "a sec.", "at 80 columns all are")
}

func TestLinesInAPipeFitAHundredColumns(t *testing.T) {
	for _, line := range large().lines() {
		require.Less(t, len("   1.0s  "+line), 100, line)
	}
	var out bytes.Buffer
	o := newConsole(&out, false)
	o.say("%s", strings.Repeat("    attempt 1: failed after 41.781ms: warehouse: 503 service unavailable, "+strings.Repeat("y", 150)+"\n", 2))
	for line := range strings.Lines(out.String()) {
		require.Less(t, utf8.RuneCountInString(line), 101, line)
	}
}

func TestLongLinesAreFoldedBetweenWords(t *testing.T) {
	for _, tt := range []struct {
		line string
		most int
		want string
	}{
		{"short", 10, "short"},
		{"one two three four", 10, "one two\n    three\n    four"},
		{"  one two three four", 14, "  one two\n      three\n      four"},
		{"abcdefghijklmnop", 10, "abcdefghij\n    klmnop"},
		{"茶筅茶筅茶筅茶筅", 9, "茶筅茶筅\n茶筅茶筅"},
		{"\x1b[31mone\x1b[0m two", 7, "\x1b[31mone\x1b[0m two"},
		{"                 deep in", 10, "deep in"},
	} {
		require.Equal(t, tt.want, fold(tt.line, tt.most), "%q in %d", tt.line, tt.most)
	}
}

func TestColoursAreForTerminalsWithoutNoColor(t *testing.T) {
	o := newConsole(&bytes.Buffer{}, false)
	require.Equal(t, "dead", o.red("dead"))
	o.colour = true
	require.Equal(t, "\x1b[31mdead\x1b[0m", o.red("dead"))
	require.Equal(t, 4, wide(o.red("dead")))
}

func TestCountsAreInTheSingularAndThePlural(t *testing.T) {
	require.Equal(t, "0 orders", count(0, "order"))
	require.Equal(t, "1 order", count(1, "order"))
	require.Equal(t, "1,000 dead letters", count(1000, "dead letter"))
	require.Equal(t, "1 delivery", count(1, "delivery"))
	require.Equal(t, "2 deliveries", count(2, "delivery"))
}

func TestAFileIsNoTerminal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	require.False(t, isTerminal(f))
	require.False(t, isTerminal(&bytes.Buffer{}))
}

func TestABarIsFullOnlyAtTheEnd(t *testing.T) {
	for _, tt := range []struct {
		n, most int
		want    string
	}{
		{0, 10, "░░░░"}, {1, 1000, "█░░░"}, {5, 10, "██░░"}, {999, 1000, "███░"}, {10, 10, "████"}, {12, 10, "████"},
	} {
		require.Equal(t, tt.want, bar(tt.n, tt.most, 4), "%d of %d", tt.n, tt.most)
	}
}

func TestNumbersHaveTheirThousandsApart(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -100: "-100", 1234567: "1,234,567"} {
		require.Equal(t, want, number(n))
	}
}
