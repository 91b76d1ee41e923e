package fanoutweb

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

const (
	// mostRunning is how many actions there are at once, mostJobs how many are remembered.
	mostRunning = 8
	mostJobs    = 32
)

// againFor is how long after a redrive it is heard which of its letters die again.
const againFor = time.Minute

// An again is what has died again of what was redriven.
type again struct {
	moved map[string]bool // IDs of what may die again; nil: nobody listens
	n     int
	last  death
}

// listen hears which of the letters with these IDs die again, until stop is called. Letters
// of an engine have no IDs here, and aren't heard of.
func (j *job) listen(t fanout.TopicView, ids []string) (stop func()) {
	moved := make(map[string]bool, len(ids))
	for _, id := range ids {
		moved[id] = true
	}
	j.set(func(j *job) { j.again.moved = moved })
	stop, err := t.Tap(fanout.Hooks{DeadLettered: j.hear})
	if err != nil {
		return func() {}
	}
	return stop
}

func (j *job) hear(e fanout.Event) {
	if e.Queue != j.Queue {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.again.moved[e.MessageID] {
		delete(j.again.moved, e.MessageID) // once
		j.again.n++
		j.again.last = death{e.Time, e.Cause.String(), e.Err}
	}
}

// An ear listens on after a job's end.
type ear struct {
	js   *jobs
	j    *job
	stop func()
}

func (e ear) run() {
	defer e.stop()
	timer := time.NewTimer(againFor)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-e.js.life.Done():
	}
	e.j.set(func(j *job) { j.again.moved = nil })
}

// jobs are the actions that are under way, and the last that have ended. Each runs in a
// goroutine of its own, until it is done, cancelled, or the page is closed, which joins it.
// All methods may be called concurrently.
type jobs struct {
	life context.Context
	work sync.WaitGroup

	mu     sync.Mutex
	all    []*job // the oldest first
	closed bool
}

// A job is one action. What is exported of it doesn't change.
type job struct {
	ID           string
	Action       Action
	Topic, Queue string
	Chosen       string // the letters, in words
	cancel       context.CancelFunc
	ended        chan struct{}

	mu sync.Mutex
	jobState
}

// A jobState is what changes of a job.
type jobState struct {
	wanted    int
	count     int
	gone      int
	held      int // letters that a consumer of the dead-letter queue had at the end
	again     again
	took      time.Time // when the stacks were
	err       error
	note      string
	idle      bool // there was nothing to do
	sample    []fanout.MessageView
	stacks    string
	cancelled bool
}

func newJobs(life context.Context) *jobs { return &jobs{life: life} }

var errBusy = errors.New("too many actions are under way")

// start runs f, unless too many are running or the page is closed.
func (js *jobs) start(j *job, f func(ctx context.Context, j *job) error) error {
	js.mu.Lock()
	defer js.mu.Unlock()
	running := 0
	for _, other := range js.all {
		if !other.over() {
			running++
		}
	}
	if running >= mostRunning || js.closed {
		return errBusy
	}
	for len(js.all) >= mostJobs {
		oldest := slices.IndexFunc(js.all, (*job).over)
		js.all = slices.Delete(js.all, oldest, oldest+1)
	}
	ctx, cancel := context.WithCancel(js.life)
	j.ID, j.cancel, j.ended = rand.Text(), cancel, make(chan struct{})
	js.all = append(js.all, j)
	js.work.Go(jobRun{j, ctx, f}.run)
	return nil
}

// A jobRun is a job with what it does.
type jobRun struct {
	j   *job
	ctx context.Context
	f   func(context.Context, *job) error
}

func (r jobRun) run() {
	defer close(r.j.ended)
	defer r.j.cancel()
	err := r.f(r.ctx, r.j)
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	r.j.err, r.j.cancelled = err, err != nil && r.ctx.Err() != nil
}

// find returns the job of an ID, nil if it is forgotten.
func (js *jobs) find(id string) *job {
	js.mu.Lock()
	defer js.mu.Unlock()
	for _, j := range js.all {
		if j.ID == id && id != "" {
			return j
		}
	}
	return nil
}

// close waits for all, once life has ended.
func (js *jobs) close() {
	js.mu.Lock()
	js.closed = true
	js.mu.Unlock()
	js.work.Wait()
}

func (j *job) over() bool {
	select {
	case <-j.ended:
		return true
	default:
		return false
	}
}

// wait waits for the end, for a while.
func (j *job) wait(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-j.ended:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// set changes what is known of the job.
func (j *job) set(f func(j *job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(j)
}

func (j *job) letters() (ls []fanout.MessageView) {
	j.set(func(j *job) { ls = j.sample })
	return ls
}
