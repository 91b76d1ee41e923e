package fakeaws

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"
)

// The states of a move task, as SQS names them.
const (
	taskRunning   = "RUNNING"
	taskCompleted = "COMPLETED"
	taskCancelled = "CANCELLED"
	taskFailed    = "FAILED"
)

// The rates of move tasks, in messages a second. SQS chooses one if none is
// given; the fake takes the largest.
const mostMoved = 500

// A moveTask moves messages from a dead-letter queue to where they came from,
// or to another queue. Its timer moves one message at a time.
type moveTask struct {
	source      *queue
	handle      string
	destination string // an ARN, empty for the messages' own sources
	rate        *int32 // nil if none was given
	began       instant
	toMove      int64
	moved       int64
	status      string
	reason      string // why it failed
	timer       *time.Timer
}

// startMessageMoveTask implements StartMessageMoveTask.
func (c *call) startMessageMoveTask(in *startMessageMoveTaskInput) (*startMessageMoveTaskOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.taskQueueLocked("SourceArn", in.SourceArn)
	if err != nil {
		return nil, err
	}
	if n := in.MaxNumberOfMessagesPerSecond; n != nil && (*n < 1 || *n > mostMoved) {
		return nil, invalidValue(*n, "MaxNumberOfMessagesPerSecond", "Must be between 1 and 500, if provided.")
	}
	if len(q.sourcesLocked()) == 0 {
		return nil, errInvalidParameterValue.with("Source queue must be configured as a Dead Letter Queue.")
	}
	if in.DestinationArn != nil {
		d, err := c.taskQueueLocked("DestinationArn", in.DestinationArn)
		if err != nil {
			return nil, err
		}
		if d == q {
			return nil, errInvalidParameterValue.with("Source queue arn and destination queue arn cannot be the same.")
		}
		if d.fifo != q.fifo {
			return nil, errInvalidParameterValue.with("Source and destination queues must be of the same type.")
		}
	}
	if t := q.lastTask(); t != nil && t.status == taskRunning {
		return nil, errInvalidParameterValue.with("There is already a task running. Only one active task is allowed for a source queue arn at a given time.")
	}
	now := c.clock()
	q.advanceLocked(now)
	t := &moveTask{source: q, destination: deref(in.DestinationArn), rate: in.MaxNumberOfMessagesPerSecond, began: now,
		toMove: int64(q.counts[visible]), status: taskRunning}
	handle, _ := json.Marshal(struct { // strings do not fail
		TaskID    string `json:"taskId"`
		SourceArn string `json:"sourceArn"`
	}{newID(), q.arn})
	t.handle = base64.StdEncoding.EncodeToString(handle)
	q.tasks = append(q.tasks, t)
	if len(q.tasks) > 10 {
		q.tasks = slices.Delete(q.tasks, 0, len(q.tasks)-10)
	}
	t.timer = time.AfterFunc(t.step(), t.run)
	return &startMessageMoveTaskOutput{TaskHandle: t.handle}, nil
}

// step is the time between two messages.
func (t *moveTask) step() instant {
	n := int32(mostMoved)
	if t.rate != nil {
		n = *t.rate
	}
	return time.Second / instant(n)
}

// run moves one message, or ends the task. It is called by the task's timer.
func (t *moveTask) run() {
	c := t.source.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.status != taskRunning {
		return
	}
	now := c.clock()
	q := t.source
	q.advanceLocked(now)
	if len(q.ready) == 0 {
		t.endLocked(taskCompleted, "")
		return
	}
	m := q.ready[0]
	arn := t.destination
	if arn == "" {
		arn = m.source
	}
	if arn == "" {
		t.endLocked(taskFailed, "CouldNotDetermineMessageSource")
		return
	}
	d := c.queueByARNLocked(arn)
	if d == nil {
		t.endLocked(taskFailed, "AWS.SimpleQueueService.NonExistentQueue")
		return
	}
	q.removeLocked(m)
	moved := &message{content: m.content, id: newID(), sender: m.sender, sent: now, enqueued: now}
	if d.fifo {
		moved.sequence = d.nextSequence()
	}
	d.advanceLocked(now)
	d.addLocked(moved, now, now)
	t.moved++
	d.serveLocked(now)
	q.serveLocked(now)
	if t.status == taskRunning {
		t.timer.Reset(t.step())
	}
}

