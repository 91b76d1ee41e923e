package program

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// A snapshot is what one sees of the queues at one time.
type snapshot struct {
	at        time.Time
	published int
	all       int
	waiting   bool // the payment service waits for room
	queues    []queueView
}

type queueView struct {
	fanout.Stats
	held
	room string  // of the depth, empty if it has no bound
	most int     // the depth that fills the bar
	rate float64 // settled a second
}

func (c *checkout) snapshot(ctx context.Context) snapshot {
	t := c.topic.Stats()
	s := snapshot{at: time.Now(), published: int(t.Published), all: c.load.Len(), waiting: t.Waiting > 0}
	for _, q := range c.queues {
		v := queueView{Stats: q.Stats(), most: s.all}
		v.held, _ = c.held(ctx, q) // an engine that doesn't answer is not worth a look
		if c.engine == nil {
			v.room, v.most = fmt.Sprint(v.Capacity), v.Capacity
		}
		s.queues = append(s.queues, v)
	}
	return s
}

// depthOf is the depth, and of how much, with a word or sign between.
func (q queueView) depthOf(between string) string {
	if q.room == "" {
		return number(q.depth)
	}
	return fmt.Sprintf("%d%s%s", q.depth, between, q.room)
}

// rates works out how fast the queues were since the snapshot before, evened out.
func (s *snapshot) rates(before snapshot) {
	seconds := s.at.Sub(before.at).Seconds()
	if seconds <= 0 {
		return
	}
	for i := range s.queues {
		q, was := &s.queues[i], queueView{}
		if before.queues != nil {
			was = before.queues[i]
		}
		now := float64(q.Acked-was.Acked) / seconds
		weight := 1.0
		if before.queues != nil {
			weight = min(1, seconds) // the last second counts
		}
		q.rate = was.rate*(1-weight) + now*weight
	}
}

// failed counts the attempts that will be made again, or that were the last.
func (q queueView) failed() uint64 {
	return q.Failed + q.Panicked + q.Exited + q.TimedOut + q.Nacked
}

// line is the snapshot in one line.
func (s snapshot) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "published %s of %s", number(s.published), number(s.all))
	for _, q := range s.queues {
		fmt.Fprintf(&b, " | %s: depth %s, %d in flight, %s retried, %s dead, %s settled, %s/s",
			q.Queue, q.depthOf(" of "), q.InFlight, number(q.failed()), number(q.dead), number(q.Acked), number(int(q.rate)))
	}
	return b.String()
}

// board is the snapshot as a table with bars, less than 80 columns wide.
func (s snapshot) board() string {
	const width = 12
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s%-*s %9s %9s %9s %7s %10s %6s\n", "", width, "depth", "", "in flight", "retried", "dead", "settled", "a sec.")
	for _, q := range s.queues {
		fmt.Fprintf(&b, "%-10s%s %9s %9d %9s %7s %10s %6s\n", q.Queue, bar(q.depth, q.most, width),
			q.depthOf("/"), q.InFlight, number(q.failed()), number(q.dead), number(q.Acked), number(int(q.rate)))
	}
	note := ""
	if s.waiting {
		note = "  waiting for room"
	}
	fmt.Fprintf(&b, "%-10s%s %s of %s%s\n", "published", bar(s.published, s.all, width), number(s.published), number(s.all), note)
	return b.String()
}

// bar is as full as n of most. It is empty only if n is none, and full only if
// n is all.
func bar(n, most, width int) string {
	full := 0
	switch {
	case n >= most:
		full = width
	case n > 0:
		full = max(n*width/most, 1)
	}
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// number writes a count with its thousands apart.
func number[N int | uint64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
