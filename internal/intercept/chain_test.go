package intercept

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// A chain is used again only if nobody can call what a run of it gave out.
func TestAChainIsUsedAgainIfEachNextWasCalledOnce(t *testing.T) {
	once := func(ctx context.Context, _ Info, next func(context.Context) error) error { return next(ctx) }
	never := func(context.Context, Info, func(context.Context) error) error { return nil }
	twice := func(ctx context.Context, _ Info, next func(context.Context) error) error {
		return errors.Join(next(ctx), next(ctx))
	}
	second := func() Interceptor { // calls next in its second run only
		runs := 0
		return func(ctx context.Context, _ Info, next func(context.Context) error) error {
			if runs++; runs == 1 {
				return nil
			}
			return next(ctx)
		}
	}
	for name, row := range map[string]struct {
		is    []Interceptor
		calls int
		again bool
	}{
		"one":                               {[]Interceptor{once}, 1, true},
		"two":                               {[]Interceptor{once, once}, 1, true},
		"three":                             {[]Interceptor{once, once, once}, 1, true},
		"one that does not call":            {[]Interceptor{never}, 0, false},
		"the second does not call":          {[]Interceptor{once, never}, 0, false},
		"one that calls twice":              {[]Interceptor{twice}, 2, false},
		"twice, and never behind":           {[]Interceptor{twice, never}, 0, false},
		"twice, once, never":                {[]Interceptor{twice, once, never}, 0, false},
		"twice, of which one leaves it out": {[]Interceptor{twice, second()}, 1, false},
		"the same before a third":           {[]Interceptor{twice, second(), once}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			c := NewChain(row.is, func(context.Context) error { calls++; return nil })
			require.NoError(t, row.is[0](t.Context(), Info{}, c.Next))
			require.Equal(t, row.calls, calls)
			require.Equal(t, row.again, c.Over())
			if row.again {
				require.NoError(t, row.is[0](t.Context(), Info{}, c.Next))
				require.True(t, c.Over())
			}
		})
	}
}

// While any next runs, the chain is in use.
func TestAChainIsInUseWhileAnyNextRuns(t *testing.T) {
	done, goOn := make(chan struct{}), make(chan struct{})
	leave := func(ctx context.Context, _ Info, next func(context.Context) error) error {
		called := make(chan struct{})
		go func() {
			defer close(done)
			_ = next(context.WithValue(ctx, t, called))
		}()
		<-called
		return nil
	}
	lingers := func(ctx context.Context, _ Info, next func(context.Context) error) error {
		err := next(ctx)
		close(ctx.Value(t).(chan struct{}))
		<-goOn
		return err
	}
	c := NewChain([]Interceptor{leave, lingers}, func(context.Context) error { return nil })
	require.NoError(t, leave(t.Context(), Info{}, c.Next))
	require.False(t, c.Over(), "the second interceptor reads its Info still")
	close(goOn)
	<-done
}

func TestACallGoesThroughAllInTheirOrder(t *testing.T) {
	broken := errors.New("broken")
	for n := range 4 {
		var order []string
		var is []Interceptor
		for k := range n {
			is = append(is, func(ctx context.Context, info Info, next func(context.Context) error) error {
				order = append(order, fmt.Sprintf("%s before %d", info.Queue, k))
				err := next(ctx)
				order = append(order, fmt.Sprintf("after %d: %v", k, err))
				return err
			})
		}
		err := Call(t.Context(), is, Info{Queue: "q"}, func(context.Context) error {
			order = append(order, "call")
			return broken
		})
		require.ErrorIs(t, err, broken)
		want := []string{"call"}
		for k := n - 1; k >= 0; k-- {
			want = append(append([]string{fmt.Sprintf("q before %d", k)}, want...), fmt.Sprintf("after %d: broken", k))
		}
		require.Equal(t, want, order)
	}
}
