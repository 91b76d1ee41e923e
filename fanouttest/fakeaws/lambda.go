package fakeaws

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

var functionNamePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// A Function is a Lambda function of the fake: a Go function of the test's, which
// runs in the test's process. Topics invoke it through a subscription of the
// protocol lambda, queues through [Queue.Map]. Its methods may be called
// concurrently.
type Function struct {
	cloud    *cloud
	place    place
	name     string
	handler  any
	settings functionSettings

	// The fields below are guarded by the cloud's lock.
	deleted   bool
	running   int             // runs that count: those that have not ended and have not timed out
	throttled int             // invocations that found no room
	waiting   []chan struct{} // batches that wait for a run to end, the oldest first
	history   []*Invocation   // if the fake keeps it
}

// functionSettings are what options of functions write to.
type functionSettings struct {
	timeout     time.Duration
	limited     bool // reserved is set
	reserved    int
	retries     int
	eventAge    time.Duration
	destination string // an ARN, empty if there is none
}

// A FunctionOption configures a function.
type FunctionOption func(*functionSettings)

// WithTimeout sets how long a run of the function may take, in whole seconds
// from 1 s to 15 minutes. The default is 3 s, as in Lambda. The context of a run
// has it as its deadline. A run that takes longer has failed at that instant:
// what it does and returns later is ignored.
func WithTimeout(d time.Duration) FunctionOption {
	return func(s *functionSettings) { s.timeout = d }
}

// WithReservedConcurrency sets how many runs of the function there can be at
// once. More are throttled: a batch of a queue waits for room until its
// visibility timeout ends, and then comes again; an event of a topic is tried
// again after 1 s, 2 s, 4 s and so on up to 5 minutes. 0 throttles all. The
// default is no limit.
func WithReservedConcurrency(runs int) FunctionOption {
	return func(s *functionSettings) { s.reserved, s.limited = runs, true }
}

// WithRetries sets how often an event of a topic whose run failed is tried
// again: 0, 1, or 2, which is the default. The first retry comes a minute after
// the run, the second two minutes after the first.
func WithRetries(n int) FunctionOption {
	return func(s *functionSettings) { s.retries = n }
}

// WithMaximumEventAge sets how old an event of a topic can be when it is tried
// again, from 1 minute to 6 hours, which is the default.
func WithMaximumEventAge(d time.Duration) FunctionOption {
	return func(s *functionSettings) { s.eventAge = d }
}

// WithFailureDestination names the standard queue or topic, by its ARN, that
// gets a record of each event of a topic that was given up. Without one such an
// event is lost, and the test's log says so. Messages of queues do not go there:
// they stay in their queue.
func WithFailureDestination(arn string) FunctionOption {
	return func(s *functionSettings) { s.destination = arn }
}

// Lambda registers a Lambda function of the test's, in the region and account of
// the view. The handler is what a program would give to lambda.Start of
// aws-lambda-go, such as
//
//	func(ctx context.Context, e events.SQSEvent) (events.SQSEventResponse, error)
//	func(ctx context.Context, e events.SNSEvent) error
//	func(ctx context.Context, payload json.RawMessage) (any, error)
//
// Give it the function itself, and not a Handler of lambda.NewHandler, which
// must not be called twice at once. The function's context has its deadline, and
// what package lambdacontext reads: the ID of the request and the function's
// ARN. It ends with the fake, which waits for the function to return.
//
// An error, a panic, runtime.Goexit and an answer that is no JSON are failed
// runs. The test's log has them; none ends the test.
//
// A handler that is none, an invalid name or option, and a name that is taken
// end the test, or panic outside of one.
func (a *AWS) Lambda(name string, handler any, options ...FunctionOption) *Function {
	f := &Function{cloud: a.cloud, place: place{account: a.account, region: a.region}, name: name, handler: handler,
		settings: functionSettings{timeout: 3 * time.Second, retries: 2, eventAge: longestEventAge}}
	for _, o := range options {
		o(&f.settings)
	}
	err := f.check()
	if err == nil {
		err = f.register()
	}
	if err != nil {
		a.refuse("fakeaws: Lambda(%q): %v", name, err)
	}
	return f
}

// The limits of functions.
const (
	longestTimeout   = 15 * time.Minute
	mostEventRetries = 2
	longestEventAge  = 6 * time.Hour
)

