package topic

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/queue"
)

// A consumer that finds nothing goes to sleep at the very moment when the next
// message is published, over and over: it must see one of the two, the message
// or the wake-up. In a bubble goroutines run in parallel as anywhere, and one
// whose wake-up was lost is known to sleep for ever.
func TestPromise03NoWakeUpIsLostBetweenALookAndASleep(t *testing.T) {
	rounds := 200_000
	if testing.Short() {
		rounds = 10_000
	}
	for _, row := range []struct {
		name    string
		consume func(ctx context.Context, t *testing.T, top *Topic[int], took func())
	}{
		{"of a receiver", func(ctx context.Context, t *testing.T, top *Topic[int], took func()) {
			q := openQueue(t, top, "q")
			go func() {
				for d, err := range deliveriesOf(q, ctx) {
					if err != nil || d.Ack(ctx) != nil {
						return // when the topic is closed
					}
					took()
				}
			}()
		}},
		{"of a subscriber", func(_ context.Context, t *testing.T, top *Topic[int], took func()) {
			subscribe(t, top, "q", func(context.Context, delivery.Delivery[int]) error {
				took()
				return nil
			})
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				var taken, idle atomic.Int64
				row.consume(ctx, t, top, func() { taken.Add(1) })
				rnd := rand.New(rand.NewPCG(1, 1))
				for n := range int64(rounds) {
					require.NoError(t, top.In.Publish(ctx, int(n)))
					for spins := 0; taken.Load() <= n; spins++ {
						if spins == 5000 { // it has been taken from its processor, or sleeps
							synctest.Wait()
							require.Greater(t, taken.Load(), n, "message %d is ready and its consumer sleeps", n)
						}
					}
					for range rnd.IntN(300) {
						idle.Load() // the next one comes a little earlier or later
					}
				}
				top.Close()
			})
		})
	}
}

func TestAMessageThatIsPublishedWhileItsConsumerGoesToSleepIsSeen(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		top.In.Idle.Mu.Lock() // a consumer that has found nothing stops here
		got := make(chan int, 1)
		go func() {
			if d, err := receiveFrom(q, ctx); err == nil {
				got <- d.Body
				_ = d.Ack(ctx)
			}
		}()
		for held := 0; held < 1000; {
			if q.Mu.TryLock() {
				q.Mu.Unlock()
				held = 0
			} else {
				held++ // by the receiver
			}
			runtime.Gosched()
		}
		publish(t, top, 1) // nobody is in the list of idle queues
		top.In.Idle.Mu.Unlock()
		synctest.Wait()
		require.Len(t, got, 1, "the receiver sleeps beside a message")
		top.Close()
	})
}

// A fickle context ends after it has been asked some times, as if that had
// happened just before.
type fickle struct {
	context.Context
	asked, until int
}

func (c *fickle) Err() error {
	if c.asked++; c.asked > c.until {
		return context.Canceled
	}
	return nil
}

func TestAReceiverThatEndsAsItIsWokenHandsTheWakeUpOn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		ended, got := make(chan error, 1), make(chan int, 1)
		go func() {
			_, err := receiveFrom(q, &fickle{Context: ctx, until: 1})
			ended <- err
		}()
		synctest.Wait()
		go func() {
			if d, err := receiveFrom(q, ctx); err == nil {
				got <- d.Body
				_ = d.Ack(ctx)
			}
		}()
		synctest.Wait()
		publish(t, top, 1) // wakes the first receiver, which comes to nothing
		synctest.Wait()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.Len(t, got, 1, "the second receiver sleeps beside a message")
		top.Close()
	})
}

func TestAReceiverThatIsWokenInVainIsWokenAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		got := make(chan int, 1)
		go func() {
			if d, err := receiveFrom(q, ctx); err == nil {
				got <- d.Body
				_ = d.Ack(ctx)
			}
		}()
		synctest.Wait()
		// As a publish does whose message somebody else takes.
		top.In.Idle.Mu.Lock()
		require.Equal(t, []*queue.Queue[int]{q}, top.In.Idle.TakeLocked())
		top.In.Idle.Mu.Unlock()
		q.Mu.Lock()
		q.Group.Receivers.Wake()
		q.Mu.Unlock()
		synctest.Wait()
		require.Empty(t, got)
		publish(t, top, 1)
		synctest.Wait()
		require.Len(t, got, 1, "the receiver sleeps beside a message")
		top.Close()
	})
}
