package main

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A chart is what is drawn of a book: a line for each curve.
type chart struct {
	file, title, x, y string
	logX              bool
	curves            []curve
}

// A curve is one system's metric over the settings of a workload.
type curve struct {
	label            string
	workload, system string
	metric           string
	series           bool // the curve is a series, not a value for each setting
	color            color.RGBA
	dashed, bold     bool
}

// The colours of Okabe and Ito, which can be told apart by everybody.
var (
	black  = color.RGBA{A: 255}
	orange = color.RGBA{R: 230, G: 159, A: 255}
	sky    = color.RGBA{R: 86, G: 180, B: 233, A: 255}
	green  = color.RGBA{G: 158, B: 115, A: 255}
	blue   = color.RGBA{G: 114, B: 178, A: 255}
	red    = color.RGBA{R: 213, G: 94, A: 255}
	purple = color.RGBA{R: 204, G: 121, B: 167, A: 255}
	grey   = color.RGBA{R: 120, G: 120, B: 120, A: 255}
)

func charts() []chart {
	w1 := func(label, system string, c color.RGBA, bold, dashed bool) curve {
		return curve{label: label, workload: "W1", system: system, metric: "ns", color: c, bold: bold, dashed: dashed}
	}
	w4 := func(label, system, metric string, c color.RGBA, bold, dashed bool) curve {
		return curve{label: label, workload: "W4", system: system, metric: metric, color: c, bold: bold, dashed: dashed}
	}
	w5 := func(label, system, metric string, c color.RGBA, bold, dashed bool) curve {
		return curve{label: label, workload: "W5", system: system, metric: metric, color: c, bold: bold, dashed: dashed}
	}
	return []chart{
		{file: "throughput.svg", title: "Cost of a delivery by number of subscribers", x: "subscribers", y: "ns per delivery", logX: true, curves: []curve{
			w1("fanout, published by 64", push64, blue, true, false),
			w1("fanout, one by one", push, blue, true, true),
			w1("bare channels (no ack)", "chan", black, true, false),
			w1("channels of slices of 64 (no ack)", "chan64", grey, true, true),
			w1("channels + ctx (no ack)", "chan-ctx", black, false, true),
			w1("channel + map + timer", "hand-written", red, true, false),
			w1("cskr/pubsub (no ack)", "cskr", grey, false, false),
			w1("geth FeedOf (no ack)", "geth-feed", grey, false, true),
			w1("tailscale eventbus (no ack)", "tailscale", purple, false, false),
			w1("NATS core (no ack)", "nats", green, false, true),
			w1("watermill GoChannel", "watermill", orange, false, false),
			w1("JetStream", "jetstream", green, false, false),
			w1("nsqd", "nsqd", sky, false, false),
			w1("gocloud mempubsub", "gocloud-mem", sky, false, true),
		}},
		{file: "subscribers.svg", title: "Cost of a publish by number of idle subscribers", x: "subscribers", y: "ns per publish", logX: true, curves: []curve{
			w4("fanout, one publish", push, "one", blue, true, false),
			w4("fanout, each of 256", push, "burst", blue, true, true),
			w4("bare channels, one publish", "chan", "one", black, true, false),
			w4("bare channels, each of 256", "chan", "burst", black, true, true),
			w4("channel + map + timer, one", "hand-written", "one", red, false, false),
			w4("geth FeedOf, one", "geth-feed", "one", grey, false, false),
			w4("asaskevich (calls them), one", "asaskevich", "one", orange, false, false),
		}},
		{file: "inflight.svg", title: "Cost of a message by number in flight", x: "messages in flight", y: "ns per message", logX: true, curves: []curve{
			w5("fanout, receive", pull, "receive", blue, true, false),
			w5("fanout, ack in random order", pull, "ack", blue, true, true),
			w5("fanout, mass expiry", pull, "expire", sky, true, false),
			w5("map + heap, receive", "map+heap", "receive", orange, false, false),
			w5("map + heap, ack", "map+heap", "ack", orange, false, true),
			w5("map + timers, receive", "map+timers", "receive", red, false, false),
			w5("map + timers, ack", "map+timers", "ack", red, false, true),
			w5("map + timers, mass expiry", "map+timers", "expire", purple, false, false),
			w5("JetStream, receive", "jetstream", "receive", green, false, false),
		}},
		{file: "flood.svg", title: "Memory in a flood into 100 queues of 1,024", x: "% of the messages", y: "MiB of heap and stacks", curves: []curve{
			{label: "fanout", workload: "W7", system: push64, metric: "heap", series: true, color: blue, bold: true},
			{label: "bare channels", workload: "W7", system: "chan", metric: "heap", series: true, color: black},
		}},
	}
}

// points returns a curve's points; none if nothing was measured.
func (c curve) points(b *book) (xys plotter.XYs) {
	if c.series {
		ys := b.series[place{c.workload, "flood", c.system, c.metric}]
		for k, y := range ys {
			xys = append(xys, plotter.XY{X: 100 * float64(k) / float64(max(1, len(ys)-1)), Y: y / (1 << 20)})
		}
		return xys
	}
	for _, setting := range b.column(c.workload, func(at place) string { return at.setting }) {
		x, err := strconv.ParseFloat(strings.TrimLeft(setting, "abcdefghijklmnopqrstuvwxyz"), 64)
		v, ok := b.value(place{c.workload, setting, c.system, c.metric})
		if err == nil && ok && v.median > 0 {
			xys = append(xys, plotter.XY{X: x, Y: v.median})
		}
	}
	return xys
}

