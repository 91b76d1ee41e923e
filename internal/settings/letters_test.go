package settings

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

func TestABackoffSaysWhatItIsAndWhatIsWrongWithIt(t *testing.T) {
	for _, row := range []struct {
		b         *Backoff
		name, err string
	}{
		{Constant(time.Second), "Constant(1s)", ""},
		{Constant(0), "Constant(0s)", "Constant(0s): want a positive duration"},
		{Constant(-1), "Constant(-1ns)", "Constant(-1ns): want a positive duration"},
		{Exponential(time.Second, time.Second), "Exponential(1s, 1s)", ""},
		{Exponential(0, time.Second), "Exponential(0s, 1s)", "Exponential(0s, 1s): want a positive first wait"},
		{Exponential(time.Second, 1), "Exponential(1s, 1ns)", "Exponential(1s, 1ns): want a longest wait that is not below the first"},
		{BackoffFunc(func(int) time.Duration { return 0 }), "BackoffFunc", ""},
		{BackoffFunc(nil), "BackoffFunc(nil)", "BackoffFunc(nil): want a function"},
	} {
		require.Equal(t, row.name, row.b.String())
		if row.err == "" {
			require.NoError(t, row.b.Err())
		} else {
			require.EqualError(t, row.b.Err(), row.err)
		}
	}
}

// The user's function is called apart, and how it ended is told.
func TestABackoffSaysHowItEnded(t *testing.T) {
	d, e := Constant(time.Second).Ask(1)
	require.Equal(t, time.Second, d)
	require.True(t, e.Returned)
	d, e = BackoffFunc(func(n int) time.Duration { return time.Duration(n) * time.Hour }).Ask(3)
	require.Equal(t, 3*time.Hour, d)
	require.True(t, e.Returned)
	_, e = BackoffFunc(func(int) time.Duration { panic("boom") }).Ask(3)
	require.False(t, e.Returned)
	require.Equal(t, "boom", e.Panicked)
}

func TestLettersAreMeantByTheTimeOfTheirDeath(t *testing.T) {
	at := time.Unix(100, 0)
	h := message.Restored([]message.Kept{{Attempt: message.Attempt{Start: at, Elapsed: time.Second}}})
	died := at.Add(time.Second)
	require.True(t, (&Letters{}).InTime(h))
	require.True(t, (&Letters{Until: died}).InTime(h))
	require.True(t, (&Letters{Until: died.Add(1)}).InTime(h))
	require.False(t, (&Letters{Until: died.Add(-1)}).InTime(h))
	require.False(t, (&Letters{Until: died}).InTime(nil), "it is not known when it died")
	require.True(t, (&Letters{}).InTime(nil))
}

func TestLettersThatNobodyHasAreNamed(t *testing.T) {
	c := &Letters{IDs: map[string]bool{"b": false, "a": false, "c": false}}
	require.True(t, c.Met("b"))
	require.False(t, c.Met("d"))
	require.False(t, c.IDs["d"])
	err := c.Unknown()
	require.ErrorIs(t, err, message.ErrUnknownID)
	require.EqualError(t, err, `fanout: invalid option: unknown ID: RedriveIDs("a", "c"): want IDs of its dead letters that no consumer has in hand`)
	require.True(t, c.Met("a"))
	require.True(t, c.Met("c"))
	require.NoError(t, c.Unknown())
	require.NoError(t, (&Letters{}).Unknown())

	many := &Letters{IDs: map[string]bool{}}
	for k := range mostUnknown {
		many.IDs[fmt.Sprintf("%03d", k)] = false
	}
	require.NotContains(t, many.Unknown().Error(), "more")
	require.Contains(t, many.Unknown().Error(), `"098", "099")`)
	many.IDs["100"], many.IDs["101"] = false, false
	require.Contains(t, many.Unknown().Error(), `"098", "099") and 2 more: want`)
	require.NotContains(t, many.Unknown().Error(), `"100"`)
}

func TestLimitsThatAreEverybodysAreShared(t *testing.T) {
	a, b := DefaultSubscriber(), DefaultSubscriber()
	require.Same(t, a.Shared(), b.Shared())
	require.Equal(t, SubscriberLimits{Concurrency: 1, Batch: 10}, *a.Shared())
	b.Concurrency = 2
	require.NotSame(t, a.Shared(), b.Shared())
	require.Equal(t, SubscriberLimits{Concurrency: 2, Batch: 10}, *b.Shared())
}

func TestARateLimitIsDeliveriesASecond(t *testing.T) {
	require.Equal(t, 0.0, (&SubscriberLimits{}).RateLimit())
	require.Equal(t, 0.0, (&SubscriberLimits{Every: -1}).RateLimit())
	require.Equal(t, 4.0, (&SubscriberLimits{Every: 250 * time.Millisecond}).RateLimit())
	require.Equal(t, 0.5, (&SubscriberLimits{Every: 2 * time.Second}).RateLimit())
}

func TestPoliciesHaveNames(t *testing.T) {
	for o, name := range map[Overflow]string{Block: "Block", Reject: "Reject", DropOldest: "DropOldest", DropNewest: "DropNewest", 9: "Overflow(9)"} {
		require.Equal(t, name, o.String())
	}
}

func TestTheCodecIsThatOfJSON(t *testing.T) {
	data, err := JSON{}.Encode(map[string]int{"a": 1})
	require.NoError(t, err)
	require.Equal(t, `{"a":1}`, string(data))
	var body map[string]int
	require.NoError(t, JSON{}.Decode(data, &body))
	require.Equal(t, map[string]int{"a": 1}, body)
	require.Error(t, JSON{}.Decode([]byte("{"), &body))
	require.Equal(t, "application/json", JSON{}.ContentType())
}
