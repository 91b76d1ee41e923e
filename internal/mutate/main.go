// Mutate measures whether the tests of the core can fail: it changes the code
// in one place after the other and runs a short suite against each change. A
// change that no test notices is a survivor; it needs a test, or its reason in
// internal/docs/testing.md.
//
// All changes are compiled into one test program for each package, in a copy of
// the module; an environment variable switches one on. So a change costs one
// run of the suite, which ends at the first failure, and no compilation.
//
//	cd internal/mutate && go run .
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	modulePath = "github.com/gofanout/fanout"
	switchPath = modulePath + "/internal/mutswitch"
)

// The files whose every change is tried. Of the others it is a sample.
const whole = `^internal/queue/(deadletter|expire|handon|idle|prefetched|queue|schedule|settle|unlock)\.go$|^internal/delivery/(ack|await|receive|settle|take)\.go$|^internal/admission/(offer|wait)\.go$|^internal/(alarm|block|callsite|consumers|deadletter|due|instep|keyline|lease|log|offer|overflow|ranges|slots|store|waitline|window|workers)/`

type settings struct {
	module   string
	files    *regexp.Regexp
	whole    *regexp.Regexp
	sample   int
	seed     uint64
	only     []int
	list     bool
	verbose  bool
	parallel int
	skip     string
	reasons  string
	results  string
	resume   bool
	alone    bool
	silence  time.Duration
}

func main() {
	s := settings{}
	var files, wholeFiles, only string
	flag.StringVar(&s.module, "module", "../..", "the module's directory")
	flag.StringVar(&files, "files", ".", "only changes in files that match")
	flag.StringVar(&wholeFiles, "whole", whole, "files of which every change is tried")
	flag.IntVar(&s.sample, "sample", 400, "how many changes of the other files to try, -1: all")
	flag.Uint64Var(&s.seed, "seed", 1, "of the sample")
	flag.StringVar(&only, "only", "", "try only the changes with these numbers, 3,17")
	flag.BoolVar(&s.list, "list", false, "list the changes and try none")
	flag.BoolVar(&s.verbose, "v", false, "print what the tests print")
	flag.IntVar(&s.parallel, "parallel", 2, "how many to try at once")
	flag.StringVar(&s.skip, "skip", "^TestModelRandomPrograms$|^TestPromise03AStressedTopicLosesNothing$|^TestTenThousandIdleQueuesCostLittle$|^TestThereIsNoLockClockOrGoroutine$|^TestAPublishAllocatesWhatIsKept$", "tests left out: those whose inputs differ from run to run, a slow one, one that reads the code's imports, of which a change needs one more, and one that counts allocations, of which it makes some")
	flag.StringVar(&s.reasons, "reasons", "../docs/testing.md", "where survivors have their reasons")
	flag.StringVar(&s.results, "results", filepath.Join(os.TempDir(), "mutants.jsonl"), "where to write each result")
	flag.BoolVar(&s.resume, "resume", false, "go on with the results of an earlier run on the same code")
	flag.BoolVar(&s.alone, "alone", false, "try each change with the tests of its own package alone")
	flag.DurationVar(&s.silence, "silence", 8*time.Second, "how long one test may take before it counts as hanging")
	flag.Parse()
	var err error
	if s.files, err = regexp.Compile(files); err == nil {
		s.whole, err = regexp.Compile(wholeFiles)
	}
	for _, n := range strings.FieldsFunc(only, func(r rune) bool { return r == ',' }) {
		id, e := strconv.Atoi(n)
		s.only, err = append(s.only, id), cmpError(err, e)
	}
	if err == nil {
		err = s.run()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "mutate: %v\n", err)
		os.Exit(1)
	}
}

func cmpError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

func (s *settings) run() error {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mutants, above, err := prepare(s.module, dir, core...)
	if err != nil {
		return err
	}
	chosen := s.choose(mutants)
	if s.list {
		for _, m := range chosen {
			fmt.Fprintf(os.Stdout, "%d %s:%d %s: %s\n", m.ID, m.File, m.Line, m.Func, m.Change)
		}
		return nil
	}
	reasons, err := readReasons(s.reasons)
	if err != nil {
		return err
	}
	began := time.Now()
	outside, err := blackBox(s.module)
	if err != nil {
		return err
	}
	r := &runner{dir: dir, above: above, blackBox: outside, alone: s.alone, took: map[string]time.Duration{}, skip: s.skip, verbose: s.verbose, silence: s.silence}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	if err := r.build(chosen); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%d of %d changes; built and measured in %v\n", len(chosen), len(mutants), time.Since(began).Round(time.Second))
	results, err := r.tryAll(chosen, s.parallel, s.results, s.resume, interrupted)
	report(results, reasons, time.Since(began))
	return err
}

// choose takes every change of some files and a sample of the others'.
func (s *settings) choose(mutants []Mutant) []Mutant {
	var chosen, others []Mutant
	for _, m := range mutants {
		switch {
		case len(s.only) > 0:
			if slices.Contains(s.only, m.ID) {
				chosen = append(chosen, m)
			}
		case !s.files.MatchString(m.File):
		case s.whole.MatchString(m.File):
			chosen = append(chosen, m)
		default:
			others = append(others, m)
		}
	}
	rnd := rand.New(rand.NewPCG(s.seed, 0))
	rnd.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	if s.sample >= 0 {
		others = others[:min(s.sample, len(others))]
	}
	chosen = append(chosen, others...)
	slices.SortFunc(chosen, func(a, b Mutant) int { return a.ID - b.ID })
	return chosen
}
