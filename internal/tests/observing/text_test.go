// Causes, reasons and policies are written by their names and read back, and an attempt as JSON.

package observing_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// named is a value of a type whose values have names.
type named interface {
	fmt.Stringer
	encoding.TextMarshaler
}

func TestWhatHasANameIsWrittenAsItAndReadBack(t *testing.T) {
	read := map[string]func(text []byte) (named, error){
		"Cause": func(text []byte) (named, error) { c := fanout.Cause(77); err := c.UnmarshalText(text); return c, err },
		"Overflow": func(text []byte) (named, error) {
			o := fanout.Overflow(77)
			err := o.UnmarshalText(text)
			return o, err
		},
		"DropReason": func(text []byte) (named, error) {
			r := fanout.DropReason(77)
			err := r.UnmarshalText(text)
			return r, err
		},
	}
	number := map[string]func(n uint8) named{
		"Cause":      func(n uint8) named { return fanout.Cause(n) },
		"Overflow":   func(n uint8) named { return fanout.Overflow(n) },
		"DropReason": func(n uint8) named { return fanout.DropReason(n) },
	}
	for name, row := range map[string]struct {
		of          string
		first, last uint8
	}{
		"causes":   {"Cause", 0, uint8(fanout.Released)},
		"policies": {"Overflow", uint8(fanout.Block), uint8(fanout.DropNewest)},
		"reasons":  {"DropReason", 0, uint8(lastReason)},
	} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]bool{}
			for n := range 256 {
				v := number[row.of](uint8(n))
				text, err := v.MarshalText()
				if n < int(row.first) || n > int(row.last) {
					require.ErrorIs(t, err, fanout.ErrInvalidOption)
					require.ErrorContains(t, err, fmt.Sprintf("fanout.%s(%d)", row.of, n))
					continue
				}
				require.NoError(t, err)
				require.Equal(t, v.String(), string(text))
				require.NotContains(t, string(text), "(", "it has a name")
				require.False(t, seen[string(text)], "each has its own")
				seen[string(text)] = true
				back, err := read[row.of](text)
				require.NoError(t, err)
				require.Equal(t, v, back)
			}
			for _, unknown := range []string{"", "exploded", "Cause(3)", "3", "ACKED", "block", "drop  oldest"} {
				back, err := read[row.of]([]byte(unknown))
				require.ErrorIs(t, err, fanout.ErrInvalidOption)
				require.ErrorContains(t, err, fmt.Sprintf("%s(%q): want one of ", row.of, unknown))
				require.Equal(t, number[row.of](77), back, "it is as it was")
			}
			for text := range seen {
				_, err := read[row.of]([]byte("no " + text))
				require.ErrorContains(t, err, text, "the error names what there is")
			}
		})
	}
}

// lastReason is the last of the drop reasons.
const lastReason = fanout.DroppedByDelete