func (t *moveTask) endLocked(status, reason string) {
	t.status, t.reason = status, reason
	t.timer.Stop()
	t.source.cloud.tellLocked()
}

func (q *queue) lastTask() *moveTask {
	if len(q.tasks) == 0 {
		return nil
	}
	return q.tasks[len(q.tasks)-1]
}

// taskQueueLocked returns the queue with an ARN, of the caller's account and
// region.
func (c *call) taskQueueLocked(parameter string, queueARN *string) (*queue, error) {
	if deref(queueARN) == "" {
		return nil, missing(parameter)
	}
	a, ok := parseARN(*queueARN)
	if !ok || a.service != "sqs" {
		return nil, errInvalidParameterValue.with("You must use this format to specify the %s: arn:<partition>:<service>:<region>:<account-id>:<resource-id>", parameter)
	}
	q := c.queueByARNLocked(*queueARN)
	if q == nil || a.place != c.place {
		return nil, errResourceNotFound.with("The resource that you specified for the %s parameter doesn't exist.", parameter)
	}
	return q, nil
}

// listMessageMoveTasks implements ListMessageMoveTasks.
func (c *call) listMessageMoveTasks(in *listMessageMoveTasksInput) (*listMessageMoveTasksOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.taskQueueLocked("SourceArn", in.SourceArn)
	if err != nil {
		return nil, err
	}
	n := 1
	if in.MaxResults != nil {
		if *in.MaxResults < 1 || *in.MaxResults > 10 {
			return nil, invalidValue(*in.MaxResults, "MaxResults", "Must be between 1 and 10, if provided.")
		}
		n = int(*in.MaxResults)
	}
	out := &listMessageMoveTasksOutput{}
	for k := len(q.tasks) - 1; k >= 0 && len(out.Results) < n; k-- {
		t := q.tasks[k]
		r := messageMoveTask{SourceArn: q.arn, DestinationArn: t.destination, MaxNumberOfMessagesPerSecond: t.rate, Status: t.status,
			FailureReason: t.reason, ApproximateNumberOfMessagesMoved: t.moved, ApproximateNumberOfMessagesToMove: &t.toMove,
			StartedTimestamp: c.millis(t.began)}
		if t.status == taskRunning {
			r.TaskHandle = t.handle
		}
		out.Results = append(out.Results, r)
	}
	return out, nil
}

// cancelMessageMoveTask implements CancelMessageMoveTask.
func (c *call) cancelMessageMoveTask(in *cancelMessageMoveTaskInput) (*cancelMessageMoveTaskOutput, error) {
	if deref(in.TaskHandle) == "" {
		return nil, missing("TaskHandle")
	}
	var handle struct {
		SourceArn string `json:"sourceArn"`
	}
	text, err := base64.StdEncoding.DecodeString(*in.TaskHandle)
	if err != nil || json.Unmarshal(text, &handle) != nil {
		return nil, errInvalidParameterValue.with("Value for parameter TaskHandle is invalid.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.taskQueueLocked("SourceArn", &handle.SourceArn)
	if err != nil {
		return nil, err
	}
	for _, t := range q.tasks {
		if t.handle != *in.TaskHandle {
			continue
		}
		if t.status != taskRunning {
			return nil, errUnsupportedOperation.with("Only active tasks can be cancelled.")
		}
		t.endLocked(taskCancelled, "")
		return &cancelMessageMoveTaskOutput{ApproximateNumberOfMessagesMoved: t.moved}, nil
	}
	return nil, errResourceNotFound.with("Task does not exist.")
}
