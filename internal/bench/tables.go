package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
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

// writeTables writes a table for each workload and metric, then the noise and the
// goals, all of them if allGoals.
func (b *book) writeTables(f format, ws []workload, gs []goal, allGoals bool) {
	for _, w := range ws {
		settings := b.column(w.key, func(at place) string { return at.setting })
		if len(settings) == 0 {
			continue
		}
		f.heading(2, w.key+" "+w.title)
		f.text(w.note)
		for _, m := range b.column(w.key, func(at place) string { return at.metric }) {
			_, rows := b.rows(w.key, m)
			f.table(append([]string{m}, settings...), rows)
		}
		if rows := featureRows(b); w.key == features.key && len(rows) > 0 {
			f.table(featureHead, rows)
		}
	}
	for _, at := range places(b.failed) {
		f.text(fmt.Sprintf("Not ranked: %s in %s %s: %v", at.system, at.workload, at.setting, b.failed[at]))
	}
	for _, at := range places(b.late) {
		f.text(fmt.Sprintf("At least once: %s in %s %s: %v", at.system, at.workload, at.setting, b.late[at]))
	}
	if rows := b.noise(); len(rows) > 0 {
		f.heading(2, "Noise")
		f.text("What ratios are to, measured a second time at the end of each group, as a ratio to the first time: median, least to greatest. A ratio that differs from another by less than this says nothing.")
		f.table(noiseHead, rows)
	}
	if gs != nil {
		f.heading(2, "Goals")
		f.text(goalNote)
		if allGoals {
			f.text(tallyOf(b, gs))
		}
		f.table(goalHead, goalRows(b, gs, allGoals))
	}
}

const goalNote = "Ratios are of the same round, the first named to the second; the median counts. By wall time where nothing else is said; by processor time: the same ratio of that. noise: how far what the ratio is to was from itself when it was measured again."

var noiseHead = []string{"", "setting", "system", "by", "median", "least to greatest"}

// noise lists the ratios of what was measured twice.
func (b *book) noise() (rows [][]string) {
	for _, at := range b.order {
		first, isAgain := strings.CutSuffix(at.system, again)
		if !isAgain {
			continue
		}
		if r, ok := b.ratio(at, first); ok {
			by := map[string]string{"ns": "wall time", "cpu": "processor time"}[at.metric]
			if by == "" {
				by = at.metric
			}
			rows = append(rows, []string{at.workload, at.setting, first, by, number(r.median), number(r.least) + " to " + number(r.greatest)})
		}
	}
	return rows
}

// rows are a table of one metric of a workload: a row for each system of which it
// was measured, with an entry for each setting.
func (b *book) rows(workload, metric string) (settings []string, rows [][]string) {
	settings = b.column(workload, func(at place) string { return at.setting })
	for _, sys := range b.column(workload, func(at place) string { return at.system }) {
		row := []string{sys}
		for _, st := range settings {
			row = append(row, b.entry(place{workload, st, sys, metric}))
		}
		if strings.Trim(strings.Join(row[1:], ""), "-") != "" {
			rows = append(rows, row)
		}
	}
	return settings, rows
}

// once says whether a system that is ranked at a place did not finish there once.
func (b *book) once(at place) bool {
	at.metric = ""
	return b.late[at] != nil
}

// entry is what a table says of a place: the median, and the median, least and
// greatest ratio.
func (b *book) entry(at place) string {
	if err := b.failure(at); err != nil {
		for _, known := range []error{errLost, errNotFinished} {
			if errors.Is(err, known) {
				return known.Error()
			}
		}
		return "FAILED"
	}
	v, ok := b.value(at)
	note := ""
	if b.once(at) {
		note = ", once not finished"
		if !ok {
			return errNotFinished.Error()
		}
	}
	if !ok {
		return "-"
	}
	baseline := b.baselineOf(at.workload)
	r, ok := b.ratio(at, baseline)
	if !ok || at.system == baseline {
		return number(v.median) + note
	}
	return fmt.Sprintf("%s (%sx, %s-%s%s)", number(v.median), number(r.median), number(r.least), number(r.greatest), note)
}

// special are the systems of single workloads. Those of features stand in a table
// of their own.
func special() []system {
	return slices.Concat(
		[]system{filteringChannels(filtering, ofClass, nil)}, classSystems(), kindSystems(),
		[]system{failingSystem("fanout-failing", false), failingSystem("fanout-failing64", true), handFailing})
}

// writeSystems says what was compared.
func writeSystems(f format, systems []system) {
	f.heading(2, "Systems")
	f.text("Each system gets batches of 64 where it takes batches: watermill's Publish and nsqd's PutMessages take several messages, gocloud's senders share batches and its receiver fetches them, JetStream's publishes are not waited for one by one, or are stored in atomic batches of 64, a goqite transaction has 64 messages. The others publish one message by a call. Throttled: it has no bound or drops what is too much, so publishers kept at most 1,024 messages outstanding.")
	var rows [][]string
	for _, s := range slices.Concat(systems, special()) {
		throttled := ""
		if s.throttled {
			throttled = "throttled"
		}
		rows = append(rows, []string{s.name, s.gives, throttled})
	}
	f.table([]string{"system", "gives", ""}, rows)
}
