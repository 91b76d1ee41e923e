package fanoutaws

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout/engine"
)

const (
	// nameTime is how long SQS makes no queue of the name of one that was deleted.
	nameTime = 60 * time.Second
	// nameTries is how long SQS is asked again for one that another process deleted,
	// and namePause how long between two requests.
	nameTries = nameTime + 10*time.Second
	namePause = 2 * time.Second
)

// Delete ends the subscription, and deletes the queue and its dead-letter queue. One that
// is the dead-letter queue of other queues too stays, with its letters. The counts are
// SQS's, which are approximate. What is gone already is no error.
func (q *queue) Delete(ctx context.Context) (dropped, letters int, err error) {
	switch t := q.topic; {
	case t == nil:
		return 0, 0, fmt.Errorf("fanoutaws: delete %s: bug: it is no queue of a topic", q.place.arn)
	case t.e.existing:
		return 0, 0, fmt.Errorf("fanoutaws: delete %s: %w: WithExisting deletes nothing", q.place.arn, errors.ErrUnsupported)
	case t.closed.Load():
		return 0, 0, engine.ErrClosed
	}
	if err := q.remove(ctx); err != nil {
		return 0, 0, fmt.Errorf("fanoutaws: delete %s: %w", q.place.arn, settleError(err))
	}
	dropped, letters = q.held, q.dead.held
	q.held, q.dead.held = 0, 0 // they are told of once
	return dropped, letters, nil
}

func (q *queue) remove(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := q.topic
	if err := t.unsubscribe(ctx, q.place.arn); err != nil {
		return err
	}
	shared, err := q.dead.isShared(ctx, q.place.url)
	if err != nil {
		return err
	}
	if err := q.removeQueue(ctx, t.e); err != nil {
		return err
	}
	if !shared {
		if err := q.dead.removeQueue(ctx, t.e); err != nil {
			return err
		}
	}
	t.opened.Delete(q.place.arn)
	t.e.disclaim(t.name, q.name)
	return nil
}

// unsubscribe ends the queue's subscription to the topic. One that is not confirmed SNS
// forgets by itself.
func (t *topic) unsubscribe(ctx context.Context, queueARN string) error {
	var gone *snstypes.NotFoundException
	subscription, err := t.subscriptionOf(ctx, queueARN)
	switch {
	case errors.As(err, &gone):
		return nil // the topic is
	case err != nil || subscription == "" || subscription == pending:
		return err
	}
	_, err = t.e.sns.Unsubscribe(ctx, &sns.UnsubscribeInput{SubscriptionArn: aws.String(subscription)})
	if errors.As(err, &gone) {
		return nil
	}
	return err
}

// isShared reports whether q is the dead-letter queue of others than the queue at sourceURL.
func (q *queue) isShared(ctx context.Context, sourceURL string) (bool, error) {
	pages := sqs.NewListDeadLetterSourceQueuesPaginator(q.sqs, &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: aws.String(q.place.url)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		switch {
		case isMissing(err):
			return false, nil
		case err != nil:
			return false, err
		}
		for _, url := range page.QueueUrls {
			if url != sourceURL {
				return true, nil
			}
		}
	}
	return false, nil
}

// removeQueue deletes this queue alone, and notes what it held.
func (q *queue) removeQueue(ctx context.Context, e *Engine) error {
	s, err := q.counts(ctx)
	if err == nil {
		_, err = q.sqs.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: aws.String(q.place.url)})
	}
	switch {
	case isMissing(err):
		return nil
	case err != nil:
		return err
	}
	q.held = s.Ready + s.Delayed + s.InFlight
	if a, ok := parseARN(q.place.arn); ok {
		e.noteDeleted(a.name)
	}
	return nil
}

// noteDeleted remembers that the queue of that name in SQS was deleted now. For up to a
// minute SQS still finds it, and makes no other.
func (e *Engine) noteDeleted(called string) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, at := range e.deleted {
		if now.Sub(at) >= nameTime {
			delete(e.deleted, name)
		}
	}
	e.deleted[called] = now
}

// awaitName waits until SQS makes a queue of that name, if this engine has deleted one.
func (e *Engine) awaitName(ctx context.Context, called string) error {
	e.mu.Lock()
	at, known := e.deleted[called]
	e.mu.Unlock()
	wait := nameTime - time.Since(at)
	if !known || wait <= 0 {
		return nil
	}
	e.sayWait(called)
	return e.pauseForName(ctx, called, wait)
}

func (e *Engine) sayWait(called string) {
	e.log().Info("fanoutaws: a queue is not made yet: SQS makes none of a name within 60 seconds of the deletion of another", "queue", called)
}

func (e *Engine) pauseForName(ctx context.Context, called string, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errName(called, ctx.Err())
	}
}

// errName is the error for a queue that SQS doesn't make yet.
func errName(called string, err error) error {
	return fmt.Errorf("a queue called %s was deleted, and SQS makes no other one within 60 seconds of that: %w", called, err)
}

// disclaim gives the names of a queue that was deleted to whoever wants them.
func (e *Engine) disclaim(topic, queue string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ours, letters := claimants(topic, queue)
	for name, by := range e.used {
		if by == ours || by == letters {
			delete(e.used, name)
		}
	}
}
