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
		require.Equal(t, 3, strings.Count(out.String(), "\n"), out.String())
		require.True(t, strings.HasPrefix(out.String(), "   1.0s  published 10 of 1,000,000 | inventory: depth 9 of 256,"), out.String())
		require.Contains(t, out.String(), "100 settled, 100/s\n")
		require.NotContains(t, out.String(), "\x1b")
	})
}

func TestTheBoardFitsATerminal(t *testing.T) {
	s := views(248)()
	s.queues[0].rate = 999_999
	for line := range strings.Lines(s.board()) {
		require.Less(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, line)
	}
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
