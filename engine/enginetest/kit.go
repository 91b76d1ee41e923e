package enginetest

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofanout/fanout/engine"
)

// A check is one sentence of the contract, or one promise of the library, and
// how to see if it holds.
type check struct {
	// feature is what it belongs to in reports; 0 is what all engines must do.
	feature engine.Feature
	name    string
	// rule is the sentence that must hold. It is what a failure begins with.
	rule string
	// needs are further features without which it doesn't apply.
	needs []engine.Feature
	// unless says why it doesn't apply, "" if it does.
	unless func(x *fixture) string
	// alone has it run before all others, with nothing beside it.
	alone bool
	run   func(x *fixture)
}

// A kit runs one suite of checks on one engine.
type kit struct {
	suite  string
	make   func(t testing.TB) engine.Engine
	o      *settings
	checks []check
}

// applies says why c can't be run on an engine with these capabilities, "" if
// it can.
func (k *kit) applies(c check, caps engine.Capabilities) string {
	all := append([]engine.Feature{}, c.needs...)
	if c.feature != 0 {
		all = append(all, c.feature)
	}
	for _, f := range all {
		if !caps.Keeps(f, 0) {
			return fmt.Sprintf("the engine doesn't keep %q", f)
		}
	}
	if c.unless != nil {
		return c.unless(&fixture{o: k.o, caps: caps})
	}
	return ""
}

// run runs the suite as subtests of t.
func (k *kit) run(t *testing.T) *Report {
	t.Helper()
	start := time.Now()
	name, caps := k.ask(t)
	report := &Report{Suite: k.suite, Engine: name}
	jobs := []*job{}
	for _, c := range k.checks {
		res := result{feature: "every engine", name: c.name}
		if c.feature != 0 {
			res.feature = c.feature.String()
		}
		why := k.applies(c, caps)
		switch {
		case k.o.only != nil && !k.o.only[c.name]:
			res.outcome, res.why = waived, "not among those asked for"
		case why != "":
			res.outcome, res.why = notApplicable, why
		case k.o.waived[c.name] != "":
			res.outcome, res.why = waived, k.o.waived[c.name]
		default:
			jobs = append(jobs, &job{kit: k, check: c, at: len(report.results)})
		}
		report.results = append(report.results, res)
	}
	if !k.o.virtual {
		k.runAll(t, jobs)
	}
	for _, j := range jobs {
		res := &report.results[j.at]
		res.outcome = failed
		if t.Run(j.check.name, j.report) {
			res.outcome = passed
		}
	}
	report.Elapsed = time.Since(start)
	t.Log(report.String())
	return report
}

// ask makes an engine only to learn what it keeps.
func (k *kit) ask(t *testing.T) (name string, caps engine.Capabilities) {
	name, caps = "memory", memoryCapabilities()
	r := newRecorder(t)
	look := func() {
		if e := k.make(r); e != nil {
			name, caps = e.Name(), e.Capabilities()
		}
	}
	if k.o.virtual {
		synctest.Test(t, func(t *testing.T) {
			r = newRecorder(t)
			r.run(look)
		})
	} else {
		r.run(look)
	}
	if r.Skipped() {
		t.Skip(r.text())
	}
	if r.Failed() {
		t.Fatalf("the engine could not be made:\n%s", r.text())
	}
	return name, caps
}

// A job is a check that applies.
type job struct {
	kit   *kit
	check check
	at    int // in the report
	seen  *recorder
	slots chan struct{} // in real time: one for each that may run at once
}

// runAll runs the jobs in real time, those that must be alone first.
func (k *kit) runAll(t testing.TB, jobs []*job) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(1, k.o.concurrency))
	for _, j := range jobs {
		if j.check.alone {
			j.do(t)
		}
	}
	for _, j := range jobs {
		if !j.check.alone {
			j.seen, j.slots = newRecorder(t), slots
			wg.Go(j.inTurn)
		}
	}
	wg.Wait()
}

// inTurn runs the job when there is a slot. Started by runAll; ends when the check
// does; joined by runAll.
func (j *job) inTurn() {
	j.slots <- struct{}{}
	j.do(j.seen.TB)
	<-j.slots
}

// do runs the check, on an engine of its own, and keeps what it says. When the
// machine was too slow for it to tell, it is run again.
func (j *job) do(t testing.TB) {
	for range 5 {
		j.once(t)
		if !j.seen.slow {
			return
		}
	}
	j.seen.Errorf("five times the check took so long that it could not tell; a longer Pace would help")
}

func (j *job) once(t testing.TB) {
	j.seen = newRecorder(t)
	j.seen.run(func() {
		x := &fixture{TB: j.seen, ctx: j.seen.Context(), o: j.kit.o, check: &j.check, caps: memoryCapabilities()}
		if x.e = j.kit.make(j.seen); x.e != nil {
			x.caps = x.e.Capabilities()
		}
		j.check.run(x)
	})
}

// doVirtual is do in a bubble.
func (j *job) doVirtual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { j.do(t) })
}

// report is the subtest of the job. In virtual time it runs the check; in real
// time that has been done.
func (j *job) report(t *testing.T) {
	if j.kit.o.virtual {
		j.doVirtual(t)
	}
	if j.seen.Failed() {
		t.Error("\n" + j.seen.text())
	}
}

// memoryCapabilities is what topics without an engine keep.
func memoryCapabilities() engine.Capabilities {
	caps := engine.Capabilities{}
	for _, f := range engine.Features() {
		caps[f] = engine.Support{Kept: true}
	}
	delete(caps, engine.Durable)
	delete(caps, engine.Distributed)
	return caps
}
