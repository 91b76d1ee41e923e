package enginetest

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// A recorder is what a check is given for a testing.TB. It keeps what the check
// says instead of failing a test, so that checks can run at once whatever
// -parallel says, and so that the kit's own tests can see a check fail. What it
// does not override is its parent's.
type recorder struct {
	testing.TB // the parent

	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex // guards the fields below
	lines    []string
	failed   bool
	skipped  bool
	slow     bool // the check could not tell, for want of time
	cleanups []func()
}

func newRecorder(parent testing.TB) *recorder {
	r := &recorder{TB: parent}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// run calls f in a goroutine of its own, which it may end as tests do, and
// then the cleanups.
func (r *recorder) run(f func()) {
	b := &body{recorder: r, f: f}
	b.start(b.main)
	r.cancel()
	for {
		c := r.popCleanup()
		if c == nil {
			return
		}
		b.f = c
		b.start(b.main)
	}
}

// A body is a function that may call FailNow.
type body struct {
	*recorder
	f  func()
	wg sync.WaitGroup
}

func (b *body) start(f func()) {
	b.wg.Go(f)
	b.wg.Wait()
}

// main calls the function. Started by run; ends when the function does, by
// Goexit or a panic too; joined by run.
func (b *body) main() {
	defer func() {
		if p := recover(); p != nil {
			b.Errorf("panic: %v\n%s", p, stack())
		}
	}()
	b.f()
}

func stack() []byte {
	b := make([]byte, 16<<10)
	return b[:runtime.Stack(b, false)]
}

// tooSlow ends the check and has it run again.
func (r *recorder) tooSlow() {
	r.mu.Lock()
	r.slow = true
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *recorder) popCleanup() func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.cleanups)
	if n == 0 {
		return nil
	}
	c := r.cleanups[n-1]
	r.cleanups = r.cleanups[:n-1]
	return c
}

func (r *recorder) add(failed bool, s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	r.lines = append(r.lines, strings.TrimRight(s, "\n"))
}

// text is all that was said.
func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// words puts a space between all arguments, as tests do.
func words(args []any) string {
	ws := []string{}
	for _, a := range args {
		ws = append(ws, fmt.Sprint(a))
	}
	return strings.Join(ws, " ")
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Context() context.Context { return r.ctx }
func (r *recorder) Helper()                  {}
func (r *recorder) Log(args ...any)          { r.add(false, words(args)) }
func (r *recorder) Logf(f string, a ...any)  { r.add(false, fmt.Sprintf(f, a...)) }
func (r *recorder) Error(args ...any)        { r.add(true, words(args)) }
func (r *recorder) Errorf(f string, a ...any) {
	r.add(true, fmt.Sprintf(f, a...))
}

func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(f string, a ...any) {
	r.Errorf(f, a...)
	runtime.Goexit()
}

func (r *recorder) Fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *recorder) FailNow() {
	r.Fail()
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Skip(args ...any) {
	r.Log(args...)
	r.SkipNow()
}

func (r *recorder) Skipf(f string, a ...any) {
	r.Logf(f, a...)
	r.SkipNow()
}

func (r *recorder) SkipNow() {
	r.mu.Lock()
	r.skipped = true
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *recorder) Skipped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.skipped
}

// where is the line of the check that is running, as the helpers between it and
// the recorder are of no interest.
func where() string {
	pc := make([]uintptr, 32)
	frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc)])
	for {
		f, more := frames.Next()
		if base := filepath.Base(f.File); strings.HasPrefix(base, "check_") {
			return fmt.Sprintf("%s:%d", base, f.Line)
		}
		if !more {
			return "unknown line"
		}
	}
}
