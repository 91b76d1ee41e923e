package fanout

// What the black-box tests of the root are shown of the inside. CheckInvariants, for the
// model's driver, is in helpers_test.go.

import (
	"testing"
	"time"
)

// ErrNilContext is what a nil context gets.
var ErrNilContext = errNilContext

// Check walks the invariants that stand above Queue and Topic. Nothing else may run on
// the topic meanwhile but consumers.
func Check[T any](t *testing.T, top *Topic[T]) {
	t.Helper()
	check(t, top)
}

// Sequence is the number of a delivery's message in its topic.
func Sequence[T any](d Delivery[T]) uint64 { return d.seq }

// KeysKept is how many ordering keys the queue keeps.
func KeysKept[T any](q *Queue[T]) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.keys)
}

// TimerArmed reports whether the queue's timer is armed, or that of its log lines.
func TimerArmed[T any](q *Queue[T]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.alarm.armed || q.report.Armed()
}

// After is how long a backoff waits after so many attempts.
func After(b Backoff, attempt int) time.Duration { return b.after(attempt) }