func TestNamesInJSONFlagsAndLogs(t *testing.T) {
	event := struct {
		Cause    fanout.Cause
		Reason   fanout.DropReason
		Overflow fanout.Overflow
		ByCause  map[fanout.Cause]int
	}{fanout.TimedOut, fanout.DroppedOldest, fanout.Reject, map[fanout.Cause]int{fanout.PermanentlyFailed: 2}}
	data, err := json.Marshal(event)
	require.NoError(t, err)
	require.JSONEq(t, `{"Cause": "timed out", "Reason": "drop oldest", "Overflow": "Reject", "ByCause": {"permanent": 2}}`, string(data))
	back := event
	back.Cause, back.Reason, back.Overflow, back.ByCause = 0, 0, 0, nil
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, event, back)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"Overflow": "Drop"}`), &back), `Overflow("Drop")`)

	_, err = json.Marshal(struct{ fanout.DropReason }{})
	require.NoError(t, err, "most events have no reason")

	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var policy fanout.Overflow
	flags.TextVar(&policy, "overflow", fanout.Block, "what a full queue does")
	require.NoError(t, flags.Parse([]string{"-overflow", "DropNewest"}))
	require.Equal(t, fanout.DropNewest, policy)
	require.ErrorContains(t, flags.Parse([]string{"-overflow", "DropAll"}), "DropAll")

	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("settled", "cause", fanout.Panicked)
	require.Contains(t, out.String(), "cause=panicked")
}

// badError is an error that can't say its text.
type badError struct{}

func (badError) Error() string { panic("no text") }

func TestAnAttemptInJSON(t *testing.T) {
	start := time.Date(2026, 7, 1, 12, 30, 0, 7, time.UTC)
	a := fanout.Attempt{
		Number: 3, Cause: fanout.Panicked, Queue: "billing", Start: start, Elapsed: 1500 * time.Millisecond,
		Err: fmt.Errorf("panic: %w", io.EOF), Stack: "goroutine 7\n",
	}
	data, err := json.Marshal(a)
	require.NoError(t, err)
	require.JSONEq(t, `{"number": 3, "cause": "panicked", "queue": "billing", "start": "2026-07-01T12:30:00.000000007Z",
		"elapsed": "1.5s", "error": "panic: EOF", "stack": "goroutine 7\n"}`, string(data))
	var back fanout.Attempt
	require.NoError(t, json.Unmarshal(data, &back))
	require.EqualError(t, back.Err, "panic: EOF")
	require.NotErrorIs(t, back.Err, io.EOF, "the text is all that is left")
	back.Err = a.Err
	require.Equal(t, a, back)

	t.Run("what it has none of", func(t *testing.T) {
		data, err := json.Marshal(fanout.Attempt{Number: 1, Cause: fanout.TimedOut, Queue: "q", Start: start, Elapsed: 30 * time.Second})
		require.NoError(t, err)
		require.JSONEq(t, `{"number": 1, "cause": "timed out", "queue": "q", "start": "2026-07-01T12:30:00.000000007Z", "elapsed": "30s"}`, string(data))
		require.NoError(t, json.Unmarshal(data, &back))
		require.NoError(t, back.Err)
		require.Empty(t, back.Stack, "nothing stays of what it was before")
	})
	t.Run("an error without a text", func(t *testing.T) {
		data, err := json.Marshal(fanout.Attempt{Cause: fanout.Failed, Err: errors.New("")})
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, &back))
		require.EqualError(t, back.Err, "")
	})
	t.Run("an error that panics", func(t *testing.T) {
		data, err := json.Marshal(fanout.Attempt{Cause: fanout.Failed, Err: badError{}})
		require.NoError(t, err)
		require.Contains(t, string(data), "no text")
	})
	t.Run("in a history", func(t *testing.T) {
		var history []fanout.Attempt
		data, err := json.Marshal([]fanout.Attempt{a, a})
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, &history))
		require.Len(t, history, 2)
		require.NoError(t, json.Unmarshal([]byte("[null]"), &history))
		require.Equal(t, 3, history[0].Number, "null changes nothing, as package json has it")
	})
	for text, says := range map[string]string{
		`{"cause": "exploded"}`:                 `Cause("exploded")`,
		`{"cause": 3}`:                          "cause",
		`{"cause": "failed", "elapsed": "1.5"}`: `"1.5"`,
		`{"cause": "failed", "elapsed": 3}`:     "elapsed",
		`{"cause": "failed", "start": "today"}`: "today",
		`[]`:                                    "array",
	} {
		before := back
		require.ErrorContains(t, json.Unmarshal([]byte(text), &back), says)
		require.Equal(t, before, back, "it is as it was")
	}
	_, err = json.Marshal(fanout.Attempt{Cause: 77})
	require.ErrorContains(t, err, "fanout.Cause(77)")
}

// FuzzAttemptJSON: what is read as an attempt is written and read as the same one.
func FuzzAttemptJSON(f *testing.F) {
	f.Add(1, uint8(fanout.Failed), "q", int64(1), int64(time.Second), "busy", "", true, []byte(`{"number": 3, "cause": "failed", "elapsed": "1h"}`))
	f.Add(-1, uint8(fanout.Released), "\x00\xff", int64(-1), int64(-1<<63), "", "goroutine", false, []byte(`{"error": null, "elapsed": "-1.5us"}`))
	f.Fuzz(func(t *testing.T, number int, cause uint8, queue string, start, elapsed int64, text, stack string, failed bool, data []byte) {
		a := fanout.Attempt{
			Number: number, Cause: fanout.Cause(cause % uint8(fanout.Released+1)), Queue: queue, Start: time.Unix(0, start).UTC(),
			Elapsed: time.Duration(elapsed), Stack: stack,
		}
		if failed {
			a.Err = errors.New(text)
		}
		again(t, a)
		var read fanout.Attempt
		if json.Unmarshal(data, &read) == nil {
			again(t, read)
		}
	})
}

// again writes a, reads it and writes it again.
func again(t *testing.T, a fanout.Attempt) {
	data, err := json.Marshal(a)
	if err != nil && a.Start.Year() > 9999 {
		return // package time does not write these
	}
	require.NoError(t, err)
	var back fanout.Attempt
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, a.Err == nil, back.Err == nil)
	require.True(t, a.Start.Equal(back.Start))
	require.Equal(t, []any{a.Number, a.Cause, a.Elapsed}, []any{back.Number, back.Cause, back.Elapsed})
	data, err = json.Marshal(back)
	require.NoError(t, err)
	var third fanout.Attempt
	require.NoError(t, json.Unmarshal(data, &third))
	require.True(t, back.Start.Equal(third.Start))
	third.Start = back.Start // the zone may have another name
	require.Equal(t, back, third, "what is no UTF-8 is replaced once")
}