// check returns what is wrong with a function.
func (f *Function) check() error {
	s := f.settings
	target, ok := parseARN(s.destination)
	switch {
	case !functionNamePattern.MatchString(f.name):
		return errors.New("want a name of 1 to 64 letters, digits, hyphens and underscores")
	case s.timeout < time.Second || s.timeout > longestTimeout || s.timeout%time.Second != 0:
		return fmt.Errorf("WithTimeout(%v): want whole seconds from 1s to 15m", s.timeout)
	case s.reserved < 0:
		return fmt.Errorf("WithReservedConcurrency(%d): want 0 or more", s.reserved)
	case s.retries < 0 || s.retries > mostEventRetries:
		return fmt.Errorf("WithRetries(%d): want 0, 1 or 2", s.retries)
	case s.eventAge < time.Minute || s.eventAge > longestEventAge:
		return fmt.Errorf("WithMaximumEventAge(%v): want 1m to 6h", s.eventAge)
	case s.destination != "" && (!ok || target.service != "sqs" && target.service != "sns"):
		return fmt.Errorf("WithFailureDestination(%q): want the ARN of a queue or a topic", s.destination)
	case strings.HasSuffix(target.resource, ".fifo"):
		return fmt.Errorf("WithFailureDestination(%q): Lambda does not send to FIFO queues and topics", s.destination)
	}
	return checkHandler(f.handler)
}

// checkHandler returns why a value is no handler, by the rules of lambda.Start.
// Package lambda itself would say so only when the function runs.
func checkHandler(handler any) error {
	if _, ok := handler.(lambda.Handler); ok {
		return nil
	}
	t := reflect.TypeOf(handler)
	if t == nil || t.Kind() != reflect.Func || reflect.ValueOf(handler).IsNil() {
		return fmt.Errorf("the handler is %v: want a function such as func(context.Context, events.SQSEvent) error", t)
	}
	isContext := func(t reflect.Type) bool { return t == reflect.TypeFor[context.Context]() }
	isError := func(t reflect.Type) bool { return t.Implements(reflect.TypeFor[error]()) }
	isEvent := func(t reflect.Type) bool { return t.Kind() != reflect.Interface || t.NumMethod() == 0 }
	in, out := t.NumIn(), t.NumOut()
	switch {
	case in > 2, in == 2 && !isContext(t.In(0)), in == 1 && !isContext(t.In(0)) && !isEvent(t.In(0)):
		return fmt.Errorf("the handler is %v: it may take a context.Context and an event", t)
	case out > 2, out > 0 && !isError(t.Out(out-1)):
		return fmt.Errorf("the handler is %v: it may return a value and an error", t)
	}
	return nil
}

// register puts the function into its region.
func (f *Function) register() error {
	f.cloud.mu.Lock()
	defer f.cloud.mu.Unlock()
	r := f.cloud.regionLocked(f.place)
	if r.functions[f.name] != nil {
		return errors.New("there is a function of that name already")
	}
	if r.functions == nil {
		r.functions = map[string]*Function{}
	}
	r.functions[f.name] = f
	return nil
}

// Name returns the function's name.
func (f *Function) Name() string { return f.name }

// ARN returns the function's ARN, the endpoint of a topic's subscription.
func (f *Function) ARN() string { return arn{"lambda", f.place, "function:" + f.name}.String() }

// Delete deletes the function: its mappings end, its events that wait for
// another run are dropped, and subscriptions that name it fail. Runs under way go
// on. Deleting it again does nothing.
func (f *Function) Delete() {
	c := f.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.deleted {
		return
	}
	f.deleted = true
	delete(c.regions[f.place].functions, f.name)
	for _, r := range c.regions {
		for _, q := range r.queues {
			for _, m := range slices.Clone(q.mappings) {
				if m.function == f {
					m.stopLocked()
				}
			}
		}
	}
	c.tellLocked()
}

// functionByARNLocked returns the function with the ARN, nil if there is none.
// The fake knows neither versions nor aliases.
func (c *cloud) functionByARNLocked(functionARN string) *Function {
	a, ok := parseARN(functionARN)
	if !ok || c.regions[a.place] == nil {
		return nil
	}
	for _, f := range c.regions[a.place].functions {
		if f.ARN() == functionARN || f.ARN()+":$LATEST" == functionARN {
			return f
		}
	}
	return nil
}

// An Invocation is one run of a function.
type Invocation struct {
	// RequestID is one for all runs of an event.
	RequestID string
	// Source is the ARN of the queue or topic.
	Source string
	// Payload is what the function got, and Response what it returned, as JSON.
	Payload, Response []byte
	// Began and Ended are when the run began and ended. Ended is zero while it
	// runs. A run that takes too long ends when its time is up.
	Began, Ended time.Time
	// Error is the error's type and message, empty if there is none.
	Error string
}

// Invocations returns the function's runs in the order in which they began.
// Fakes of [Start] keep no such history: there it is always empty.
func (f *Function) Invocations() (is []Invocation) {
	f.cloud.mu.Lock()
	defer f.cloud.mu.Unlock()
	for _, i := range f.history {
		is = append(is, *i)
	}
	return is
}

// Throttled returns how many invocations found the function's reserved
// concurrency taken.
func (f *Function) Throttled() int {
	f.cloud.mu.Lock()
	defer f.cloud.mu.Unlock()
	return f.throttled
}
