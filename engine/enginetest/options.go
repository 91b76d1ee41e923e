package enginetest

import (
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
)

// An Option tells Contract and Run about an engine, or about its server: what
// can't be known from its capabilities.
type Option func(*settings)

type settings struct {
	virtual     bool
	pace        time.Duration
	patience    time.Duration
	early       time.Duration
	window      time.Duration
	batch       int
	body        int
	attributes  int
	tooLarge    int
	concurrency int

	sibling func(t testing.TB, e engine.Engine) engine.Engine
	reopen  func(t testing.TB, e engine.Engine) engine.Engine

	waived  map[string]string
	only    map[string]bool
	foreign []string
}

func settingsOf(options []Option) *settings {
	o := &settings{
		pace: time.Second, patience: 30 * time.Second, body: 64 << 10, attributes: 5, batch: 25, concurrency: 16,
		waived:  map[string]string{},
		foreign: []string{"net/http.(*persistConn)", "net/http.(*Transport)", "net/http.(*http2ClientConn)", "testing.", "enginetest."},
	}
	for _, option := range options {
		option(o)
	}
	if o.window == 0 {
		o.window = 5 * o.pace
	}
	return o
}

// InVirtualTime runs each check in a bubble of testing/synctest: no check takes
// real time, and a goroutine that is left makes synctest panic with its stack,
// which ends the test binary. The engine, with all that
// it talks to, must be made inside, by the function that makes it. It
// makes the pace 10 seconds and the patience an hour.
func InVirtualTime() Option {
	return func(o *settings) {
		o.virtual, o.pace, o.patience, o.batch = true, 10*time.Second, time.Hour, 1000
	}
}

// Pace sets how long the shortest lease, wait and delay are that are asked for;
// the others are small multiples of it. The default is one second, the least
// that SQS knows. The shorter, the faster; nothing fails for being slow.
func Pace(d time.Duration) Option { return func(o *settings) { o.pace = d } }

// Patience sets how long to wait for what must come, before the check fails. The
// default is 30 seconds.
func Patience(d time.Duration) Option { return func(o *settings) { o.patience = d } }

// Early allows that what is timed comes by so much too early, for servers that
// count in coarse units. The default is none.
func Early(d time.Duration) Option { return func(o *settings) { o.early = d } }

// DeduplicationWindow sets the window to ask for, for engines that have only one.
// The default is five times the pace. That it ends is checked only if that
// takes no longer than half the patience.
func DeduplicationWindow(d time.Duration) Option { return func(o *settings) { o.window = d } }

// LargeBatch sets how many messages a large batch has. The default is 25, or
// 1,000 in virtual time.
func LargeBatch(messages int) Option { return func(o *settings) { o.batch = messages } }

// LargeBody sets how many bytes of body the engine must carry. The default is
// 64 KiB.
func LargeBody(bytes int) Option { return func(o *settings) { o.body = bytes } }

// Attributes sets how many attributes the engine must carry. The default is 5.
func Attributes(n int) Option { return func(o *settings) { o.attributes = n } }

// TooLarge sets a number of bytes of body that is above the engine's limit.
// Without it the engine is taken to have no limit, and what has to do with
// refused messages counts as not applicable.
func TooLarge(bytes int) Option { return func(o *settings) { o.tooLarge = bytes } }

// Concurrency sets how many checks run at once in real time. The default is 16:
// most of them only wait.
func Concurrency(checks int) Option { return func(o *settings) { o.concurrency = checks } }

// Sibling says how to make another engine over the same storage as e, as another
// process would have it. An engine that declares engine.Distributed needs it.
func Sibling(f func(t testing.TB, e engine.Engine) engine.Engine) Option {
	return func(o *settings) { o.sibling = f }
}

// Reopen says how to end e, as the end of its process would, and open its
// storage again. An engine that declares engine.Durable needs it or Sibling.
func Reopen(f func(t testing.TB, e engine.Engine) engine.Engine) Option {
	return func(o *settings) { o.reopen = f }
}

// Waive leaves out a check, by its name, and has the report say why: for what a
// test server can't do though the engine could. A waived check is not a passed
// one.
func Waive(check, why string) Option { return func(o *settings) { o.waived[check] = why } }

// Only runs these checks and no others, to look for a fault.
func Only(checks ...string) Option {
	return func(o *settings) {
		o.only = map[string]bool{}
		for _, c := range checks {
			o.only[c] = true
		}
	}
}

// ForeignGoroutines says that goroutines with one of these in their stacks are
// not the engine's: those of a client or of an embedded server, which belong to
// who made it. Those of net/http are known.
func ForeignGoroutines(inStack ...string) Option {
	return func(o *settings) { o.foreign = append(o.foreign, inStack...) }
}
