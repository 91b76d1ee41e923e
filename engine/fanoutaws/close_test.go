package fanoutaws

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// fakeLosingPolls gives the test a fake whose broken long polls take messages still.
func fakeLosingPolls(t *testing.T) *fakeaws.AWS {
	t.Helper()
	a := fakeaws.New(t, fakeaws.WithLostPolls())
	fakes.Store(t, a)
	t.Cleanup(func() { fakes.Delete(t) })
	return a
}

// A shop is one process with a handler on queue q.
type shop struct {
	top *fanout.Topic[string]
	q   *fanout.Queue[string]

	mu   sync.Mutex
	runs []time.Time
	err  error
}

func openShop(t *testing.T, options ...fanout.TopicOption) *shop {
	t.Helper()
	s := &shop{top: newFanoutTopic(t, newEngine(t, WithPollTime(20*time.Second)), options...)}
	sub, err := s.top.Subscribe(t.Context(), "q", func(context.Context, fanout.Delivery[string]) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.runs = append(s.runs, time.Now())
		return s.err
	}, fanout.WithMaxAttempts(1), fanout.WithVisibilityTimeout(30*time.Second))
	require.NoError(t, err)
	s.q = sub.Queue()
	time.Sleep(time.Second) // its poll is open
	return s
}

func (s *shop) ran() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time{}, s.runs...)
}

// TestWhatAClosedProcessIsStillGivenGoesBackAtOnce: its poll is answered after Close, and
// the message, received twice, gets its one attempt elsewhere.
func TestWhatAClosedProcessIsStillGivenGoesBackAtOnce(t *testing.T) {
	for name, options := range map[string][]fanout.TopicOption{"standard": nil, "FIFO": {fanout.WithOrdering()}} {
		for _, fails := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				inFake(t, func(t *testing.T) {
					fakeLosingPolls(t)
					here, there := openShop(t, options...), openShop(t, options...)
					if fails {
						there.err = errors.New("no")
					}
					closed := time.Now()
					require.NoError(t, here.top.Close())
					require.Zero(t, time.Since(closed), "Close returns at once")
					time.Sleep(300 * time.Millisecond)
					published := time.Now()
					require.NoError(t, there.top.Publish(t.Context(), "a"))
					<-here.top.Done()
					require.Equal(t, 300*time.Millisecond, time.Since(closed), "nothing is open any more")
					time.Sleep(time.Hour)
					require.Empty(t, here.ran())
					require.Equal(t, []time.Time{published}, there.ran())
					s := there.q.Stats()
					if fails {
						require.EqualValues(t, 1, s.DeadLettered)
						letters, err := there.q.DeadLetters().Peek(t.Context(), 10)
						require.NoError(t, err)
						require.Len(t, letters, 1)
						require.Len(t, letters[0].History(), 2)
						require.Equal(t, fanout.Failed, letters[0].History()[1].Cause)
						return
					}
					require.Zero(t, s.DeadLettered)
					require.EqualValues(t, 1, s.Acked)
					require.Zero(t, fakeOf(t).Queue(nameOf(options)).Len())
				})
			})
		}
	}
}

func nameOf(options []fanout.TopicOption) string {
	if len(options) > 0 {
		return "p-q" + fifoSuffix
	}
	return "p-q"
}

// TestDoneWaitsForOpenPollsForFiveSecondsAtMost: what SQS hands to a poll that was broken
// off comes again when its lease has ended, and gets its attempt.
func TestDoneWaitsForOpenPollsForFiveSecondsAtMost(t *testing.T) {
	inFake(t, func(t *testing.T) {
		fakeLosingPolls(t)
		here, there := openShop(t), openShop(t)
		closed := time.Now()
		require.NoError(t, here.top.Close())
		<-here.top.Done()
		require.Equal(t, closeMost, time.Since(closed))
		require.NoError(t, there.top.Publish(t.Context(), "a"))
		taken := time.Now()
		time.Sleep(time.Hour)
		require.Equal(t, []time.Time{taken.Add(32 * time.Second)}, there.ran())
		require.Zero(t, there.q.Stats().DeadLettered)
	})
}

// TestDoneWaitsNoLongerThanAPoll, and not at all without one.
func TestDoneWaitsNoLongerThanAPoll(t *testing.T) {
	inFake(t, func(t *testing.T) {
		for _, receives := range []bool{true, false} {
			top := newFanoutTopic(t, newEngine(t, WithPollTime(2*time.Second)))
			q, err := top.OpenQueue(t.Context(), "q")
			require.NoError(t, err)
			ended := make(chan error, 1)
			if receives {
				go func() {
					_, err := q.Receive(t.Context())
					ended <- err
				}()
				time.Sleep(500 * time.Millisecond)
			}
			closed := time.Now()
			require.NoError(t, q.Close())
			require.Zero(t, time.Since(closed))
			if receives {
				require.ErrorIs(t, <-ended, fanout.ErrClosed)
				require.Zero(t, time.Since(closed), "a Receive that waits ends at once")
			}
			require.NoError(t, top.Close())
			<-top.Done()
			want := time.Duration(0)
			if receives {
				want = 1500 * time.Millisecond
			}
			require.Equal(t, want, time.Since(closed))
		}
	})
}