// writeCharts draws what was measured of the charts into a directory, and
// returns the names of the files.
func writeCharts(b *book, dir string) (files []string, err error) {
	for _, c := range charts() {
		p, ok, err := c.draw(b)
		if err != nil {
			return files, err
		}
		if !ok {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return files, err
		}
		file := filepath.Join(dir, c.file)
		if err := save(p, file); err != nil {
			return files, fmt.Errorf("%s: %w", file, err)
		}
		files = append(files, file)
	}
	return files, nil
}

// save writes the plot with a margin around it.
func save(p *plot.Plot, file string) (err error) {
	const width, height, margin = 24 * vg.Centimeter, 13 * vg.Centimeter, 3 * vg.Millimeter
	canvas := vgsvg.New(width, height)
	whole := draw.New(canvas)
	whole.SetColor(p.BackgroundColor)
	whole.Fill(whole.Rectangle.Path())
	p.Draw(draw.Crop(whole, margin, -margin, margin, -margin))
	w, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	_, err = canvas.WriteTo(w)
	return err
}

// draw returns the plot; false if there is nothing to draw.
func (c chart) draw(b *book) (*plot.Plot, bool, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.BackgroundColor = color.RGBA{R: 250, G: 250, B: 248, A: 255} // its own, so that it reads the same on a dark page
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, c.y
	p.Title.TextStyle.Font.Size, p.Title.Padding = 15, 4*vg.Millimeter
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle.Font.Size, a.Tick.Label.Font.Size = 12, 11
	}
	var xs []float64
	drawn := false
	grid := plotter.NewGrid()
	grid.Horizontal.Color = color.RGBA{R: 225, G: 225, B: 225, A: 255}
	grid.Vertical.Color = grid.Horizontal.Color
	p.Add(grid)
	for _, cv := range c.curves {
		xys := cv.points(b)
		if len(xys) < 2 {
			continue
		}
		line, marks, err := plotter.NewLinePoints(xys)
		if err != nil {
			return nil, false, err
		}
		line.Color, marks.Color = cv.color, cv.color
		line.Width = vg.Points(1.2)
		if cv.bold {
			line.Width = vg.Points(2.6)
		}
		if cv.dashed {
			line.Dashes = []vg.Length{vg.Points(6), vg.Points(4)}
		}
		marks.Shape, marks.Radius = draw.CircleGlyph{}, vg.Points(2.5)
		p.Add(line)
		if !cv.series {
			p.Add(marks)
		}
		p.Legend.Add(cv.label, line)
		drawn = true
		for _, xy := range xys {
			xs = append(xs, xy.X)
		}
	}
	if !drawn {
		return nil, false, nil
	}
	if c.logX {
		p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
		p.X.Tick.Marker, p.Y.Tick.Marker = settingTicks(xs), decades{}
		p.Y.Min = math.Pow(10, math.Floor(math.Log10(p.Y.Min)))
		p.Y.Max = math.Pow(10, math.Ceil(math.Log10(p.Y.Max)))
		p.X.Max *= 8 // the legend stands to the right of the curves
	} else {
		p.Y.Min = 0
		p.Y.Max *= 1.4
		p.Y.Tick.Marker = wholes{}
	}
	p.Legend.Padding = vg.Millimeter
	p.Legend.Top, p.Legend.TextStyle.Font.Size = true, 11
	p.Legend.XOffs, p.Legend.YOffs = -2*vg.Millimeter, -2*vg.Millimeter
	return p, true, nil
}

// settingTicks marks the settings that were measured.
type settingTicks []float64

func (s settingTicks) Ticks(_, _ float64) (out []plot.Tick) {
	seen := map[float64]bool{}
	for _, x := range s {
		if !seen[x] {
			seen[x] = true
			out = append(out, plot.Tick{Value: x, Label: thousands(x)})
		}
	}
	return out
}

// decades marks powers of ten, with names that are read without counting zeros.
type decades struct{}

func (decades) Ticks(least, most float64) (out []plot.Tick) {
	for _, t := range (plot.LogTicks{Prec: -1}).Ticks(least, most) {
		if t.Label != "" {
			t.Label = thousands(t.Value)
		}
		out = append(out, t)
	}
	return out
}

// wholes are the usual ticks, without decimals that say nothing.
type wholes struct{}

func (wholes) Ticks(least, most float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(least, most)
	for k, t := range ticks {
		if t.Label != "" {
			ticks[k].Label = thousands(rounded(t.Value))
		}
	}
	return ticks
}

// thousands writes a number with commas.
func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	whole, rest, _ := strings.Cut(s, ".")
	for k := len(whole) - 3; k > 0; k -= 3 {
		whole = whole[:k] + "," + whole[k:]
	}
	if rest != "" {
		return whole + "." + rest
	}
	return whole
}
