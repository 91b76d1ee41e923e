package fanout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A BatchError is returned by [Queue.AckBatch] when some of the deliveries were not
// acknowledged. The others were. It unwraps to the errors in Failed, in the order of their
// indexes, so that errors.Is finds [ErrStale] if any of them is that.
type BatchError struct {
	Queue string
	// Failed has an error for the index of each delivery that was not
	// acknowledged, which names its message.
	Failed map[int]error
}

// mostTold is how many of its errors a BatchError's text has.
const mostTold = 10

// Error says how many failed, and names the first ten.
func (e *BatchError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fanout: batch of queue %q: %d not acknowledged", e.Queue, len(e.Failed))
	sep := ": "
	for n, k := range e.indexes() {
		if n == mostTold {
			fmt.Fprintf(&b, "; and %d more", len(e.Failed)-n)
			break
		}
		fmt.Fprintf(&b, "%s%d: %v", sep, k, e.Failed[k])
		sep = "; "
	}
	return b.String()
}

// Unwrap returns the errors in the order of their indexes.
func (e *BatchError) Unwrap() []error {
	errs := make([]error, 0, len(e.Failed))
	for _, k := range e.indexes() {
		errs = append(errs, e.Failed[k])
	}
	return errs
}

func (e *BatchError) indexes() []int { return slices.Sorted(maps.Keys(e.Failed)) }

// with returns e, or a new BatchError if e is nil, with one more error.
func (e *BatchError) with(queue string, k int, err error) *BatchError {
	if e == nil {
		e = &BatchError{Queue: queue, Failed: make(map[int]error)}
	}
	e.Failed[k] = err
	return e
}
