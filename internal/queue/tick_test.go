package queue

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/settings"
)

func TestATickThatFindsNothingAllocatesNothing(t *testing.T) {
	core, err := core.New("t", settings.Topic{})
	require.NoError(t, err)
	q := NewDeadLetterQueue[int](core, nil, "letters", settings.DefaultQueue().Limits)
	require.Zero(t, testing.AllocsPerRun(100, q.Tick))
}

func TestAQueueThatHeldNothingKeepsNothing(t *testing.T) {
	q := new(Queue[int])
	q.KeepLeftLocked(nil)
	require.Nil(t, q.onDemand)
}
