// Enginetable writes the table of what the engines keep, from what they declare,
// into internal/docs/moving-up.md:
//
//	go run -C internal/enginetable .
//
// Its test fails when the page is out of date.
package main

import (
	"context"
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

const begin, end = "<!-- what engines keep, by internal/enginetable -->\n", "<!-- end -->"

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
	table := engine.Table(memory{}, named{durable, "NATS JetStream, embedded"}, named{new(fanoutnats.Engine), "NATS JetStream, cluster"}, new(fanoutaws.Engine))
	return before + begin + table + end + after, nil
}

// named gives an engine another name in the table.
type named struct {
	engine.Engine
	name string
}

func (n named) Name() string { return n.name }

// memory declares what a topic without an engine keeps.
type memory struct{}

func (memory) Name() string { return "memory" }

func (memory) Capabilities() engine.Capabilities {
	caps := engine.Capabilities{}
	for _, f := range engine.Features() {
		caps[f] = engine.Support{Kept: true}
	}
	caps[engine.Durable] = engine.Support{Note: "messages end with the process"}
	caps[engine.Distributed] = engine.Support{Note: "one process"}
	return caps
}

func (memory) OpenTopic(context.Context, engine.TopicSpec) (engine.Topic, error) {
	return nil, errors.ErrUnsupported
}
