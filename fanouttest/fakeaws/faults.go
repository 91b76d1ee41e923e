package fakeaws

import (
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"
)

// An Error is an error answer of the service, see [Fault].
type Error struct {
	// Code is the error's code, such as RequestThrottled.
	Code string
	// Message is what the error says besides.
	Message string
	// Status is the HTTP status, 400 if it is 0. SDKs try again after 5xx.
	Status int
	// Receiver says that the service is to blame, and not the caller.
	Receiver bool
}

// Errors for [Fault]. Copies may be changed.
var (
	// Throttled is what SQS answers to those who ask too often. SDKs wait and
	// try again.
	Throttled = Error{Code: "RequestThrottled", Message: "The request was denied due to request throttling.", Status: http.StatusForbidden}
	// InternalFailure is a failure of the service. SDKs try again.
	InternalFailure = Error{Code: "InternalFailure", Message: "The request processing has failed because of an unknown error.", Status: http.StatusInternalServerError, Receiver: true}
	// ServiceUnavailable says that the service cannot answer now. SDKs try again.
	ServiceUnavailable = Error{Code: "ServiceUnavailable", Message: "The request has failed due to a temporary failure of the server.", Status: http.StatusServiceUnavailable, Receiver: true}
	// AccessDenied says that the caller may not do this.
	AccessDenied = Error{Code: "AccessDenied", Message: "Access to the resource is denied.", Status: http.StatusForbidden}
)

// Always is the value of Fault.Times for every call.
const Always = int(^uint(0) >> 1)

// A Fault says what goes wrong, and when. [AWS.Inject] puts it into the fake.
type Fault struct {
	// Operation is the operation that it is about, such as SendMessage. Empty
	// means all.
	Operation string
	// Resource is the name of the queue or topic that it is about. Empty means
	// all.
	Resource string
	// After is how many such calls go well first: 2 makes the third one fail.
	After int
	// Times is how many calls it is about, [Always] for all from then on. 0
	// means 1.
	Times int

	// Delay is how long the call waits before anything else happens. It ends
	// with the call's context.
	Delay time.Duration
	// Error is the answer. The operation is not done, except in part, see
	// Entries.
	Error *Error
	// Entries are the IDs of the entries of a batch that fail with Error; the
	// others are done. "*" stands for each.
	Entries []string
	// LoseRequest makes the call fail as if the connection were lost before the
	// request arrived: nothing is done.
	LoseRequest bool
	// LoseResponse makes the call fail as if the connection were lost after the
	// request arrived: the operation is done, and the caller does not know.
	LoseResponse bool
	// Twice has a standard queue deliver what the call sends twice: the message
	// is there two times, with one ID, and each must be deleted.
	Twice bool
}

// An Injected is a fault in the fake.
type Injected struct {
	fault Fault
	cloud *cloud
	seen  int // matching calls
	hits  int
	gone  bool
}

// Inject puts a fault into the fake, for all its accounts and regions. If several faults
// match a call, the one that was injected first applies. A fault that can never happen, such
// as one of an unknown operation, ends the test; outside of a test it panics.
func (a *AWS) Inject(f Fault) *Injected {
	_, inSQS := sqsOperations[f.Operation]
	_, inSNS := snsOperations[f.Operation]
	switch {
	case f.Operation != "" && !inSQS && !inSNS:
		a.refuse("fakeaws: Inject: Operation %q is none of SQS or SNS that the fake has", f.Operation)
	case f.Error == nil && f.Delay == 0 && !f.LoseRequest && !f.LoseResponse && !f.Twice:
		a.refuse("fakeaws: Inject: the Fault does nothing: set Error, Delay, LoseRequest, LoseResponse or Twice")
	case f.After < 0 || f.Times < 0 || f.Delay < 0:
		a.refuse("fakeaws: Inject: After %d, Times %d, Delay %v: none can be negative", f.After, f.Times, f.Delay)
	case len(f.Entries) > 0 && f.Error == nil:
		a.refuse("fakeaws: Inject: Entries %q without an Error", f.Entries)
	}
	if f.Times == 0 {
		f.Times = 1
	}
	i := &Injected{fault: f, cloud: a.cloud}
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	a.cloud.faults = append(a.cloud.faults, i)
	return i
}

// Hits returns how many calls the fault was for.
func (i *Injected) Hits() int {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	return i.hits
}

// Remove takes the fault out of the fake. Calls that it is for already are not
// changed. Removing it again does nothing.
func (i *Injected) Remove() {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	i.gone = true
	i.cloud.faults = slices.DeleteFunc(i.cloud.faults, func(j *Injected) bool { return j == i })
}

// Calls returns how often an operation was called, whatever the answer.
func (a *AWS) Calls(operation string) int {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.cloud.calls[operation]
}

// errLost is what a client gets whose connection was lost.
var errLost = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

// begin counts a call and does what its fault says comes first. An *apiError is
// the answer; any other error loses the connection.
func (c *call) begin(resource string) error {
	c.resource = resource
	c.mu.Lock()
	if c.calls == nil {
		c.calls = map[string]int{}
	}
	c.calls[c.operation]++
	c.fault = c.faultLocked(resource)
	c.mu.Unlock()
	f := c.fault
	if f == nil {
		return nil
	}
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-c.closed:
			return errClosed
		}
		c.now = time.Now()
	}
	if f.LoseRequest {
		return errLost
	}
	if f.Error != nil && len(f.Entries) == 0 {
		return f.Error.answer()
	}
	return nil
}

// faultLocked returns the fault that a call gets, nil if there is none.
func (c *call) faultLocked(resource string) *Fault {
	for k, i := range c.faults {
		f := &i.fault
		if f.Operation != "" && f.Operation != c.operation || f.Resource != "" && f.Resource != resource {
			continue
		}
		if i.seen++; i.seen <= f.After {
			continue
		}
		i.hits++
		if i.hits >= f.Times {
			c.faults = slices.Delete(slices.Clone(c.faults), k, k+1)
		}
		return f
	}
	return nil
}

// end is called when an operation was done.
func (c *call) end(err error) error {
	if c.fault != nil && c.fault.LoseResponse {
		return errLost
	}
	return err
}

// entryFault returns the error that an entry of a batch shall get, nil if there
// is none.
func (c *call) entryFault(id string) error {
	if f := c.fault; f != nil && f.Error != nil && (slices.Contains(f.Entries, id) || slices.Contains(f.Entries, "*")) {
		return f.Error.answer()
	}
	return nil
}

// answer returns the error as operations return errors.
func (e *Error) answer() *apiError {
	shape := e.Code
	for _, known := range sqsErrors {
		if known.queryCode() == e.Code {
			shape = known.shape
		}
	}
	return &apiError{shape: shape, code: e.Code, status: e.Status, message: e.Message, receiver: e.Receiver}
}
