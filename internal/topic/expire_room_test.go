package topic

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// until requires that f returns nil after exactly d.
func until(t *testing.T, d time.Duration, f func() error) {
	t.Helper()
	start := time.Now()
	require.NoError(t, f())
	require.Equal(t, d, time.Since(start))
}

// What expires in a queue while its filters are asked about what it replays goes to
// the dead-letter queue that one of its name has left, whether it is opened or not.
func TestWhatExpiresInAQueueThatIsBeingOpenedGoesToItsDeadLetters(t *testing.T) {
	for name, fails := range map[string]bool{"opened": false, "not opened": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, WithRetention(1))
				old := openQueue(t, top, "audit")
				publish(t, top, 1)
				require.NoError(t, receive(t, old).Settle(ctx, message.Permanent(errBusy)))
				letters := old.DeadLetters()
				require.NoError(t, lifecycle.Close(old))
				asked, goOn := false, make(chan struct{})
				opened := make(chan error, 1)
				go func() {
					_, err := top.OpenQueue(ctx, "audit", WithReplay(1), WithCapacity(2), WithTimeToLive(time.Second), WithFilter(func(n int) bool {
						if n == 1 && !asked {
							asked = true
							<-goOn
							if fails {
								panic("a filter that fails")
							}
						}
						return n > 1
					}))
					opened <- err
				}()
				synctest.Wait()
				require.True(t, asked)
				publish(t, top, 2) // and one place is set aside for what is replayed
				elapse(time.Second)
				require.NoError(t, top.In.TryPublish(ctx, 3))
				require.Equal(t, []int{1, 2}, bodies(t, letters))
				close(goOn)
				err := <-opened
				if fails {
					require.ErrorContains(t, err, "a filter that fails")
					q := openQueue(t, top, "audit")
					require.Same(t, letters, q.DeadLetters())
				} else {
					require.NoError(t, err)
				}
				check(t, top)
				require.NoError(t, top.Close())
				<-top.Done()
			})
		})
	}
}

// A queue that what expired leaves empty is drained, though the publish that wanted
// room there fails for want of it in another queue.
func TestAQueueIsDrainedByWhatExpires(t *testing.T) {
	for name, waits := range map[string]bool{"a publish waits": true, "a publish does not wait": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				is := func(want int) QueueOption { return WithFilter(func(n int) bool { return n == want || n == 9 }) }
				overflow := WithOverflow(settings.Reject)
				if waits {
					overflow = WithOverflow(settings.Block)
				}
				expiring := openQueue(t, top, "expiring", is(1), WithCapacity(1), overflow, WithTimeToLive(time.Minute))
				full := openQueue(t, top, "full", is(2), WithCapacity(1), overflow)
				handling := openQueue(t, top, "handling", is(3), WithVisibilityTimeout(time.Hour))
				publish(t, top, 1, 2, 3)
				failed := make(chan error, 1)
				_, err := subscribeTo(handling, ctx, func(ctx context.Context, d delivery.Delivery[int]) error {
					if waits {
						ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
						defer cancel()
						failed <- top.In.Publish(ctx, 9)
						return nil
					}
					time.Sleep(time.Minute)
					failed <- top.In.TryPublish(ctx, 9)
					return nil
				})
				require.NoError(t, err)
				ended := make(chan error, 1)
				go func() {
					ctx, cancel := context.WithTimeout(ctx, time.Hour)
					defer cancel()
					ended <- top.Shutdown(ctx)
				}()
				require.Error(t, <-failed)
				synctest.Wait()
				require.Empty(t, ended)
				require.Equal(t, []int{1}, bodies(t, expiring.DeadLetters()))
				require.NoError(t, receive(t, full).Ack(ctx))
				until(t, 0, func() error { return <-ended })
			})
		})
	}
}
