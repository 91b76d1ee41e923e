package main

import (
	"os"
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

// TestEveryFeatureIsOnThePage, in the table or in the notes.
func TestEveryFeatureIsOnThePage(t *testing.T) {
	caps := engine.Capabilities{}
	for _, f := range engine.Features() {
		caps[f] = engine.Support{Note: "switch it on"}
	}
	text := table([]column{{name: "none", caps: caps}})
	for _, f := range engine.Features() {
		if want := "- *" + sentence(label(f)) + ":* no. Switch it on.\n"; strings.Count(text, want) != 1 {
			t.Errorf("%q is not once in\n%s", want, text)
		}
	}
}
