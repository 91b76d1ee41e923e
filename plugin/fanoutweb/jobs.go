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

	mu        sync.Mutex
	wanted    int
	count     int
	gone      int
	err       error
	note      string
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
