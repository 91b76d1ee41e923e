package callback

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestApartSaysHowACallEnded(t *testing.T) {
	called := false
	e := Apart(func() { called = true })
	require.Equal(t, End{Returned: true}, e)
	require.True(t, called)

	e = Apart(func() { panic("no") })
	require.False(t, e.Returned)
	require.Equal(t, "no", e.Panicked)
	require.Contains(t, e.Stack, "TestApartSaysHowACallEnded")

	require.Equal(t, End{}, Apart(runtime.Goexit))
}

func TestEachMakesAllCallsThoughOneExits(t *testing.T) {
	var made []int
	done := make(chan struct{})
	go func() {
		defer close(done)
		Each(4, func(k int) {
			made = append(made, k)
			if k%2 == 1 {
				runtime.Goexit()
			}
		})
	}()
	<-done
	require.Equal(t, []int{0, 1, 2, 3}, made)
	Each(0, func(int) { t.Error("called") })
}
