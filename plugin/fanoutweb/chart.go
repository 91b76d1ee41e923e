package fanoutweb

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// A chart is a picture of numbers over time. Its size is 600 by 120, stretched as the page
// wants it.
type chart struct {
	Name  string
	Text  string // what it shows, for who doesn't see it
	Lines []line
	Top   string // what its upper edge stands for
	Since string // what its left edge stands for
	Limit float64
}

// A line is one of a chart's.
type line struct {
	Name, Class string
	Now         string
	Path        string // of the values
	Fill        string // of the area below, if there is one
	Area        bool
	values      []float64
}

const (
	chartWide, chartHigh = 600.0, 120.0
	shortestChart        = time.Minute
)

// chartOf makes a chart of lines that have a value for each time, at least one. A limit
// is a value that is drawn across, if it isn't 0. round makes the highest value a round one.
func chartOf(name string, times []time.Duration, limit float64, round func(float64) float64, text func(float64) string, lines ...line) chart {
	c := chart{Name: name}
	first, last := times[0], times[len(times)-1]
	span := max(last-first, shortestChart)
	first = last - span
	top := 0.0
	for _, l := range lines {
		for _, v := range l.values {
			top = max(top, v)
		}
	}
	if limit > 0 && limit < top*4 {
		top = max(top, limit)
	}
	top = round(top)
	if limit > 0 && limit <= top {
		c.Limit = y(limit, top)
	}
	c.Top, c.Since = text(top), duration(span.Round(time.Second))+" ago"
	var words []string
	for _, l := range lines {
		var b strings.Builder
		for k, v := range l.values {
			x := float64(times[k]-first) / float64(span) * chartWide
			fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(k, 1)], x, y(v, top))
		}
		if l.Area && len(l.values) > 0 {
			x := float64(times[0]-first) / float64(span) * chartWide
			l.Fill = fmt.Sprintf("%sV%.0fH%.1fZ", b.String(), chartHigh, x)
		}
		l.Path, l.Now = b.String(), text(l.values[len(l.values)-1])
		words = append(words, l.Name+" "+l.Now)
		c.Lines = append(c.Lines, l)
	}
	c.Text = fmt.Sprintf("%s over time, now: %s", name, strings.Join(words, ", "))
	return c
}

func y(v, top float64) float64 { return chartHigh - v/top*(chartHigh-2) }

// leastTop is what the upper edge of a chart of counts stands for at least.
const leastTop = 10

// nice is a round number that is not below v: 1, 2 or 5 times a power of ten, at least ten.
func nice(v float64) float64 {
	if v <= leastTop {
		return leastTop
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5, 10} {
		if v <= m*power*1.000001 {
			return m * power
		}
	}
	return v
}

// niceAge is a round number of seconds that is not below v.
func niceAge(v float64) float64 {
	for _, s := range []float64{10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 2 * 3600, 6 * 3600, 12 * 3600, 24 * 3600} {
		if v <= s {
			return s
		}
	}
	return math.Ceil(v/(24*3600)) * 24 * 3600
}

// charts are the pictures of a queue's last minutes, none before its second look.
func (q *queueState) charts() []chart {
	ps := q.series.points
	if len(ps) < 2 {
		return nil
	}
	var at, ends []time.Duration
	var held, dead, oldest, published, acked, failed []float64
	for k, p := range ps {
		at = append(at, p.time())
		held, dead, oldest = append(held, max(float64(p.held), 0)), append(dead, max(float64(p.dead), 0)), append(oldest, float64(p.oldest))
		if k == 0 {
			continue
		}
		was := ps[k-1]
		per := func(now, then uint32) float64 { return float64(now-then) / (p.time() - was.time()).Seconds() }
		ends = append(ends, p.time())
		published, acked, failed = append(published, per(p.published, was.published)), append(acked, per(p.acked, was.acked)), append(failed, per(p.failed, was.failed))
	}
	limit := 0.0
	if q.settings.Capacity > 0 {
		limit = float64(q.settings.Capacity)
	}
	whole := func(v float64) string { return number(int(math.Ceil(v))) }
	perSecond := func(v float64) string { return rate(math.Round(v*100)/100) + "/s" }
	in := line{Name: "published", Class: "published", values: published}
	done := []line{{Name: "acknowledged", Class: "acked", values: acked}, {Name: "failed", Class: "failed", values: failed}}
	if q.topic.view.Engine() != "" { // which alone knows the others
		return []chart{chartOf("Messages a second, in this process", ends, 0, nice, perSecond, done...)}
	}
	return []chart{
		chartOf("Messages a second", ends, 0, nice, perSecond, in, done[0], done[1]),
		chartOf("Messages held", at, limit, nice, whole, line{Name: "held", Class: "held", Area: true, values: held}),
		chartOf("Age of the oldest ready message", at, 0, niceAge, seconds, line{Name: "oldest", Class: "oldest", Area: true, values: oldest}),
		chartOf("Dead letters", at, 0, nice, whole, line{Name: "dead", Class: "dead", Area: true, values: dead}),
	}
}
