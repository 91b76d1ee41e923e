package core

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

// hooked has a topic's listeners hear of events of a kind.
func hooked(k notice.Kind) func(*notice.Listeners) {
	return func(l *notice.Listeners) { l.Hook(k, func(*notice.Event) {}) }
}

// What is of one topic has its name and clock, tells those whom it was made with, and is
// alive until its release.
func TestACoreIsWhatItWasMadeOf(t *testing.T) {
	around := func(ctx context.Context, _ intercept.Info, next func(context.Context) error) error { return next(ctx) }
	logger := slog.Default()
	c, err := New("payments", settings.Topic{
		Logger: logger, Handling: []intercept.Interceptor{around}, Calls: []intercept.Interceptor{around, around},
		Listen: []func(*notice.Listeners){hooked(notice.Settled), hooked(notice.Parked)},
	})
	require.NoError(t, err)
	require.Equal(t, "payments", c.TopicName)
	require.Equal(t, "payments", c.To.Topic)
	require.Same(t, &c.Clock, c.To.Clock)
	require.Same(t, &c.Live, c.To.Alive)
	require.Same(t, logger, c.To.Logger)
	require.Len(t, c.Around, 1)
	require.Len(t, c.Calls, 2)
	for k, is := range c.Hooked {
		kind := notice.Kind(k)
		require.Equal(t, kind == notice.Settled || kind == notice.Parked, is, "of kind %d", k)
	}
	require.EqualValues(t, 1, c.Live.N.Load())
	done := c.Live.Awaitable()
	select {
	case <-done:
		t.Fatal("it is alive")
	default:
	}
	c.Release()
	<-done
}

// A source of random bytes that has none.
type empty struct{}

func (empty) Read([]byte) (int, error) { return 0, errors.New("no random bytes") }

func TestACoreNeedsAClock(t *testing.T) {
	uuid.SetRand(empty{})
	defer uuid.SetRand(nil)
	c, err := New("t", settings.Topic{})
	require.Nil(t, c)
	require.EqualError(t, err, "no random bytes")
}

// What callers receive is looked at one by one if a hook hears of each, or interceptors stand
// around their calls.
func TestWhetherWhatCallersReceiveIsLookedAtOneByOne(t *testing.T) {
	around := []intercept.Interceptor{func(ctx context.Context, _ intercept.Info, next func(context.Context) error) error { return next(ctx) }}
	for name, row := range map[string]struct {
		set    settings.Topic
		singly bool
	}{
		"plain":                     {settings.Topic{}, false},
		"around handlers":           {settings.Topic{Handling: around}, false},
		"hooks for what is settled": {settings.Topic{Listen: []func(*notice.Listeners){hooked(notice.Settled)}}, false},
		"around calls":              {settings.Topic{Calls: around}, true},
		"hooks for deliveries":      {settings.Topic{Listen: []func(*notice.Listeners){hooked(notice.Delivered)}}, true},
	} {
		c, err := New("t", row.set)
		require.NoError(t, err)
		require.Equal(t, row.singly, c.Singly, name)
	}
}

func TestACoreReadsOneClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New("t", settings.Topic{})
		require.NoError(t, err)
		at := c.Now()
		require.Positive(t, at)
		require.True(t, time.Now().Equal(c.Time(at)))
		time.Sleep(time.Hour)
		require.Equal(t, at+int64(time.Hour), c.Now())
	})
}

// An ID is the publisher's, or one that the clock makes.
func TestAnIDIsThePublishersOrTheClocks(t *testing.T) {
	c, err := New("t", settings.Topic{})
	require.NoError(t, err)
	at := c.Now()
	made := c.Clock.ID(7, at, nil)
	require.Len(t, made, 36)
	require.Equal(t, made, c.IDOf(7, at, nil))
	require.Equal(t, made, c.IDOf(7, at, &message.Extra{Key: "k"}))
	require.Equal(t, "order-1", c.IDOf(7, at, &message.Extra{ID: "order-1"}))
}
