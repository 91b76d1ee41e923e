// A purge on an engine counts what it removes once.

package engines_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// What is in flight in this process is in the engine, too.
func TestAPurgeCountsWhatIsInFlightOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		top := onEngine(t, fakeengine.New(fakeengine.Config{}), fanout.WithHooks(fanout.Hooks{Dropped: func(ev fanout.Event) { told += ev.Count }}))
		q := engineQueue(t, top)
		require.NoError(t, top.PublishMessages(t.Context(), make([]fanout.Message[string], 100)...))
		ds, err := q.ReceiveBatch(t.Context(), 20)
		require.NoError(t, err)
		require.Len(t, ds, 20)
		n, err := q.Purge(t.Context())
		require.NoError(t, err)
		require.Equal(t, 100, n)
		require.EqualValues(t, 100, q.Stats().Dropped)
		synctest.Wait()
		require.Equal(t, 100, told)
		endTopic(t, top)
	})
}
