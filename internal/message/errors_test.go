package message

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/callback"
)

func TestABadOptionIsNamedWithItsValue(t *testing.T) {
	for want, err := range map[string]error{
		"fanout: invalid option: WithCapacity(-1): want a positive number": Invalid("WithCapacity", -1, "a positive number"),
		"fanout: invalid option: WithCapacity(Unlimited): want less":       Invalid("WithCapacity", Unlimited, "less"),
		"fanout: invalid option: Queue(a/b): want a name":                  Invalid("Queue", "a/b", "a name"),
	} {
		require.EqualError(t, err, want)
		require.ErrorIs(t, err, ErrInvalidOption)
	}
	require.Equal(t, "7", Limit(7).String())
	require.Equal(t, "Unlimited", Limit(Unlimited).String())
}

func TestAnErrorOfAContextIsItsErrorAndItsCause(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, ContextError(ctx))
	busy := errors.New("busy")
	caused, cancelCause := context.WithCancelCause(t.Context())
	cancelCause(busy)
	err := ContextError(caused)
	require.EqualError(t, err, "context canceled: busy")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, busy)
	require.True(t, IsClosed(fmt.Errorf("publish: %w", ErrClosed)))
	require.False(t, IsClosed(busy))
	require.False(t, IsClosed(nil))
}

func TestThingsAreCounted(t *testing.T) {
	require.Equal(t, []string{"0 handlers", "1 handler", "2 handlers"}, []string{Plural(0, "handler"), Plural(1, "handler"), Plural(2, "handler")})
}

func TestAReleaseIsOfAnError(t *testing.T) {
	require.NoError(t, Release(nil))
	busy := errors.New("busy")
	require.Equal(t, Verdict{Cause: Released, Wait: FromBackoff, Err: Release(busy)}, Judge(Release(busy)))
	require.Equal(t, Released, CauseOf(Release(busy)))
	require.Equal(t, Acked, CauseOf(nil))
	require.Equal(t, Panicked, CauseOfEnd(callback.End{Panicked: 1}))
	require.Equal(t, Exited, CauseOfEnd(callback.End{}))
}

// A source of random bytes that has none.
type empty struct{}

func (empty) Read([]byte) (int, error) { return 0, errors.New("no random bytes") }

func TestAClockNeedsRandomBytes(t *testing.T) {
	uuid.SetRand(empty{})
	defer uuid.SetRand(nil)
	c, err := NewClock()
	require.Nil(t, c)
	require.EqualError(t, err, "no random bytes")
}

// An ID has the time, the number and the topic's bits in their places.
func TestAnIDHasItsPartsInTheirPlaces(t *testing.T) {
	c, err := NewClock()
	require.NoError(t, err)
	require.Less(t, c.random, uint64(1<<36))
	c.random = 0x9_8765_4321
	for _, row := range []struct{ ms, ns, seq uint64 }{
		{1, 0, 0}, {0x0192_3456_789a, 999_999, 1<<26 - 1}, {0x0192_3456_789a, 500_000, 0x1234567}, {77, 244, 1<<26 + 5}, {77, 245, 1<<40 + 1<<25},
	} {
		c.wall = int64(row.ms * 1e6)
		u := uuid.MustParse(c.ID(row.seq, int64(row.ns), nil))
		var high, low uint64
		for k := range 8 {
			high, low = high<<8|uint64(u[k]), low<<8|uint64(u[8+k])
		}
		require.Equal(t, row.ms, high>>16)
		require.EqualValues(t, 7, high>>12&15)
		require.Equal(t, row.ns*4096/1e6, high&4095)
		require.EqualValues(t, 2, low>>62)
		require.Equal(t, row.seq%(1<<26), low>>36&(1<<26-1))
		require.Equal(t, c.random, low&(1<<36-1))
	}
}

// Those that are made in one piece of memory stay what they are, and one is made once.
func TestIDsInOnePieceStayWhatTheyAre(t *testing.T) {
	c, err := NewClock()
	require.NoError(t, err)
	var ids IDs
	var made, want []string
	for n := range uint64(40) {
		made, want = append(made, ids.ID(c, n+1, int64(n)*1e9, nil)), append(want, c.ID(n+1, int64(n)*1e9, nil))
		require.Equal(t, want[n], ids.ID(c, n+1, int64(n)*1e9, nil))
	}
	require.Equal(t, want, made)
	require.Equal(t, int64(5), After(5, 0))
}

