package main

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/gofanout/fanout"
)

// A summary is what is told at the end.
type summary struct {
	began          time.Time
	deliveries     atomic.Uint64
	published      atomic.Uint64 // messages
	repeated       atomic.Uint64 // published again, with the same deduplication IDs
	rounds         atomic.Uint64
	opened, closed atomic.Uint64 // queues, by slots
	together       atomic.Uint64 // deliveries that AckBatch acknowledged
	notTogether    atomic.Uint64 // and refused
	timedOut       atomic.Uint64 // handlers that their own timeout ended

	mu           sync.Mutex
	refused      map[string]uint64 // messages, by why
	ended        map[fanout.Cause]uint64
	dead         uint64
	redriven     uint64
	parked       uint64
	dropped      uint64
	left         uint64
	lettersAcked uint64
	queues       uint64
	maxInFlight  int
	peakHeap     uint64
}

func newSummary() *summary {
	return &summary{began: time.Now(), refused: map[string]uint64{}, ended: map[fanout.Cause]uint64{}}
}

// publish counts how a publish of n messages ended.
func (s *summary) publish(err error, n int) {
	if err == nil {
		s.published.Add(uint64(n))
		return
	}
	why := "context ended"
	for e, text := range map[error]string{
		fanout.ErrClosed: "closed", fanout.ErrQueueFull: "queue full", fanout.ErrBatchTooLarge: "batch too large",
		fanout.ErrWouldDeadlock: "would deadlock",
	} {
		if errors.Is(err, e) {
			why = text
		}
	}
	s.mu.Lock()
	s.refused[why] += uint64(n)
	s.mu.Unlock()
}

// batchAcked counts how a call of AckBatch ended.
func (s *summary) batchAcked(as []uint8) {
	for _, r := range as {
		if r == 0 {
			s.together.Add(1)
		} else {
			s.notTogether.Add(1)
		}
	}
}

// sample notes what the sampler saw.
func (s *summary) sample(inFlight int, heap uint64) {
	s.mu.Lock()
	s.maxInFlight = max(s.maxInFlight, inFlight)
	s.peakHeap = max(s.peakHeap, heap)
	s.mu.Unlock()
}

// add adds the counters of a queue that is closed.
func (s *summary) add(st, letters fanout.Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, n := range causes(st) {
		s.ended[c] += n
	}
	s.queues++
	s.dead += st.DeadLettered
	s.redriven += st.Redriven
	s.parked += st.TimesParked
	s.dropped += st.Dropped
	s.left += st.Left
	s.lettersAcked += letters.Acked
}

// write prints the table.
func (s *summary) write(out io.Writer, now time.Time, violations int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	took := now.Sub(s.began)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(what string, n uint64) { fmt.Fprintf(t, "%s\t%d\t\n", what, n) }
	n := s.deliveries.Load()
	fmt.Fprintf(t, "\t\t\n")
	row("deliveries", n)
	row("deliveries a second", uint64(float64(n)/took.Seconds()))
	fmt.Fprintf(t, "took\t%v\t\n", took.Round(time.Millisecond))
	row("rounds", s.rounds.Load())
	row("messages published", s.published.Load())
	row("published again", s.repeated.Load())
	for _, why := range []string{"queue full", "context ended", "closed", "batch too large", "would deadlock"} {
		row("refused: "+why, s.refused[why])
	}
	row("queues, all rounds", s.queues)
	row("closed while in use", s.closed.Load())
	for c := fanout.Acked; c <= fanout.Released; c++ {
		row("attempts "+c.String(), s.ended[c])
	}
	row("acknowledged by AckBatch", s.together.Load())
	row("refused by AckBatch", s.notTogether.Load())
	row("handler timeouts", s.timedOut.Load())
	row("dead letters", s.dead)
	row("parked on the way", s.parked)
	row("redriven", s.redriven)
	row("acknowledged as letters", s.lettersAcked)
	row("dropped, purges included", s.dropped)
	row("left over", s.left)
	row("most in flight", uint64(s.maxInFlight))
	fmt.Fprintf(t, "peak heap\t%d MB\t\n", s.peakHeap>>20)
	verdict := "balanced"
	if violations > 0 {
		verdict = fmt.Sprintf("BROKEN, %d times", violations)
	}
	fmt.Fprintf(t, "ledger\t%s\t\n", verdict)
	_ = t.Flush()
}
