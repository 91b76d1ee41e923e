package fakeaws

import (
	"fmt"
	"regexp"
)

var entryIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

// checkBatch checks the IDs of a batch's entries as SQS does.
func checkBatch(kind string, ids []*string) error {
	if len(ids) == 0 {
		return errEmptyBatchRequest.with("There should be at least one %s in the request.", kind)
	}
	if len(ids) > mostBatch {
		return errTooManyEntriesInBatchRequest.with("Maximum number of entries per request are %d. You have sent %d.", mostBatch, len(ids))
	}
	seen := map[string]bool{}
	for k, id := range ids {
		switch {
		case deref(id) == "":
			return missing(fmt.Sprintf("%s.%d.Id", kind, k+1))
		case !entryIDPattern.MatchString(*id):
			return errInvalidBatchEntryID.with("A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.")
		case seen[*id]:
			return errBatchEntryIdsNotDistinct.with("Id %s repeated.", *id)
		}
		seen[*id] = true
	}
	return nil
}

// failure is what a batch says of an entry that failed.
func failure(id string, err error) batchFailure {
	e, ok := asAPIError(err)
	if !ok {
		e = errInternal.with("%v", err)
	}
	return batchFailure{Id: id, Code: e.queryCode(), Message: e.message, SenderFault: !e.receiver}
}

// sendMessageBatch implements SendMessageBatch.
func (c *call) sendMessageBatch(in *sendMessageBatchInput) (*sendMessageBatchOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	ids := make([]*string, len(in.Entries))
	size := 0
	for k, e := range in.Entries {
		ids[k] = e.Id
		size += len(deref(e.MessageBody))
		for name, a := range e.MessageAttributes {
			size += len(name) + len(deref(a.DataType)) + len(deref(a.StringValue)) + len(a.BinaryValue)
		}
	}
	if err := checkBatch("SendMessageBatchRequestEntry", ids); err != nil {
		return nil, err
	}
	if size > mostBatchSize {
		return nil, errBatchRequestTooLong.with("Batch requests cannot be longer than %d bytes. You have sent %d bytes.", mostBatchSize, size)
	}
	for _, e := range in.Entries {
		switch {
		case !q.fifo:
		case deref(e.MessageGroupId) == "":
			return nil, errInvalidParameterValue.with("The request must contain the parameter MessageGroupId.")
		case e.MessageDeduplicationId == nil && !q.attributes.byContent:
			return nil, noDeduplicationID()
		}
	}
	out := &sendMessageBatchOutput{}
	for _, e := range in.Entries {
		if err := c.entryFault(*e.Id); err != nil {
			out.Failed = append(out.Failed, failure(*e.Id, err))
			continue
		}
		m, delay, err := q.checkSend(&sendMessageInput{MessageBody: e.MessageBody, DelaySeconds: e.DelaySeconds,
			MessageAttributes: e.MessageAttributes, MessageSystemAttributes: e.MessageSystemAttributes,
			MessageDeduplicationId: e.MessageDeduplicationId, MessageGroupId: e.MessageGroupId}, q.attributes.mostSize)
		if err != nil {
			out.Failed = append(out.Failed, failure(*e.Id, err))
			continue
		}
		out.Successful = append(out.Successful, sendMessageBatchResult{*e.Id, *c.sendLocked(q, m, delay)})
	}
	q.serveLocked(c.clock())
	return out, nil
}

// deleteMessageBatch implements DeleteMessageBatch.
func (c *call) deleteMessageBatch(in *deleteMessageBatchInput) (*batchOutput, error) {
	ids := make([]*string, len(in.Entries))
	for k, e := range in.Entries {
		ids[k] = e.Id
	}
	return c.settleBatch(in.QueueUrl, "DeleteMessageBatchRequestEntry", ids, func(q *queue, k int, now instant) error {
		return q.deleteLocked(in.Entries[k].ReceiptHandle)
	})
}

// changeMessageVisibilityBatch implements ChangeMessageVisibilityBatch.
func (c *call) changeMessageVisibilityBatch(in *changeMessageVisibilityBatchInput) (*batchOutput, error) {
	ids := make([]*string, len(in.Entries))
	for k, e := range in.Entries {
		ids[k] = e.Id
	}
	return c.settleBatch(in.QueueUrl, "ChangeMessageVisibilityBatchRequestEntry", ids, func(q *queue, k int, now instant) error {
		return q.changeLocked(in.Entries[k].ReceiptHandle, in.Entries[k].VisibilityTimeout, now)
	})
}

// settleBatch does what one does to each entry, and answers in part.
func (c *call) settleBatch(queueURL *string, kind string, ids []*string, one func(q *queue, k int, now instant) error) (*batchOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(queueURL)
	if err != nil {
		return nil, err
	}
	if err := checkBatch(kind, ids); err != nil {
		return nil, err
	}
	now := c.clock()
	q.advanceLocked(now)
	out := &batchOutput{}
	for k, id := range ids {
		err := c.entryFault(*id)
		if err == nil {
			err = one(q, k, now)
		}
		if err != nil {
			out.Failed = append(out.Failed, failure(*id, err))
			continue
		}
		out.Successful = append(out.Successful, batchResult{*id})
	}
	q.serveLocked(now)
	return out, nil
}
