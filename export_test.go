package fanout

// What the black-box tests of this package are shown of the inside.

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

var (
	ErrNilContext = message.ErrNilContext
	EventOf       = eventOf
	Listen        = (*Hooks).listen
)

// LastReason is the last that has a name.
const LastReason = lastReason

// Check walks the invariants that stand above Queue and Topic of the packages below. Nothing
// else may run on the topic meanwhile but consumers.
func Check[T any](t *testing.T, top *Topic[T]) {
	t.Helper()
	require.NoError(t, top.core.Check())
}

// Sequence is the number of a delivery's message in its topic.
func Sequence[T any](d Delivery[T]) uint64 { return d.receipt.Sequence() }

// KeysKept is how many ordering keys the queue keeps.
func KeysKept[T any](q *Queue[T]) int { return q.core.Inside().Keys }

// TimerArmed reports whether the queue's timer is armed, or that of its log lines.
func TimerArmed[T any](q *Queue[T]) bool { return q.core.Inside().TimerArmed }

// After is how long a backoff waits after so many attempts.
func After(b Backoff, attempt int) time.Duration { return b.rule.After(attempt) }
