package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A figure is one result, as a line that programs read:
//
//	figure w1.s16.fanout-push.ns 12.5 ns ratio 0.34
//
// value is the median over the rounds, ratio the median of the ratios to bare
// channels of the same round; "-" where there is nothing to compare with.
type figure struct {
	name     string // workload.setting.system.metric
	value    float64
	unit     string
	ratio    float64
	hasRatio bool
}

func (f figure) String() string {
	ratio := "-"
	if f.hasRatio {
		ratio = number(f.ratio)
	}
	return fmt.Sprintf("figure %s %s %s ratio %s", f.name, number(f.value), f.unit, ratio)
}

func number(v float64) string { return strconv.FormatFloat(rounded(v), 'f', -1, 64) }

// parseFigure reads a line that String wrote.
func parseFigure(line string) (f figure, err error) {
	w := strings.Fields(line)
	if len(w) != 6 || w[0] != "figure" || w[4] != "ratio" {
		return f, fmt.Errorf("not a figure: %q", line)
	}
	f.name, f.unit = w[1], w[3]
	if f.value, err = strconv.ParseFloat(w[2], 64); err != nil {
		return f, fmt.Errorf("figure %s: %w", f.name, err)
	}
	if w[5] == "-" {
		return f, nil
	}
	f.hasRatio = true
	if f.ratio, err = strconv.ParseFloat(w[5], 64); err != nil {
		return f, fmt.Errorf("figure %s: %w", f.name, err)
	}
	return f, nil
}

// figures lists what the book holds.
func (b *book) figures() (out []figure) {
	for _, at := range b.order {
		v, ok := b.value(at)
		if !ok {
			continue
		}
		f := figure{name: strings.ToLower(strings.Join([]string{at.workload, at.setting, at.system, at.metric}, ".")), value: v.median, unit: b.units[at]}
		if r, ok := b.ratio(at, b.baselineOf(at.workload)); ok {
			f.ratio, f.hasRatio = r.median, true
		}
		out = append(out, f)
	}
	return out
}
