package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

func TestALookTakesBackWhatWaitsInLeasesOfAnAge(t *testing.T) {
	var s Store[int]
	s.Init("q", &settings.Limits{Capacity: 40, MaxAttempts: message.Unlimited}, clockFor(t), new(block.Pool))
	s.Direct = true
	items := make([]message.Item[int], 3)
	first, second, done, whole := &worker{items: items}, &worker{items: items}, &worker{items: items}, &worker{items: items}
	table := s.OpenLeases()
	require.True(t, table.Ack(table.First(table.InStep(done, 1, 900, 100))))
	table.Whole(whole, 3, 900, 200)
	table.InStep(first, 3, 1000, 100)
	table.InStep(second, 3, 1002, 100)

	require.EqualValues(t, 1005, s.Rest(1001, 5, 40), "the first of the two that will be of an age")
	require.EqualValues(t, 4, s.Delivered, "of those in which nothing waits all is counted")
	require.Zero(t, first.forgets+second.forgets)
	require.EqualValues(t, 1007, s.Rest(1005, 5, 40))
	require.Equal(t, 2, s.In(Backlogged))
	require.Equal(t, []int{1, 0}, []int{first.forgets, second.forgets})
	require.Zero(t, s.Rest(1007, 5, 40))
	require.Equal(t, 4, s.In(Backlogged))
	require.Equal(t, []int{1, 1}, []int{first.forgets, second.forgets})
	require.EqualValues(t, 6, s.Delivered)
	require.Zero(t, done.forgets+whole.forgets, "nothing waits there")
	s.TakeBack(table.InStep(first, 3, 1007, 100))
	require.EqualValues(t, 7, s.Delivered, "its current one has begun")
}
