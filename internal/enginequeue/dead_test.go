package enginequeue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// Attempts that failed are counted by the engine's state, also in another process.
func TestAMessageWhoseAttemptsAreSpentIsADeadLetter(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var dead []notice.Event
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t, attempts(3))
		h.publish(t, "a")
		require.NoError(t, receive(t, q).Settle(ctx, errBroken))
		h.end(t)
		h = newHost(t, e.Sibling(), hooked(notice.DeadLettered, func(e notice.Event) { dead = append(dead, e) }))
		q = h.open(t, attempts(3))
		for n := 2; n <= 3; n++ {
			d := receive(t, q)
			require.Equal(t, n, d.Attempt())
			require.NoError(t, d.Nack(ctx))
		}
		letter := receive(t, q.DeadLetters())
		require.Equal(t, "a", letter.Body)
		require.Len(t, letter.History(), 3)
		require.Equal(t, []message.Cause{message.Failed, message.Nacked, message.Nacked}, []message.Cause{letter.History()[0].Cause, letter.History()[1].Cause, letter.History()[2].Cause})
		require.Len(t, dead, 1)
		require.Equal(t, 3, dead[0].Attempt)
		require.NoError(t, letter.Ack(ctx))
		h.end(t)
	})
}

// What can't be a dead letter is parked: it comes again after five seconds, tries again, and
// is not delivered, whether the engine keeps state or not.
func TestWhatFindsNoRoomAmongTheDeadLettersIsParked(t *testing.T) {
	for _, without := range [][]engine.Feature{nil, {engine.State}} {
		parks(t, without)
	}
	bubble(t, func(t *testing.T, ctx context.Context) { // an engine that fails is told of
		failed := newDiary()
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, failures(failed))
		q := h.open(t)
		h.publish(t, "a")
		e.Inject(fakeengine.Fault{Op: fakeengine.DeadLetter, Nth: 1, Err: errBroken})
		require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errors.New("no"))))
		lines := failed.read()
		require.Len(t, lines, 1)
		require.Regexp(t, `^0s: dead-letter: message ".*": broken$`, lines[0])
		elapse(parkedWait - 1)
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{InFlight: 1}, messages, "not earlier")
		elapse(1)
		requireNone(t, q)
		require.Equal(t, "a", receive(t, q.DeadLetters()).Body)
		h.end(t)
	})
}

func parks(t *testing.T, without []engine.Feature) {
	t.Helper()
	bubble(t, func(t *testing.T, ctx context.Context) {
		parked, failed := 0, newDiary()
		h := newHost(t, fakeengine.New(fakeengine.Config{Without: without}), hooked(notice.Parked, func(notice.Event) { parked++ }), failures(failed))
		q := h.open(t, func(s *settings.Queue) { s.DeadCapacity, s.Asked.DeadCapacity = 1, true })
		h.publish(t, "a", "b")
		for range 2 {
			require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBroken)))
		}
		require.Equal(t, 1, parked)
		require.Equal(t, []uint64{1, 1}, []uint64{view.StatsOf(q).DeadLettered, view.StatsOf(q).TimesParked})
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{InFlight: 1}, messages)
		elapse(parkedWait)
		requireNone(t, q)
		require.Equal(t, 1, parked, "it is told once")
		require.NoError(t, receive(t, q.DeadLetters()).Ack(ctx))
		elapse(parkedWait)
		requireNone(t, q)
		letter := receive(t, q.DeadLetters())
		require.Equal(t, "b", letter.Body)
		require.Len(t, letter.History(), 1)
		require.EqualValues(t, 2, view.StatsOf(q).DeadLettered)
		require.Empty(t, failed.read(), "no room is no failure")
		h.end(t)
	})
}

// A message that is too large for the dead letters is told of once, and tries again as seldom
// as the backoff lets it.
func TestAMessageThatIsTooLargeToDieIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		failed := newDiary()
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, failures(failed))
		q := h.open(t, func(s *settings.Queue) { s.Backoff = settings.Constant(time.Hour) })
		h.publish(t, strings.Repeat("x", 500))
		d := receive(t, q)
		e.SetMaxMessage(400)
		require.NoError(t, d.Settle(ctx, message.Permanent(errBroken)))
		lines := failed.read()
		require.Len(t, lines, 1)
		require.Contains(t, lines[0], "dead-letter: ")
		for range 2 {
			elapse(time.Hour - onengine.ProbeTime - 1)
			messages, _ := h.kept(t)
			require.Equal(t, engine.Stats{InFlight: 1}, messages, "not earlier")
			elapse(onengine.ProbeTime + 1)
			requireNone(t, q)
			synctest.Wait()
		}
		require.Empty(t, failed.read())
		e.SetMaxMessage(0)
		elapse(time.Hour)
		requireNone(t, q)
		_, letters := h.kept(t)
		require.Equal(t, 1, letters.Ready)
		h.end(t)
	})
}

func TestAWaitIsAsLongAsTheEngineCan(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{Most: map[engine.Feature]time.Duration{engine.RetryDelay: 2 * time.Second}})
		h := newHost(t, e)
		q := h.open(t, func(s *settings.Queue) { s.DeadCapacity, s.Asked.DeadCapacity = 1, true })
		h.publish(t, "a")
		began := time.Now()
		require.NoError(t, receive(t, q).NackAfter(ctx, time.Hour))
		require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBroken)))
		require.Equal(t, 2*time.Second, time.Since(began))
		h.publish(t, "b")
		require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBroken)))
		elapse(2 * time.Second)
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{Ready: 1}, messages, "parked for as long")
		h.end(t)
	})
}

// What has expired on its way and finds no way to the dead letters is parked as others: it is
// counted once, and not while the engine has not taken it at all.
func TestWhatExpiresOnItsWayIsParkedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		parked := 0
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, hooked(notice.Parked, func(notice.Event) { parked++ }))
		q := h.open(t, func(s *settings.Queue) { s.TTL = time.Minute })
		counts := func() []uint64 {
			s := view.StatsOf(q)
			return []uint64{uint64(parked), s.TimesParked, s.DeadLettered}
		}
		h.publish(t, "a")
		elapse(time.Minute)
		e.Inject(fakeengine.Fault{Op: fakeengine.DeadLetter, Err: errBroken})
		e.Inject(fakeengine.Fault{Op: fakeengine.Return, Nth: 1, Err: errBroken})
		requireNone(t, q)
		require.Equal(t, []uint64{0, 0, 0}, counts(), "the engine has it as it was")
		elapse(30*time.Second + leaseSlack)
		requireNone(t, q)
		require.Equal(t, []uint64{1, 1, 0}, counts())
		elapse(parkedWait)
		requireNone(t, q)
		require.Equal(t, []uint64{1, 1, 0}, counts())
		e.Heal()
		elapse(parkedWait)
		requireNone(t, q)
		require.Equal(t, []uint64{1, 1, 1}, counts())
		h.end(t)
	})
}

// A queue remembers which messages are too large to die, so many and no more.
func TestAQueueRemembersABoundedNumberOfMessagesThatAreTooLarge(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{}))
		r := h.open(t).Keeper.(*Queue[string])
		told := func(k int) bool { return r.refusal(&engine.Message{ID: fmt.Sprint(k)}, engine.ErrTooLarge) != nil }
		for k := range mostOversized {
			require.True(t, told(k))
		}
		require.False(t, told(0))
		require.False(t, told(mostOversized-1))
		require.True(t, told(mostOversized))
		require.True(t, told(0), "it has begun anew")
		require.Len(t, r.oversized, 2)
		h.end(t)
	})
}
