package fanoutnats

import (
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/stretchr/testify/require"
)

func TestLeasesThatNobodySettlesAreForgotten(t *testing.T) {
	q := &queue{topic: &topic{}, leases: map[uint64]*lease{}, ackWait: time.Hour}
	add := func(sequence uint64, d time.Duration) *lease {
		l := &lease{queue: q, sequence: sequence}
		require.NoError(t, q.addLeases([]*lease{l}, time.Now(), d))
		return l
	}
	long := add(1, time.Hour)
	for n := range uint64(5000) {
		add(2+n, time.Nanosecond)
	}
	require.LessOrEqual(t, len(q.leases), 1100)
	_, err := q.take(long)
	require.NoError(t, err, "a lease that runs stays")
	_, err = q.take(long)
	require.ErrorIs(t, err, engine.ErrStale)
}

func TestALeaseEndsWhenItsMessageIsReceivedAgain(t *testing.T) {
	q := &queue{topic: &topic{}, leases: map[uint64]*lease{}, ackWait: time.Hour}
	old, newer := &lease{queue: q, sequence: 1, deliveries: 1}, &lease{queue: q, sequence: 1, deliveries: 2}
	require.NoError(t, q.addLeases([]*lease{old}, time.Now(), time.Minute))
	require.NoError(t, q.addLeases([]*lease{newer}, time.Now(), time.Minute))
	_, err := q.take(old)
	require.ErrorIs(t, err, engine.ErrStale)
	_, err = q.take(newer)
	require.NoError(t, err)
}

func TestALeaseIsOverWhenTheServerMayHaveGivenTheMessageToAnother(t *testing.T) {
	q := &queue{topic: &topic{}, leases: map[uint64]*lease{}, ackWait: time.Minute}
	l := &lease{queue: q, sequence: 1}
	require.NoError(t, q.addLeases([]*lease{l}, time.Now().Add(-time.Minute), time.Hour), "it was an hour that was asked for")
	_, err := q.take(l)
	require.ErrorIs(t, err, engine.ErrStale)
}
