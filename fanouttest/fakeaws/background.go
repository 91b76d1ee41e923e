package fakeaws

import (
	"context"
	"time"
)

// A job is work that the fake does by itself, after the request that caused it
// was answered: it calls user code, such as a handler of an HTTP endpoint, now
// or later.
//
// Invariants, under the cloud's lock: a job is in cloud.jobs while it waits for
// its timer, and counts in cloud.running while its goroutine runs. It counts in
// cloud.busy all the time. After the end of the fake none waits and none begins.
type job struct {
	cloud *cloud
	run   func(ctx context.Context)
	timer *time.Timer // nil if it begins at once
}

// laterLocked has run called after a delay, in a goroutine of its own and
// without the lock. The context of run ends when the fake is closed, and
// [AWS.Close] waits until run has returned. A job that has not begun by then
// never begins. run may panic only if the program shall end.
func (c *cloud) laterLocked(delay time.Duration, run func(ctx context.Context)) *job {
	j := &job{cloud: c, run: run}
	if c.ended {
		return j
	}
	c.busy++
	if delay <= 0 {
		c.running.Add(1)
		go j.work()
		return j
	}
	if c.jobs == nil {
		c.jobs = map[*job]struct{}{}
	}
	c.jobs[j] = struct{}{}
	j.timer = time.AfterFunc(delay, j.due)
	return j
}

// due is called by the job's timer.
func (j *job) due() {
	c := j.cloud
	c.mu.Lock()
	_, waits := c.jobs[j]
	if waits {
		delete(c.jobs, j)
		c.running.Add(1)
	}
	c.mu.Unlock()
	if waits {
		j.work()
	}
}

// work does the job in its goroutine, which cloud.close joins.
func (j *job) work() {
	defer j.cloud.running.Done()
	defer j.done()
	j.run(j.cloud.ctx)
}

func (j *job) done() {
	j.cloud.mu.Lock()
	defer j.cloud.mu.Unlock()
	j.cloud.busy--
	j.cloud.tellLocked()
}

// stopLocked keeps a job that waits from beginning.
func (j *job) stopLocked() {
	if _, waits := j.cloud.jobs[j]; !waits {
		return
	}
	j.timer.Stop()
	delete(j.cloud.jobs, j)
	j.cloud.busy--
	j.cloud.tellLocked()
}

// log writes lines into the test's log. It is called without the lock, by who
// ends before the fake has ended.
func (c *cloud) log(lines ...string) {
	if c.tb == nil {
		return
	}
	for _, line := range lines {
		c.tb.Logf("%s", line)
	}
}
