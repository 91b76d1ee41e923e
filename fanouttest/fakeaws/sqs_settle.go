package fakeaws

import (
	"container/heap"
	"time"
)

// findLocked returns the message that a receipt handle is of, nil if it is
// gone. current is false if the message was received again since.
func (q *queue) findLocked(handle *string) (m *message, current bool, err error) {
	if deref(handle) == "" {
		return nil, false, missing("ReceiptHandle")
	}
	r, ok := parseHandle(*handle)
	if !ok || r.queue != q.serial {
		return nil, false, errReceiptHandleIsInvalid.with("The input receipt handle \"%s\" is not a valid receipt handle.", *handle)
	}
	m = q.byNumber[r.number]
	return m, m != nil && m.stamp == r.stamp, nil
}

// deleteMessage implements DeleteMessage.
func (c *call) deleteMessage(in *deleteMessageInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	now := c.clock()
	q.advanceLocked(now)
	if err := q.deleteLocked(in.ReceiptHandle); err != nil {
		return nil, err
	}
	q.serveLocked(now)
	return &emptyOutput{}, nil
}

// deleteLocked deletes a message by its receipt handle. A handle that is not
// the last one deletes nothing, and succeeds in a standard queue, as does that
// of a message that is gone. In a FIFO queue a handle ends with its visibility
// timeout.
func (q *queue) deleteLocked(handle *string) error {
	m, current, err := q.findLocked(handle)
	if err != nil || m == nil {
		return err
	}
	if q.fifo && (!current || m.state != inFlight) {
		return invalidValue(*handle, "ReceiptHandle", "The receipt handle has expired.")
	}
	if current || q.cloud.staleDeletes {
		q.removeLocked(m)
	}
	return nil
}

// longestVisibility is how long a message can be in flight after a receive.
const longestVisibility = 12 * time.Hour

// changeMessageVisibility implements ChangeMessageVisibility.
func (c *call) changeMessageVisibility(in *changeMessageVisibilityInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	now := c.clock()
	q.advanceLocked(now)
	if err := q.changeLocked(in.ReceiptHandle, in.VisibilityTimeout, now); err != nil {
		return nil, err
	}
	q.serveLocked(now)
	return &emptyOutput{}, nil
}

// changeLocked changes how long a message in flight stays hidden, from now.
func (q *queue) changeLocked(handle *string, seconds *int32, now instant) error {
	m, current, err := q.findLocked(handle)
	if err != nil {
		return err
	}
	if seconds == nil {
		return missing("VisibilityTimeout")
	}
	if *seconds < 0 || *seconds > 43200 {
		return invalidValue(*seconds, "VisibilityTimeout", "Must be between 0 and 43200, if provided.")
	}
	switch {
	case m == nil, !current && !q.fifo:
		return invalidValue(*handle, "ReceiptHandle", "Message does not exist or is not available for visibility timeout change.")
	case !current:
		return invalidValue(*handle, "ReceiptHandle", "The receipt handle has expired.")
	case m.state != inFlight:
		return errMessageNotInflight.with("The message referred to is not in flight.")
	}
	due := now + instant(*seconds)*time.Second
	if due > m.received+longestVisibility {
		return invalidValue(*seconds, "VisibilityTimeout", "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]")
	}
	m.changed = true
	if due <= now {
		q.showLocked(m)
		return nil
	}
	m.due = due
	heap.Fix(&q.waiting, m.waitingAt)
	return nil
}
