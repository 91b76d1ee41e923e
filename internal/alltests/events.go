package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
)

// An event is a line of go test -json.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// events reads what go test -json writes. It keeps what a test prints until that
// passes, or fails and is printed.
type events struct {
	run *moduleRun

	mu      sync.Mutex // guards what follows: output and errors of a command come by two goroutines
	line    []byte     // one that is not whole yet
	printed map[[2]string]*strings.Builder
	count   map[string]int // tests that ended, by package
}

func newEvents(r *moduleRun) *events {
	return &events{run: r, printed: map[[2]string]*strings.Builder{}, count: map[string]int{}}
}

func (e *events) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.line = append(e.line, p...)
	for {
		k := bytes.IndexByte(e.line, '\n')
		if k < 0 {
			return len(p), nil
		}
		e.read(e.line[:k])
		e.line = e.line[k+1:]
	}
}

// end reads what has no newline behind it.
func (e *events) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.line) > 0 {
		e.read(e.line)
		e.line = nil
	}
}

// notPart is what a test logs that leaves something out on purpose.
const notPart = "not part of this run: "

func (e *events) read(line []byte) {
	var v event
	if json.Unmarshal(line, &v) != nil || v.Action == "" {
		e.run.printer.print(string(line) + "\n") // what go itself says
		return
	}
	at := [2]string{v.Package, v.Test}
	top := v.Test != "" && !strings.Contains(v.Test, "/")
	switch v.Action {
	case "build-output":
		e.run.printer.print(v.Output)
	case "output":
		if _, what, is := strings.Cut(v.Output, notPart); is && v.Test != "" {
			e.run.left = append(e.run.left, v.Package+" "+v.Test+": "+strings.TrimSpace(what))
		}
		if e.run.printer.verbose {
			e.run.printer.print(v.Output)
			return
		}
		b := e.printed[at]
		if b == nil {
			b = &strings.Builder{}
			e.printed[at] = b
		}
		b.WriteString(v.Output)
	case "pass", "fail", "skip":
		if v.Test == "" {
			e.packageEnded(v)
			return
		}
		if v.Action == "fail" && e.printed[at] != nil {
			e.run.printer.print(e.printed[at].String())
		}
		delete(e.printed, at)
		switch {
		case v.Action == "skip":
			e.run.skipped = append(e.run.skipped, v.Package+" "+v.Test)
		case top && v.Action == "pass":
			e.run.passed++
		case top:
			e.run.failed++
		}
		if top {
			e.count[v.Package]++
			e.run.printer.tested()
		}
	}
}

// packageEnded prints a line for a package, and what it printed if it failed.
func (e *events) packageEnded(v event) {
	if v.Action == "fail" {
		for at, b := range e.printed {
			if at[0] == v.Package { // of tests that never ended, and of none
				e.run.printer.print(b.String())
			}
		}
	}
	for at := range e.printed {
		if at[0] == v.Package {
			delete(e.printed, at)
		}
	}
	if v.Action == "skip" { // it has no tests
		return
	}
	word := "ok  "
	if v.Action == "fail" {
		word = "FAIL"
	}
	if !e.run.printer.verbose {
		e.run.printer.print(fmt.Sprintf("%s\t%s\t%.1fs\t%d tests\n", word, v.Package, v.Elapsed, e.count[v.Package]))
	}
}
