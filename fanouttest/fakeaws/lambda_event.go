package fakeaws

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-lambda-go/lambda/messages"
)

// An event is an asynchronous invocation of a function: it is tried until a run
// goes well, or until it is given up. Between two tries it is a job that waits.
type event struct {
	function  *Function
	requestID string // of all runs
	source    string
	payload   []byte
	at        instant
	runs      int
	throttled int
	fault     *messages.InvokeResponse_Error // of the last run
}

// Why events are given up, as their records say it.
const (
	retriesExhausted = "RetriesExhausted"
	eventAgeExceeded = "EventAgeExceeded"
)

// invokeLocked invokes a function asynchronously, from now on.
func (f *Function) invokeLocked(source string, payload []byte) {
	e := &event{function: f, requestID: newID(), source: source, payload: payload, at: f.cloud.clock()}
	e.tryLocked(0)
}

// tryLocked tries the event after a while, or gives it up if it is too old then.
func (e *event) tryLocked(wait time.Duration) {
	c := e.function.cloud
	left := e.at + e.function.settings.eventAge - c.clock()
	if wait > left {
		c.laterLocked(left, e.tooOld)
		return
	}
	if wait > 0 {
		c.laterLocked(wait, e.due)
		return
	}
	if !e.function.enterLocked() {
		e.throttledLocked()
		return
	}
	c.laterLocked(0, e.run)
}

// due tries the event again.
func (e *event) due(context.Context) {
	c := e.function.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.function.deleted {
		e.tryLocked(0)
	}
}

// throttledLocked tries an event again for which there was no room.
func (e *event) throttledLocked() {
	wait := min(time.Second<<min(e.throttled, 20), 5*time.Minute)
	e.throttled++
	e.tryLocked(wait)
}

// run runs the function, for which there is room.
func (e *event) run(context.Context) {
	f := e.function
	out := f.runNow(e.requestID, e.source, e.payload)
	e.runs++
	e.fault = out.fault
	if out.closed || out.fault == nil {
		return
	}
	if e.runs > f.settings.retries {
		e.giveUp(retriesExhausted)
		return
	}
	f.cloud.mu.Lock()
	defer f.cloud.mu.Unlock()
	e.tryLocked(time.Duration(e.runs) * time.Minute)
}

// tooOld gives up an event that will be too old when it would be tried again.
func (e *event) tooOld(context.Context) { e.giveUp(eventAgeExceeded) }

// A record is what Lambda sends to a failure destination.
type record struct {
	Version         string          `json:"version"`
	Timestamp       string          `json:"timestamp"`
	RequestContext  requestContext  `json:"requestContext"`
	RequestPayload  json.RawMessage `json:"requestPayload"`
	ResponseContext *responseOf     `json:"responseContext,omitempty"`
	ResponsePayload any             `json:"responsePayload,omitempty"`
}

type requestContext struct {
	RequestID              string `json:"requestId"`
	FunctionARN            string `json:"functionArn"`
	Condition              string `json:"condition"`
	ApproximateInvokeCount int    `json:"approximateInvokeCount"`
}

type responseOf struct {
	StatusCode      int    `json:"statusCode"`
	ExecutedVersion string `json:"executedVersion"`
	FunctionError   string `json:"functionError"`
}

// giveUp sends a record of the event to the function's failure destination, if
// it has one.
func (e *event) giveUp(condition string) {
	f := e.function
	c := f.cloud
	k := &call{cloud: c, place: f.place, ctx: c.ctx, requestID: newID(), now: time.Now()}
	r := record{Version: "1.0", Timestamp: timestamp(k.now), RequestPayload: e.payload,
		RequestContext: requestContext{RequestID: e.requestID, FunctionARN: f.ARN() + ":$LATEST", Condition: condition, ApproximateInvokeCount: e.runs}}
	if e.fault != nil {
		r.ResponseContext = &responseOf{StatusCode: 200, ExecutedVersion: "$LATEST", FunctionError: "Unhandled"}
		r.ResponsePayload = e.fault
	}
	text, err := encodeJSON(r)
	why := "it has no failure destination"
	if err != nil {
		why = err.Error()
	} else if f.settings.destination != "" {
		why = k.sendRecord(f.settings.destination, string(text))
	}
	if why != "" {
		k.warnings = append(k.warnings, fmt.Sprintf("fakeaws: an event of function %s was lost (request %s, %s): %s", f.name, e.requestID, condition, why))
	}
	c.log(k.warnings...)
}

// sendRecord sends a record to a queue or a topic. It returns why it could not.
func (c *call) sendRecord(destination, text string) (why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	target, _ := parseARN(destination)
	if target.service == "sns" {
		var t *topic
		if r := c.regions[target.place]; r != nil {
			t = r.sns.topics[target.resource]
		}
		switch {
		case t == nil:
			return "there is no topic " + destination
		case len(text) > t.mostSize():
			return fmt.Sprintf("the record has %d bytes, and topic %s takes %d", len(text), t.name, t.mostSize())
		}
		c.publishLocked(t, &notification{body: text})
		return ""
	}
	q := c.queueByARNLocked(destination)
	switch {
	case q == nil:
		return "there is no queue " + destination
	case len(text) > q.attributes.mostSize:
		return fmt.Sprintf("the record has %d bytes, and queue %s takes %d", len(text), q.name, q.attributes.mostSize)
	}
	m := content{body: text}
	m.digest()
	c.sendLocked(q, m, q.attributes.delay)
	q.serveLocked(c.clock())
	return ""
}
