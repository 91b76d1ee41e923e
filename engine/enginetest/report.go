package enginetest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Report says which checks were run on an engine, and how they ended. It is
// complete when Contract or Run has returned it.
type Report struct {
	// Suite is "contract" or "promises", Engine the engine's name.
	Suite, Engine string
	// Elapsed is how long all of it took, in real time.
	Elapsed time.Duration

	results []result
}

type outcome uint8

const (
	passed outcome = iota + 1
	failed
	notApplicable
	waived
)

type result struct {
	feature, name string
	outcome       outcome
	why           string // it is not applicable, or was waived
}

// Passed is the number of checks that were run and hold.
func (r *Report) Passed() int { return r.count(passed, "") }

// Failed is the number of checks that were run and don't hold.
func (r *Report) Failed() int { return r.count(failed, "") }

// NotApplicable is the number of checks of what the engine doesn't keep.
func (r *Report) NotApplicable() int { return r.count(notApplicable, "") }

// Waived is the number of checks that the option Waive left out.
func (r *Report) Waived() int { return r.count(waived, "") }

func (r *Report) count(o outcome, feature string) (n int) {
	for _, c := range r.results {
		if c.outcome == o && (feature == "" || c.feature == feature) {
			n++
		}
	}
	return n
}

// features returns the features of the report in the order of their checks.
func (r *Report) features() (fs []string) {
	for _, c := range r.results {
		if !slices.Contains(fs, c.feature) {
			fs = append(fs, c.feature)
		}
	}
	return fs
}

// cell says in a word how a feature did: the number of checks that hold, and
// of those that don't or were waived.
func (r *Report) cell(feature string) string {
	p, f, w := r.count(passed, feature), r.count(failed, feature), r.count(waived, feature)
	if p+f+w == 0 {
		return "n/a"
	}
	s := fmt.Sprint(p)
	if f > 0 {
		s += fmt.Sprintf(", %d failed", f)
	}
	if w > 0 {
		s += fmt.Sprintf(", %d waived", w)
	}
	return s
}

// MarkdownHeader returns the two lines above the rows of Markdown.
func (r *Report) MarkdownHeader() string {
	fs := r.features()
	return "| engine | suite | run | not applicable | waived | " + strings.Join(fs, " | ") + " |\n" +
		strings.Repeat("|---", len(fs)+5) + "|\n"
}

// Markdown returns the report as the row of a table, for documentation: how many
// checks hold, by feature.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | %s | %d | %d | %d |", r.Engine, r.Suite, r.Passed()+r.Failed(), r.NotApplicable(), r.Waived())
	for _, f := range r.features() {
		fmt.Fprintf(&b, " %s |", r.cell(f))
	}
	b.WriteByte('\n')
	return b.String()
}

// String returns the report as text: a line for each feature, and one for each
// check that was not run, with the reason.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s: %d checks run, %d failed, %d not applicable, %d waived, in %v\n",
		r.Engine, r.Suite, r.Passed()+r.Failed(), r.Failed(), r.NotApplicable(), r.Waived(), r.Elapsed.Round(time.Millisecond))
	for _, f := range r.features() {
		fmt.Fprintf(&b, "  %-32s %s\n", f, r.cell(f))
	}
	for _, c := range r.results {
		switch c.outcome {
		case notApplicable:
			fmt.Fprintf(&b, "  not applicable: %s: %s\n", c.name, c.why)
		case waived:
			fmt.Fprintf(&b, "  waived: %s: %s\n", c.name, c.why)
		}
	}
	return b.String()
}
