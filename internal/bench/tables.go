package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// A format writes what was measured, for a terminal or as Markdown.
type format struct {
	w        io.Writer
	markdown bool
}

func (f format) heading(level int, s string) {
	if f.markdown {
		fmt.Fprintf(f.w, "\n%s %s\n\n", strings.Repeat("#", level), s)
		return
	}
	fmt.Fprintf(f.w, "\n%s\n", s)
}

func (f format) text(s string) {
	if s == "" {
		return
	}
	fmt.Fprintln(f.w, s)
	if f.markdown {
		fmt.Fprintln(f.w)
	}
}

// table writes a row for each of rows; the first column are names.
func (f format) table(head []string, rows [][]string) {
	if f.markdown {
		fmt.Fprintf(f.w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
		for _, r := range rows {
			fmt.Fprintf(f.w, "| %s |\n", strings.Join(r, " | "))
		}
		fmt.Fprintln(f.w)
		return
	}
	tw := tabwriter.NewWriter(f.w, 0, 0, 3, ' ', 0)
	for _, r := range append([][]string{head}, rows...) {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	_ = tw.Flush()
	fmt.Fprintln(f.w)
}

// writeTables writes a table for each workload and metric, and then the goals.
func (b *book) writeTables(f format, ws []workload, gs []goal) {
	for _, w := range ws {
		settings := b.column(w.key, func(at place) string { return at.setting })
		systems := b.column(w.key, func(at place) string { return at.system })
		if len(systems) == 0 {
			continue
		}
		f.heading(2, w.key+" "+w.title)
		f.text(w.note)
		for _, m := range b.column(w.key, func(at place) string { return at.metric }) {
			var rows [][]string
			for _, sys := range systems {
				row := []string{sys}
				for _, st := range settings {
					row = append(row, b.entry(place{w.key, st, sys, m}))
				}
				if strings.Trim(strings.Join(row[1:], ""), "-") != "" {
					rows = append(rows, row)
				}
			}
			f.table(append([]string{m}, settings...), rows)
		}
	}
	for at, err := range b.failed {
		f.text(fmt.Sprintf("Not ranked: %s in %s %s: %v", at.system, at.workload, at.setting, err))
	}
	if gs != nil {
		f.heading(2, "Goals")
		f.text("Ratios are of the same round, the first named to the second; the median counts.")
		f.table(goalHead, goalRows(b, gs))
	}
}

// entry is what a table says of a place: the median, and the median, least and
// greatest ratio.
func (b *book) entry(at place) string {
	if err := b.failure(at); err != nil {
		if errors.Is(err, errLost) {
			return "LOST"
		}
		return "FAILED"
	}
	v, ok := b.value(at)
	if !ok {
		return "-"
	}
	r, ok := b.ratio(at, b.baseline)
	if !ok || at.system == b.baseline {
		return number(v.median)
	}
	return fmt.Sprintf("%s (%sx, %s-%s)", number(v.median), number(r.median), number(r.least), number(r.greatest))
}

// writeSystems says what was compared.
func writeSystems(f format, systems []system) {
	f.heading(2, "Systems")
	f.text("Throttled: it has no bound or drops what is too much, so publishers kept at most 1,024 messages outstanding.")
	var rows [][]string
	for _, s := range systems {
		throttled := ""
		if s.throttled {
			throttled = "throttled"
		}
		rows = append(rows, []string{s.name, s.gives, throttled})
	}
	f.table([]string{"system", "gives", ""}, rows)
}
