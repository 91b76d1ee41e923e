package fanoutweb

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A segment is a part of a bar: what a queue holds in one state. X and W are shares of
// the bar, in percent.
type segment struct {
	State string // also its class
	N     int
	X, W  float64
}

// openShare is how many times what it holds the bar of a queue without a capacity is at least.
const openShare = 1.25

// leastWide is how wide a segment is at least, so that one message is seen.
const leastWide = 0.8

// Bar is what the queue holds, by state, beside its capacity. Without a capacity it is never full.
func (i *queueInfo) Bar() (bar []segment) {
	most := int(nice(float64(i.Held) * openShare))
	if i.Bounded() {
		most = max(int(i.Capacity), i.Held)
	}
	at := 0.0
	for _, s := range i.States() {
		if s.N <= 0 || most <= 0 {
			continue
		}
		s.X, s.W = at, min(max(float64(s.N)/float64(most)*100, leastWide), 100-at)
		at += s.W
		bar = append(bar, s)
	}
	return bar
}

// States are the numbers of all states, those that hold nothing included. On an engine there are
// fewer states.
func (i *queueInfo) States() []segment {
	all := []segment{
		{State: "in flight", N: i.InFlight}, {State: "ready", N: i.Ready}, {State: "blocked", N: i.Blocked}, {State: "delayed", N: i.Delayed},
		{State: "retrying", N: i.Retrying}, {State: "released", N: i.Released}, {State: "parked", N: i.Parked},
	}
	return slices.DeleteFunc(all, func(s segment) bool { return i.Engine != "" && !i.Known(s.N) })
}

// Class is the state as a class of the style.
func (s segment) Class() string { return strings.ReplaceAll(s.State, " ", "-") }

// DeadShare is how full the dead-letter queue is, in percent.
func (i *queueInfo) DeadShare() float64 {
	if i.Dead <= 0 || i.DeadCapacity <= 0 {
		return 0
	}
	return min(max(float64(i.Dead)/float64(i.DeadCapacity)*100, 4), 100)
}

// A ribbon is the arrow from a topic to a queue. Its width is the rate.
type ribbon struct {
	Path, Head string
	Width      float64
	Class      string
}

// links is the picture between a topic and its queues, of a row each.
type links struct {
	Height  int
	Trunk   string // of many arrows, which don't begin at the topic
	Ribbons []ribbon
}

// The picture's measures, in pixels. The style has the same.
const (
	rowHigh   = 92
	rowGap    = 10
	linksWide = 132
	trunkAt   = 56
	mostWide  = 15.0 // a ribbon
	// centred is for how many queues the topic stands beside their middle, and arrows bend; for
	// more it stands beside the first ones, and they leave a trunk.
	centred = 6
)

// linksTo draws the arrows to queues.
func linksTo(queues []queueInfo) links {
	n := len(queues)
	if n == 0 {
		return links{}
	}
	l := links{Height: n*(rowHigh+rowGap) - rowGap}
	fastest, wide := 0.0, 0.0
	for k := range queues {
		fastest = max(fastest, queues[k].Rates.Published)
	}
	widths := make([]float64, n)
	for k := range queues {
		widths[k] = 1.5
		if r := queues[k].Rates.Published; r > 0 {
			widths[k] = 2.5 + (min(mostWide, 200/float64(min(n, centred)))-2.5)*math.Log1p(r)/math.Log1p(fastest)
		}
		wide += widths[k]
	}
	from := float64(l.Height) / 2
	if n > centred {
		from = float64(centred*(rowHigh+rowGap)-rowGap) / 2
	}
	if n > centred {
		l.Trunk = fmt.Sprintf("M0 %.1f H%d M%d %d V%d", from, trunkAt, trunkAt, rowHigh/2, l.Height-rowHigh/2)
	}
	squeeze := min(1, 64/wide) // they leave the topic from no more than this
	from -= wide * squeeze / 2
	for k := range queues {
		w := widths[k]
		y, to := from+w*squeeze/2, float64(k*(rowHigh+rowGap))+rowHigh/2
		from += w * squeeze
		end, half := float64(linksWide)-w/2-7, w/2+3.5
		path := fmt.Sprintf("M0 %.1f C%d %.1f %d %.1f %.1f %.1f", y, linksWide/2, y, linksWide/2-6, to, end, to)
		if n > centred {
			path = fmt.Sprintf("M%d %.1f H%.1f", trunkAt, to, end)
		}
		r := ribbon{
			Width: math.Round(w*10) / 10, Class: "idle",
			Path: path,
			Head: fmt.Sprintf("%.1f,%.1f %d,%.1f %.1f,%.1f", end-.5, to-half, linksWide-1, to, end-.5, to+half),
		}
		switch p := queues[k].Rates.Published; {
		case queues[k].Engine != "": // which doesn't tell
			r.Class = "plain"
		case queues[k].Blocking:
			r.Class = "waits"
		case p >= 50:
			r.Class = "fast"
		case p > 0:
			r.Class = "slow"
		}
		l.Ribbons = append(l.Ribbons, r)
	}
	return l
}
