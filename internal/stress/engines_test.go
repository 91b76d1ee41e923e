package main

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestAWorldOnAnEngineBalancesInVirtualTime(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			w := newEngineWorld(seed, newSummary())
			require.NoError(t, w.play())
			require.Empty(t, w.prove())
			require.NotZero(t, w.sum.deliveries.Load())
		})
	}
}

func TestWhatIsLostOnAnEngineIsNoticed(t *testing.T) {
	for promise, row := range map[string]struct {
		calm bool
		f    messageFate
	}{
		"":             {true, messageFate{state: accepted, queues: [3]queueFate{{got: 1, nils: 1}, {got: 3, letters: 1}, {got: 2, nils: 1}}}},
		"nothing lost": {false, messageFate{state: accepted, queues: [3]queueFate{{nils: 2}, {got: 3}, {letters: 1}}}},
		"all or none":  {false, messageFate{state: refused, queues: [3]queueFate{{got: 1, nils: 1}}}},
		"one end":      {true, messageFate{state: underWay, queues: [3]queueFate{{nils: 1}, {nils: 1, letters: 1}}}},
	} {
		w := &engineWorld{calm: row.calm}
		w.fates[7] = row.f
		var want []string
		if promise != "" {
			want = []string{promise}
		}
		require.Equal(t, want, promises(w.prove()))
	}
}
