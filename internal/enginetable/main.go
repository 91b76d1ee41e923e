// Enginetable writes what the engines support, from what they declare, into
// internal/docs/moving-up.md: a table of short answers, and notes below it.
//
//	go run -C internal/enginetable .
//
// Its test fails when the page is out of date.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
)

const page = "../docs/moving-up.md"

func main() {
	old, err := os.ReadFile(page)
	if err == nil {
		var text string
		if text, err = withTable(string(old)); err == nil {
			err = os.WriteFile(page, []byte(text), 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "enginetable:", err)
		os.Exit(1)
	}
}

const begin, end = "<!-- what engines support, by internal/enginetable -->\n", "<!-- end -->"

// withTable puts the table between the marks in text.
func withTable(text string) (string, error) {
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", errors.New("the page has no place for the table")
	}
	dir, err := os.MkdirTemp("", "enginetable")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	durable, err := embedded.Open(dir)
	if err != nil {
		return "", err
	}
	defer durable.Close()
	return before + begin + table([]column{
		{name: "memory", caps: memory()},
		{name: "NATS in the process", caps: durable.Capabilities()},
		{name: "NATS cluster", caps: new(fanoutnats.Engine).Capabilities(), like: 1},
		{name: "SNS + SQS", caps: new(fanoutaws.Engine).Capabilities()},
	}) + end + after, nil
}

// memory is what a topic without an engine supports.
func memory() engine.Capabilities {
	caps := engine.Capabilities{}
	for _, f := range engine.Features() {
		caps[f] = engine.Support{Kept: f != engine.Durable && f != engine.Distributed}
	}
	return caps
}
