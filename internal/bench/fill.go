package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// The texts that have figures in them, from this module's directory. A figure or
// a table stands between two comments,
//
//	<!-- measured: goals -->
//	...
//	<!-- end -->
//
// and fill replaces what stands there by what was measured.
var filled = []string{"../docs/performance.md", "../../README.md"}

var blockPattern = regexp.MustCompile(`(?s)<!-- measured: ([a-z-]+) -->(.*?)<!-- end -->`)

// blocks are what can stand in a text, by name.
func (b *book) blocks(machine string) map[string]string {
	table := func(head []string, rows [][]string) string {
		var w strings.Builder
		format{w: &w, markdown: true}.table(head, rows)
		return "\n" + w.String()
	}
	return map[string]string{
		"machine":    machine,
		"goals":      "\n" + tallyOf(b, goals()) + "\n" + table(goalHead, goalRows(b, goals(), true)),
		"features":   table(featureHead, featureRows(b)),
		"filters":    b.settingsTable(table, filters, "ns"),
		"work":       b.settingsTable(table, realWork, "cpu"),
		"failures":   b.settingsTable(table, failures, "cpu"),
		"resident":   b.settingsTable(table, resident, "bytes"),
		"latency":    b.settingsTable(table, latency, "p50"),
		"noise":      table(noiseHead, b.noise()),
		"one-by-one": b.widths(push, channels.name),
		"batches":    b.widths(push64, channels.name),
		"slices":     b.widths(push64, channelsBatched.name),
		"receive":    b.widths(pull, channels.name),
	}
}

// settingsTable is the table of one metric of a workload.
func (b *book) settingsTable(table func([]string, [][]string) string, w workload, metric string) string {
	settings, rows := b.rows(w.key, metric)
	return table(append([]string{metric}, settings...), rows)
}

// widths are the ratios of a system to another with 1, 4, 16 and 100 queues, as a
// part of a sentence.
func (b *book) widths(system, to string) string {
	var out []string
	for _, s := range []string{"s1", "s4", "s16", "s100"} {
		r, ok := b.ratio(place{"W1", s, system, "ns"}, to)
		if !ok {
			return "(not measured)"
		}
		out = append(out, plainNumber(r.median))
	}
	return strings.Join(out[:3], ", ") + " and " + out[3]
}

// plainNumber is a number with two digits, as one reads it in a sentence.
func plainNumber(v float64) string {
	switch {
	case v >= 9.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 0.995:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// fill puts blocks into a text. One that names a block that there is not is an
// error, and so is one without any.
func fill(text string, blocks map[string]string) (string, error) {
	var unknown []string
	found := false
	out := blockPattern.ReplaceAllStringFunc(text, func(all string) string {
		found = true
		name := blockPattern.FindStringSubmatch(all)[1]
		block, ok := blocks[name]
		if !ok {
			unknown = append(unknown, name)
			return all
		}
		return fmt.Sprintf("<!-- measured: %s -->%s<!-- end -->", name, block)
	})
	if len(unknown) > 0 {
		return "", fmt.Errorf("no block is called %s; there are %s", strings.Join(unknown, ", "), strings.Join(slices.Sorted(maps.Keys(blocks)), ", "))
	}
	if !found {
		return "", fmt.Errorf("no block <!-- measured: NAME --> to fill")
	}
	return out, nil
}

// fillFiles fills files in place.
func fillFiles(files []string, blocks map[string]string) error {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		out, err := fill(string(text), blocks)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
			return err
		}
	}
	return nil
}
