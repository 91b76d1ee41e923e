package ending_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// A Shutdown that waits for what a loop over Deliveries has ends as the last message is
// acknowledged, whether the loop goes on or not, and whoever gets what it has not yielded.
func TestAShutdownEndsAsALoopAcknowledgesItsLast(t *testing.T) {
	const messages = 10
	for _, yielded := range []int{1, 2, 9, messages} {
		for _, leaves := range []bool{false, true} {
			t.Run(fmt.Sprint(yielded, leaves), func(t *testing.T) {
				kit.Bubble(t, func(t *testing.T, ctx context.Context) {
					top := kit.NewTopic[int](t)
					q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(time.Hour))
					for k := range messages {
						kit.Publish(t, top, k)
					}
					began, ended := time.Now(), make(chan time.Duration, 1)
					got := 0
					for d, err := range q.Deliveries(ctx) {
						require.NoError(t, err)
						if got++; got == yielded {
							go func() {
								_ = top.Shutdown(ctx)
								ended <- time.Since(began)
							}()
							synctest.Wait()
							time.Sleep(10 * time.Second)
						}
						require.NoError(t, d.Ack(ctx))
						if leaves && got == yielded {
							break
						}
					}
					for ; got < messages; got++ {
						require.NoError(t, kit.Receive(t, q).Ack(ctx))
					}
					require.Equal(t, 10*time.Second, <-ended)
				})
			})
		}
	}
}
