package fakeaws

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// mostPayload is how long what a function gets and returns can be.
const mostPayload = 6 << 20

// A run is one run of a function's code.
type run struct {
	function  *Function
	requestID string
	payload   []byte
	ctx       context.Context
	done      chan outcome // has room for one
}

// An outcome is how a run ended.
type outcome struct {
	response []byte
	fault    *messages.InvokeResponse_Error // nil if it went well
	stack    string                         // of a panic
	closed   bool                           // the fake ended before the run did
}

// enterLocked takes room for a run, if there is any. Who got it calls runNow, or
// leaveLocked.
func (f *Function) enterLocked() bool {
	if f.settings.limited && f.running >= f.settings.reserved {
		f.throttled++
		return false
	}
	f.running++
	return true
}

// leaveLocked gives the room of a run to the batch that has waited longest.
func (f *Function) leaveLocked() {
	if len(f.waiting) > 0 {
		close(f.waiting[0])
		f.waiting = f.waiting[1:]
		return
	}
	f.running--
}

// runNow runs the function, for which there is room, and waits until that ended
// or its time is up. Then there is room again.
func (f *Function) runNow(requestID, source string, payload []byte) outcome {
	c := f.cloud
	deadline := time.Now().Add(f.settings.timeout)
	ctx, cancel := context.WithDeadline(lambdacontext.NewContext(c.ctx,
		&lambdacontext.LambdaContext{AwsRequestID: requestID, InvokedFunctionArn: f.ARN()}), deadline)
	defer cancel()
	r := &run{function: f, requestID: requestID, payload: payload, ctx: ctx, done: make(chan outcome, 1)}
	told := &Invocation{RequestID: requestID, Source: source, Payload: slices.Clone(payload), Began: deadline.Add(-f.settings.timeout)}
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return outcome{closed: true}
	}
	if c.tb != nil {
		f.history = append(f.history, told)
	}
	c.running.Go(r.work)
	c.mu.Unlock()

	var out outcome
	late := false
	select {
	case out = <-r.done:
		late = !time.Now().Before(deadline)
	case <-ctx.Done():
		late = true
	}
	if c.ctx.Err() != nil {
		return outcome{closed: true}
	}
	now := time.Now()
	if late {
		now = deadline
		out = outcome{fault: &messages.InvokeResponse_Error{Type: "Sandbox.Timedout",
			Message: fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", requestID, f.settings.timeout.Seconds())}}
	}
	c.mu.Lock()
	f.leaveLocked()
	told.Ended, told.Response = now, out.response
	if out.fault != nil {
		told.Error = out.fault.Type + ": " + out.fault.Message
	}
	c.mu.Unlock()
	if out.fault != nil {
		c.log(fmt.Sprintf("fakeaws: function %s failed (request %s): %s%s", f.name, requestID, told.Error, out.stack))
	}
	if c.observe != nil {
		c.observe(Call{Operation: "Invoke", Resource: f.name, Region: f.place.region, Account: f.place.account, Time: told.Began, Took: now.Sub(told.Began), Error: told.Error})
	}
	return out
}

// work calls the function's code. It is started by runNow; it ends when the code
// returns, whose context ends with the fake; it is joined by cloud.close. It may
// end later than the run, whose time was up.
func (r *run) work() {
	out := outcome{fault: &messages.InvokeResponse_Error{Type: "Runtime.ExitError", Message: "RequestId: " + r.requestID + " Error: Runtime exited without providing a reason"}}
	defer func() { r.done <- out }() // also after runtime.Goexit
	defer func() {
		if v := recover(); v != nil {
			out = outcome{fault: faultOf(v, fmt.Sprint(v)), stack: "\n" + string(debug.Stack())}
		}
	}()
	// A handler of package lambda is made for each run: its answer is in a buffer
	// that its next call writes to.
	response, err := lambda.NewHandler(r.function.handler).Invoke(r.ctx, r.payload)
	switch {
	case err != nil:
		out = outcome{fault: faultOf(err, err.Error())}
	case len(response) > 0 && !json.Valid(response):
		out = outcome{fault: &messages.InvokeResponse_Error{Type: "Runtime.MarshalError", Message: "the function returned no JSON"}}
	case len(response) > mostPayload:
		out = outcome{fault: &messages.InvokeResponse_Error{Type: "Function.ResponseSizeTooLarge",
			Message: fmt.Sprintf("Response payload size (%d bytes) exceeded maximum allowed payload size (%d bytes).", len(response), mostPayload)}}
	default:
		out = outcome{response: bytes.Clone(response)}
	}
}

// faultOf returns what Lambda says of an error or of the value of a panic.
func faultOf(v any, message string) *messages.InvokeResponse_Error {
	if known, ok := v.(messages.InvokeResponse_Error); ok {
		return &known
	}
	t := reflect.TypeOf(v)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return &messages.InvokeResponse_Error{Type: t.Name(), Message: message}
}
