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

// lines is the snapshot for a pipe: a line for the payments and one for each queue, all
// under 90 columns wide.
func (s snapshot) lines() []string {
	lines := []string{fmt.Sprintf("published  %s of %s%s", number(s.published), number(s.all), s.note())}
	for _, q := range s.queues {
		lines = append(lines, fmt.Sprintf("%-10s %s settled, %s/s; %s held; %s retried; %s dead",
			q.Queue, number(q.Acked), number(int(q.rate)), q.depthOf(" of "), number(q.failed()), number(q.dead)))
	}
	return lines
}

// note says what is worth a note about the payment service.
func (s snapshot) note() string {
	if s.waiting {
		return ", waiting for room"
	}
	return ""
}

// A column is one of the board's. Those with a higher rank go first where there is
// little room.
type column struct {
	head string
	wide int
	rank int
	of   func(o *console, q queueView) string
}

var columns = []column{
	{"depth", 9, 0, func(o *console, q queueView) string { return q.depthOf("/") }},
	{"in flight", 9, 3, func(o *console, q queueView) string { return fmt.Sprint(q.InFlight) }},
	{"retried", 9, 4, func(o *console, q queueView) string { return number(q.failed()) }},
	{"dead", 7, 1, func(o *console, q queueView) string { return number(q.dead) }},
	{"settled", 11, 2, func(o *console, q queueView) string { return number(q.Acked) }},
	{"a sec.", 7, 5, func(o *console, q queueView) string { return number(int(q.rate)) }},
}

const (
	nameWide          = 9 // of the names of queues, and "published"
	leastBar, mostBar = 4, 40
)

// board is the snapshot as a table with bars, of less than width columns.
func (o *console) board(s snapshot, width int) []string {
	left, shown := width-1-nameWide-1-leastBar, 0
	for rank := range columns {
		for _, c := range columns {
			if c.rank == rank && shown == rank && left >= c.wide+1 {
				left -= c.wide + 1
				shown++
			}
		}
	}
	barWide := min(leastBar+left, mostBar)
	head := fmt.Sprintf("%-*s ", nameWide, "") + strings.Repeat(" ", barWide)
	for _, c := range columns {
		if c.rank < shown {
			head += fmt.Sprintf(" %*s", c.wide, c.head)
		}
	}
	lines := []string{head}
	for _, q := range s.queues {
		b := bar(q.depth, q.most, barWide)
		if q.depth >= q.most && q.room != "" {
			b = o.yellow(b)
		}
		line := fmt.Sprintf("%-*s ", nameWide, q.Queue) + b
		for _, c := range columns {
			if c.rank >= shown {
				continue
			}
			cell := fmt.Sprintf(" %*s", c.wide, c.of(o, q))
			if c.head == "dead" && q.dead > 0 {
				cell = o.red(cell)
			}
			line += cell
		}
		lines = append(lines, line)
	}
	line := fmt.Sprintf("%-*s %s %s", nameWide, "published", bar(s.published, s.all, barWide), number(s.published))
	if of := " of " + number(s.all); wide(line+of) < width {
		line += of
	}
	if note := s.note(); wide(line+note) < width {
		line += o.yellow(note)
	}
	return append(lines, line)
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
