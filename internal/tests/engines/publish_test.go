// A publish that was sent, and whose answer is not known, says so.

package engines_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// A publish that was sent, and whose answer is not known, says so.
func TestAPublishOnAnEngineSaysWhetherItsErrorIsUnconfirmed(t *testing.T) {
	for name, row := range map[string]struct {
		fault fakeengine.Fault
		want  []error // that it is
		not   []error
	}{
		"ctx ends under way":      {fakeengine.Fault{Latency: time.Hour}, []error{fanout.ErrUnconfirmed, context.DeadlineExceeded}, nil},
		"the engine says so":      {fakeengine.Fault{Err: engine.ErrUnconfirmed, Lost: true}, []error{fanout.ErrUnconfirmed, engine.ErrUnconfirmed}, nil},
		"the engine has refused":  {fakeengine.Fault{Err: errBroken}, []error{errBroken}, []error{fanout.ErrUnconfirmed}},
		"it is closed":            {fakeengine.Fault{Err: engine.ErrClosed}, []error{fanout.ErrClosed}, []error{fanout.ErrUnconfirmed}},
		"there is no room for it": {fakeengine.Fault{Err: engine.ErrFull}, []error{fanout.ErrQueueFull}, []error{fanout.ErrUnconfirmed}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := fakeengine.New(fakeengine.Config{})
				top := onEngine(t, e)
				q := engineQueue(t, top)
				row.fault.Op, row.fault.Nth = fakeengine.Publish, 1
				e.Inject(row.fault)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := top.Publish(ctx, "a")
				for _, want := range row.want {
					require.ErrorIs(t, err, want)
				}
				for _, not := range row.not {
					require.NotErrorIs(t, err, not)
				}
				n, err := q.Depth(t.Context())
				require.NoError(t, err)
				if row.fault.Lost {
					require.Equal(t, 1, n.Unsettled())
				} else {
					require.Zero(t, n.Unsettled())
				}
				endTopic(t, top)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		engineQueue(t, top)
		err := top.Publish(ended, "a")
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, fanout.ErrUnconfirmed, "nothing was sent")
		endTopic(t, top)
	})
}
