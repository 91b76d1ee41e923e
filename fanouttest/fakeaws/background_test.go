package fakeaws

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// later has f called after a delay, as the fake does.
func later(a *AWS, delay time.Duration, f func(context.Context)) *job {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.cloud.laterLocked(delay, f)
}

func TestJobsBeginAtTheirInstantsAndAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(t)
		began := time.Now()
		var at []time.Duration
		for _, delay := range []time.Duration{3 * time.Hour, 0, time.Second} {
			later(a, delay, func(context.Context) { at = append(at, time.Since(began)) })
		}
		stopped := later(a, time.Minute, func(context.Context) { t.Error("it was stopped") })
		a.cloud.mu.Lock()
		stopped.stopLocked()
		stopped.stopLocked()
		a.cloud.mu.Unlock()
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []time.Duration{0, time.Second, 3 * time.Hour}, at)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		later(a, time.Hour, func(context.Context) {})
		require.ErrorContains(t, a.WaitQuiet(ctx), "1 deliveries under way")
	})
}

func TestCloseDropsJobsThatWaitAndJoinsThoseThatRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(t)
		began, ended := time.Now(), time.Duration(0)
		later(a, time.Hour, func(context.Context) { t.Error("the fake is closed") })
		later(a, 0, func(ctx context.Context) {
			<-ctx.Done()
			time.Sleep(time.Second) // it takes its time
			ended = time.Since(began)
			later(a, 0, func(context.Context) { t.Error("the fake is closed") })
			runtime.Goexit() // as a failed test does in a handler
		})
		time.Sleep(time.Minute)
		a.Close()
		require.Equal(t, 61*time.Second, ended)
		a.Close()
		require.Zero(t, a.cloud.busy)
		require.Empty(t, a.cloud.jobs)
	})
}
