package fakeaws

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
	if current {
		q.removeLocked(m)
	}
	return nil
}
