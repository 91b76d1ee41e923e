package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/engine/fanoutnats"
)

func TestThePageHasTheTableOfToday(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want, err := withTable(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Fatal("the page is out of date: go run -C internal/enginetable .")
	}
}

// TestTheTableCanBeReadAtAGlance: at most ten rows, and one short answer in each
// cell, which is true of all features of the row.
func TestTheTableCanBeReadAtAGlance(t *testing.T) {
	if len(rows) > 10 {
		t.Errorf("%d rows: put what few readers ask into the notes alone", len(rows))
	}
	for _, caps := range []engine.Capabilities{memory(), new(fanoutnats.Engine).Capabilities(), new(fanoutaws.Engine).Capabilities()} {
		for _, r := range rows {
			first := r.answer(caps[r.features[0]])
			if len(strings.Fields(first)) > 2 {
				t.Errorf("%s: %q is no short answer", r.title, first)
			}
			for _, f := range r.features {
				if other := r.answer(caps[f]); other != first {
					t.Errorf("%s: %v is %q, %v is %q: they need rows of their own", r.title, r.features[0], first, f, other)
				}
			}
		}
	}
}

// TestEveryFeatureIsOnThePage, in the notes: under the title of its row, with its name if
// the row has several features, or under its name, with an answer, if it has no row.
func TestEveryFeatureIsOnThePage(t *testing.T) {
	caps := engine.Capabilities{}
	for _, f := range engine.Features() {
		caps[f] = engine.Support{Note: "switch it on"}
	}
	text := table([]column{{name: "none", caps: caps}})
	for _, f := range engine.Features() {
		start, want := "- *"+sentence(f.String())+":* ", "no. Switch it on."
		for _, r := range rows {
			if slices.Contains(r.features, f) {
				start, want = "- *"+sentence(r.title)+":* ", "Switch it on."
				if len(r.features) > 1 {
					want = sentence(f.String()) + ": switch it on."
				}
			}
		}
		_, line, found := strings.Cut(text, start)
		line, _, _ = strings.Cut(line, "\n")
		if !found || strings.Count(text, start) != 1 || strings.Count(line, want) != 1 {
			t.Errorf("%q with %q is not once in\n%s", start, want, text)
		}
	}
}
