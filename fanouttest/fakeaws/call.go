package fakeaws

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// A call is one request to the fake, as operations see it.
type call struct {
	*cloud
	place     // of the caller
	ctx       context.Context
	requestID string
	anonymous bool   // the request has no signature
	operation string // such as SendMessage
	base      string // scheme and host of URLs to hand out; empty in process
	now       time.Time
	resource  string   // name of the queue or topic
	warnings  []string // for the test's log
	failed    error    // what went wrong
	fault     *Fault   // nil if all shall go well
}

// regionOfLocked returns what the caller's account has in the caller's region.
func (c *call) regionOfLocked() *region { return c.regionLocked(c.place) }

// newID returns a random UUID, as AWS's IDs of messages and requests are.
func newID() string { return uuid.NewString() }
