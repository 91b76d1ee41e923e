package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// A saved is a run in a file, so that tables, charts and texts can be written
// later, without measuring again.
type saved struct {
	Machine  string // what it ran on
	Measured []savedPlace
	Failed   []savedFailure `json:",omitempty"`
	Series   []savedSeries  `json:",omitempty"`
}

type savedPlace struct {
	Workload, Setting, System, Metric, Unit string
	Rounds                                  map[int]float64
}

type savedFailure struct{ Workload, Setting, System, Kind, Error string }

type savedSeries struct {
	Workload, Setting, System, Metric string
	Values                            []float64
}

// What kept errors are kinds of.
var failureKinds = map[string]error{"lost": errLost, "not finished": errNotFinished}

func (b *book) save(file, machine string) error {
	s := saved{Machine: machine}
	for _, at := range b.order {
		s.Measured = append(s.Measured, savedPlace{at.workload, at.setting, at.system, at.metric, b.units[at], b.values[at]})
	}
	for _, of := range []map[place]error{b.late, b.failed} {
		for _, at := range places(of) {
			f := savedFailure{Workload: at.workload, Setting: at.setting, System: at.system, Error: of[at].Error()}
			for kind, err := range failureKinds {
				if errors.Is(of[at], err) {
					f.Kind = kind
				}
			}
			s.Failed = append(s.Failed, f)
		}
	}
	for at, vs := range b.series {
		s.Series = append(s.Series, savedSeries{at.workload, at.setting, at.system, at.metric, vs})
	}
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// load reads what save wrote to files. So a run may be done in parts, each with
// other workloads.
func load(files []string, ws []workload) (b *book, machine string, err error) {
	b = bookOf(ws)
	var machines []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, "", err
		}
		var s saved
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, "", fmt.Errorf("%s: %w", file, err)
		}
		b.addSaved(s)
		if !slices.Contains(machines, s.Machine) {
			machines = append(machines, s.Machine)
		}
	}
	return b, strings.Join(machines, " And: "), nil
}

func (b *book) addSaved(s saved) {
	for _, p := range s.Measured {
		for round, v := range p.Rounds {
			b.add(place{workload: p.Workload, setting: p.Setting, system: p.System}, round, value{p.Metric, p.Unit, v})
		}
	}
	for _, f := range s.Failed {
		b.fail(place{workload: f.Workload, setting: f.Setting, system: f.System}, keptError{f.Error, failureKinds[f.Kind]})
	}
	for _, v := range s.Series {
		b.series[place{v.Workload, v.Setting, v.System, v.Metric}] = v.Values
	}
}

// A keptError is an error that was saved.
type keptError struct {
	text string
	kind error
}

func (e keptError) Error() string { return e.text }
func (e keptError) Unwrap() error { return e.kind }
