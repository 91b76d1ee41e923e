package alive

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestTheChannelClosesWhenNothingIsAlive(t *testing.T) {
	var c Count
	c.Add(2)
	done := c.Awaitable()
	c.Add(1)
	c.Release()
	c.Release()
	require.False(t, closed(done))
	require.Equal(t, done, c.Awaitable())
	c.Release()
	require.True(t, closed(done))
	require.True(t, closed(c.Awaitable()))
}

func TestWhoAsksAfterTheEndHasNotToWait(t *testing.T) {
	var c Count
	c.Add(1)
	c.Release()
	require.True(t, closed(c.Awaitable()))
}