func TestATextIsShortenedWithANoteOfWhatWasLeftOut(t *testing.T) {
	long := strings.Repeat("x", 200)
	for name, row := range map[string]struct {
		text string
		most int
		want string
	}{
		"short":                           {"busy", 100, "busy"},
		"as long as it may be":            {long, 200, long},
		"one too long":                    {long, 199, long[:151] + "... (49 bytes left out)"},
		"much too long":                   {long, 60, long[:12] + "... (188 bytes left out)"},
		"no room for anything":            {long, 10, "... (200 bytes left out)"},
		"as short as a note":              {long[:48], 0, long[:48]},
		"a byte more than that":           {long[:49], 0, "... (49 bytes left out)"},
		"characters stay whole":           {"ab" + strings.Repeat("ä", 60), 53, "abä" + "... (118 bytes left out)"},
		"none but whole ones":             {strings.Repeat("\x80", 60), 50, "... (60 bytes left out)"},
		"it was shortened before":         {long[:151] + "... (49 bytes left out)", 100, long[:52] + "... (148 bytes left out)"},
		"from the beginning":              {"... (1234567890 bytes left out) and more is", 0, "... (1234567890 bytes left out) and more is"},
		"all of it had been left out":     {"... (1234567890123456789 bytes left out)       ", 0, "... (1234567890123456789 bytes left out)       "},
		"a note in its middle is no note": {long[:60] + "... (49 bytes left out)" + long[:60], 80, long[:32] + "... (111 bytes left out)"},
		"a note that others follow":       {long[:100] + "... (49 bytes left out)" + long[:25], 60, long[:12] + "... (136 bytes left out)"},
		"what only begins as one":         {long[:100] + "... (busy)", 60, long[:12] + "... (98 bytes left out)"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, row.want, ShortText(row.text, row.most)) })
	}
}

// An error that says how often it was asked for its text.
type counted struct {
	text  string
	asked int
}

func (e *counted) Error() string { e.asked++; return e.text }

// An error whose text can't be had.
type broken struct{ exits bool }

func (e broken) Error() string {
	if e.exits {
		runtime.Goexit()
	}
	panic("boom")
}

func TestAnErrorIsAskedForItsTextOnce(t *testing.T) {
	e := &counted{text: "busy"}
	v := Verdict{Cause: Failed, Err: e}.Told()
	require.Equal(t, Verdict{Cause: Failed, Err: e, Text: "busy"}, v)
	require.Equal(t, 1, e.asked)
	require.Equal(t, v, v.Told())
	require.Equal(t, 1, e.asked)
	require.Equal(t, Verdict{Cause: Acked}, Verdict{Cause: Acked}.Told())
	for _, e := range []error{broken{}, broken{exits: true}} {
		v := Verdict{Err: e}.Told()
		require.Equal(t, "a message.broken, whose text could not be had", v.Text)
		require.Equal(t, e, v.Err)
	}
}

// An error whose text is too long wraps what of its tree has a short one.
func TestALongErrorKeepsWhatIsShortOfIt(t *testing.T) {
	long := strings.Repeat("x", MostText)
	part := MostText / mostParts
	sentinel, other, justShort := errors.New("no such order"), errors.New("busy"), errors.New(long[:part])
	tooLong := fmt.Errorf("%s: %w", long[:part], other)
	e := fmt.Errorf("%s: %w, %w, %w", long, sentinel, justShort, tooLong)
	v := Verdict{Err: e}.Told()
	require.Equal(t, ShortText(e.Error(), MostText), v.Text)
	require.EqualError(t, v.Err, v.Text)
	require.LessOrEqual(t, len(v.Text), MostText)
	require.NotErrorIs(t, v.Err, e, "it would keep the long text")
	require.NotErrorIs(t, v.Err, tooLong)
	for _, part := range []error{sentinel, justShort, other} {
		require.ErrorIs(t, v.Err, part)
	}
	require.Len(t, v.Err.(*shortened).wraps, 3)

	exact := errors.New(long)
	require.Equal(t, Verdict{Err: exact, Text: long}, Verdict{Err: exact}.Told(), "one that is just short enough stays")

	wraps := Verdict{Err: fmt.Errorf("%s: %w", long, sentinel)}.Told()
	require.ErrorIs(t, wraps.Err, sentinel)
	var many []error
	for range 2 * mostParts {
		many = append(many, errors.New(long[:900]))
	}
	require.Len(t, Verdict{Err: errors.Join(many...)}.Told().Err.(*shortened).wraps, mostParts)
	require.Empty(t, Verdict{Err: wrapsNil(long + "x")}.Told().Err.(*shortened).wraps)
}

// A wrapsNil is an error that wraps none.
type wrapsNil string

func (e wrapsNil) Error() string { return string(e) }
func (wrapsNil) Unwrap() error   { return nil }

func TestAStackIsTheCallers(t *testing.T) {
	require.Contains(t, Stack(), "TestAStackIsTheCallers")
}

func TestWhatIsPublishedIsPlainOrNot(t *testing.T) {
	require.True(t, (&Published[int]{Body: 7, Attributes: map[string]string{}}).Plain())
	for _, m := range []Published[int]{
		{ID: "1"}, {Attributes: map[string]string{"a": ""}}, {OrderingKey: "k"}, {DeduplicationID: "d"}, {Delay: 1}, {TimeToLive: 1},
	} {
		require.False(t, m.Plain(), "%+v", m)
	}
	x := &Extra{ID: "1", Key: "k", Dedup: "d", TTL: 5, Delay: 6, Attributes: map[string]string{"a": "1"}}
	m := Published[int]{ID: "2", Delay: 7}
	m.Fill(x)
	require.Equal(t, Published[int]{ID: "2", Delay: 7, OrderingKey: "k", DeduplicationID: "d", TimeToLive: 5, Attributes: map[string]string{"a": "1"}}, m)
	m.Attributes["a"] = "2"
	require.Equal(t, "1", x.Attributes["a"], "it is a copy")
}
