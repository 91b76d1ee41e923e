package handling

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

func TestAContextTellsItsCauseHoweverItIsAsked(t *testing.T) {
	for how, ask := range map[string]func(ctx context.Context) error{
		"the cause": context.Cause,
		"of a child": func(ctx context.Context) error {
			c, end := context.WithCancel(ctx)
			defer end()
			return context.Cause(c)
		},
		"of a child's value": func(ctx context.Context) error { return context.Cause(context.WithValue(ctx, runKey{}, 1)) },
	} {
		for _, before := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				c := &NewContexts(nil, nil).All[7]
				if before {
					c.Done()
				}
				require.NoError(t, c.Err())
				require.NoError(t, ask(c))
				c.Cancel(message.ErrStale)
				c.Cancel(message.ErrClosed)
				require.Equal(t, message.ErrStale, ask(c), "%s: the first cause counts", how)
				require.Equal(t, context.Canceled, c.Err())
				<-c.Done()
				require.Equal(t, message.ErrStale, ask(c), how)
			})
		}
	}
}

func TestAContextAllocatesNothingUntilDoneIsAsked(t *testing.T) {
	type key struct{}
	c := &NewContexts(nil, nil).All[7]
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if c.Err() != nil || c.Value(key{}) != nil || context.Cause(c) != nil {
			t.Error("it was cancelled")
		}
	}))
}
