package filter

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestThereIsNoLockClockOrGoroutine: what a filter may import says what it can do.
func TestThereIsNoLockClockOrGoroutine(t *testing.T) {
	text, err := os.ReadFile("filter.go")
	require.NoError(t, err)
	for _, not := range []string{"\tgo ", "chan ", `"sync`, `"time`, `"context`} {
		require.NotContains(t, string(text), not)
	}
}
