package main

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
)

// A value is one thing that was measured, once.
type value struct {
	metric string // "ns", "p50", "bytes"
	unit   string
	v      float64
}

// A place is where a value belongs.
type place struct{ workload, setting, system, metric string }

// A book holds what was measured, by place and round.
type book struct {
	baseline  string            // the system that ratios are to
	baselines map[string]string // of workloads that have another
	units     map[place]string
	values    map[place]map[int]float64
	failed    map[place]error // without a metric: why a system is not ranked there
	late      map[place]error // without a metric: that it did not finish, once
	order     []place         // as first seen
	series    map[place][]float64
}

func (b *book) baselineOf(workload string) string {
	if of, ok := b.baselines[workload]; ok {
		return of
	}
	return b.baseline
}

// seriesUnit marks values of which a round has many: they are drawn, not
// averaged.
const seriesUnit = "series"

func newBook(baseline string) *book {
	return &book{baseline: baseline, baselines: map[string]string{}, units: map[place]string{}, values: map[place]map[int]float64{}, failed: map[place]error{}, late: map[place]error{},
		series: map[place][]float64{}}
}

// bookOf returns an empty book for workloads.
func bookOf(ws []workload) *book {
	b := newBook(channels.name)
	for _, w := range ws {
		if w.baseline != "" {
			b.baselines[w.key] = w.baseline
		}
	}
	return b
}

// add records what a round measured.
func (b *book) add(at place, round int, v value) {
	at.metric = v.metric
	if v.unit == seriesUnit {
		b.series[at] = append(b.series[at], v.v)
		return
	}
	if b.values[at] == nil {
		b.values[at] = map[int]float64{}
		b.units[at] = v.unit
		b.order = append(b.order, at)
	}
	b.values[at][round] = v.v
}

// fail records that a system is not ranked at a place. If it did not finish, that
// is so from the second time on, as another round may show what it can do.
func (b *book) fail(at place, err error) {
	at.metric = ""
	if errors.Is(err, errNotFinished) && b.late[at] == nil {
		b.late[at] = err
		return
	}
	if b.failed[at] == nil {
		b.failed[at] = err
	}
}

// A spread is the median, the least and the greatest of several rounds.
type spread struct{ median, least, greatest float64 }

func spreadOf(vs []float64) (spread, bool) {
	if len(vs) == 0 {
		return spread{}, false
	}
	vs = slices.Sorted(slices.Values(vs))
	n := len(vs)
	return spread{median: (vs[(n-1)/2] + vs[n/2]) / 2, least: vs[0], greatest: vs[n-1]}, true
}

// value returns the spread of what was measured at a place; false if nothing
// was, or the system failed there.
func (b *book) value(at place) (spread, bool) {
	if b.failure(at) != nil {
		return spread{}, false
	}
	var vs []float64
	for _, v := range b.values[at] {
		vs = append(vs, v)
	}
	return spreadOf(vs)
}

// ratio returns the spread of the ratios to another system's value of the same
// round. Times are compared; of counts a ratio says little, as channels have
// none.
func (b *book) ratio(at place, to string) (spread, bool) {
	base := at
	base.system = to
	if b.units[at] != "ns" || b.failure(at) != nil || b.failure(base) != nil {
		return spread{}, false
	}
	var vs []float64
	for round, v := range b.values[at] {
		if w, ok := b.values[base][round]; ok && w > 0 {
			vs = append(vs, v/w)
		}
	}
	return spreadOf(vs)
}

func (b *book) failure(at place) error {
	at.metric = ""
	return b.failed[at]
}

// places lists those of failures in their order.
func places(of map[place]error) []place {
	return slices.SortedFunc(maps.Keys(of), func(x, y place) int {
		return cmp.Or(cmp.Compare(x.workload, y.workload), cmp.Compare(x.setting, y.setting), cmp.Compare(x.system, y.system))
	})
}

// column lists the different strings that pick returns for the places of a
// workload, in the order first measured.
func (b *book) column(workload string, pick func(place) string) (out []string) {
	all := slices.Clone(b.order)
	for _, of := range []map[place]error{b.failed, b.late} {
		for at := range of {
			all = append(all, at)
		}
	}
	slices.SortStableFunc(all[len(b.order):], func(x, y place) int {
		return cmp.Or(cmp.Compare(x.setting, y.setting), cmp.Compare(x.system, y.system))
	})
	for _, at := range all {
		if s := pick(at); at.workload == workload && s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// rounded keeps three significant digits.
func rounded(v float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	if err != nil {
		return v
	}
	return r
}