// TestABatchThatComesAfterCloseGoesBack: all ten of it, and to each poll.
func TestABatchThatComesAfterCloseGoesBack(t *testing.T) {
	inFake(t, func(t *testing.T) {
		fakeLosingPolls(t)
		top := newTopic(t, newEngine(t, WithPollTime(20*time.Second)), engine.TopicSpec{Name: "p"})
		here := openQueue(t, top, engine.QueueSpec{Name: "q", Visibility: time.Hour})
		there := openQueue(t, newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"}), engine.QueueSpec{Name: "q", Visibility: time.Hour})
		for range 2 {
			go func() { _, _ = here.Receive(t.Context(), 10, time.Hour) }()
		}
		time.Sleep(time.Second)
		require.NoError(t, here.Close())
		publish(t, top, many(10)...)
		publish(t, top, many(10)...)
		published := time.Now()
		require.NoError(t, top.Close())
		for n := 0; n < 20; {
			rs, err := there.Receive(t.Context(), 10, 0)
			require.NoError(t, err)
			for _, r := range rs {
				require.NoError(t, there.Ack(t.Context(), r.Receipt))
				n++
			}
		}
		require.Less(t, time.Since(published), time.Minute)
	})
}

// TestAPollThatIsAnsweredAsItsQueueIsClosed: nobody gets the message, and it goes back.
func TestAPollThatIsAnsweredAsItsQueueIsClosed(t *testing.T) {
	inFake(t, func(t *testing.T) {
		top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
		q := openQueue(t, top, engine.QueueSpec{Name: "q", Visibility: time.Hour})
		publish(t, top, message("a", "1"))
		p := &poll{q: q, most: 1, lease: time.Hour, out: make(chan polled, 1)}
		messages, err := p.request()
		require.NoError(t, err)
		require.Len(t, messages, 1)
		require.True(t, p.deliver(polled{messages: messages}), "in time")
		require.NoError(t, q.Close())
		_, err = p.await(t.Context())
		require.ErrorIs(t, err, engine.ErrClosed)
		require.Equal(t, fakeaws.Visible, fakeOf(t).Queue("p-q").Messages()[0].State)
		require.False(t, p.deliver(polled{messages: messages}), "too late")
		require.False(t, p.waited())
	})
}

// slowChanges has each request that changes visibility timeouts take d, unless it is broken
// off.
func slowChanges(q *queue, d time.Duration) {
	send := q.changes.send
	q.changes.send = func(ctx context.Context, ss []*settlement) error {
		select {
		case <-time.After(d):
			return send(ctx, ss)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestCloseBreaksNoReturnOff: what is being returned when its queue is closed, and what is
// returned after that, is there for others at once, however slow SQS is.
func TestCloseBreaksNoReturnOff(t *testing.T) {
	inFake(t, func(t *testing.T) {
		top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
		q := openQueue(t, top, engine.QueueSpec{Name: "q", Visibility: time.Hour})
		publish(t, top, many(6)...)
		var rs []engine.Received
		for len(rs) < 6 {
			got, err := q.Receive(t.Context(), 6-len(rs), 0)
			require.NoError(t, err)
			rs = append(rs, got...)
		}
		slowChanges(q, 2*time.Second)
		began := time.Now()
		ended := make(chan error, 6)
		giveBack := func(k int) { ended <- q.Return(t.Context(), rs[k].Receipt, 0, nil) }
		for k := range 3 { // two are sent, and one waits for them
			go giveBack(k)
		}
		time.Sleep(time.Second)
		require.NoError(t, q.Close())
		for k := 3; k < 6; k++ {
			go giveBack(k)
		}
		for range 6 {
			require.NoError(t, <-ended)
		}
		require.LessOrEqual(t, time.Since(began), closeMost)
		for _, m := range fakeOf(t).Queue("p-q").Messages() {
			require.Equal(t, fakeaws.Visible, m.State)
		}
		require.NoError(t, top.Close())
	})
}

// TestAReturnIsTriedAgainAfterClose, as before, while SQS has no time for it.
func TestAReturnIsTriedAgainAfterClose(t *testing.T) {
	inFake(t, func(t *testing.T) {
		top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
		q := openQueue(t, top, engine.QueueSpec{Name: "q", Visibility: time.Hour})
		publish(t, top, message("a", "1"))
		rs, err := q.Receive(t.Context(), 1, 0)
		require.NoError(t, err)
		send, tries := q.changes.send, 0
		q.changes.send = func(ctx context.Context, ss []*settlement) error {
			if tries++; tries < 3 {
				return &smithy.GenericAPIError{Code: "ThrottlingException"}
			}
			return send(ctx, ss)
		}
		require.NoError(t, q.Close())
		require.NoError(t, q.Return(t.Context(), rs[0].Receipt, 0, nil))
		require.Equal(t, 3, tries)
		require.Equal(t, fakeaws.Visible, fakeOf(t).Queue("p-q").Messages()[0].State)
	})
}

// TestAReturnWorksLongAfterClose, when no request of before may go on any more.
func TestAReturnWorksLongAfterClose(t *testing.T) {
	inFake(t, func(t *testing.T) {
		top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
		q := openQueue(t, top, engine.QueueSpec{Name: "q", Visibility: time.Hour})
		publish(t, top, message("a", "1"))
		rs, err := q.Receive(t.Context(), 1, 0)
		require.NoError(t, err)
		require.NoError(t, q.Close())
		time.Sleep(2 * closeMost)
		require.NoError(t, q.Return(t.Context(), rs[0].Receipt, 0, nil))
		require.Equal(t, fakeaws.Visible, fakeOf(t).Queue("p-q").Messages()[0].State)
	})
}
