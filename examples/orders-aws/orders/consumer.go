package orders

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// SQS is what a Consumer needs of the SDK's client.
type SQS interface {
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	DeleteMessage(context.Context, *sqs.DeleteMessageInput, ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error)
	ChangeMessageVisibility(context.Context, *sqs.ChangeMessageVisibilityInput, ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error)
}

// A Message is what a Handler gets.
type Message struct {
	ID       string
	Body     string
	Receives int // this one counts
}

// A Handler handles a message. Nil deletes it; an error has it come again, after
// Backoff. Its context ends when the message was lost to another consumer, and
// when the grace of a shutdown is over.
type Handler func(ctx context.Context, m Message) error

// A Consumer takes the messages of one queue and has them handled, several at
// once. How often a message is received before it is a dead letter is the
// queue's redrive policy.
type Consumer struct {
	Client   SQS
	QueueURL string
	Handle   Handler

	// Concurrency is how many messages are handled at once.
	Concurrency int
	// Visibility is for how long a message belongs to the consumer. It is
	// extended twice in that time while the handler runs, so that it is short
	// when the process dies and long enough for a slow handler.
	Visibility time.Duration
	// Grace is how long handlers may go on after Run's context has ended.
	Grace time.Duration
	Log   *slog.Logger
}

// errTaken ends the context of a handler whose message another consumer may have.
var errTaken = errors.New("the message was lost to another consumer")

// Run takes messages until ctx ends, and returns when the last one is settled.
func (c *Consumer) Run(ctx context.Context) {
	handling, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	places := make(chan struct{}, c.Concurrency)
	for failures := 0; ; {
		free := c.take(ctx, places)
		if free == 0 {
			break
		}
		messages, err := c.receive(ctx, free)
		for range int(free) - len(messages) {
			<-places
		}
		for _, m := range messages {
			running.Go(func() {
				defer func() { <-places }()
				c.process(handling, m)
			})
		}
		if err != nil && ctx.Err() == nil {
			// The SDK has tried it several times.
			c.Log.Error("receiving", "queue", c.QueueURL, "error", err)
			failures++
			pause(ctx, min(time.Second<<min(failures, 10), 30*time.Second))
			continue
		}
		failures = 0
	}
	timer := time.AfterFunc(c.Grace, stop)
	defer timer.Stop()
	running.Wait()
}

// take waits for a place to handle a message, and takes those that are free
// besides, up to ten. It returns 0 when ctx has ended.
func (c *Consumer) take(ctx context.Context, places chan<- struct{}) (free int32) {
	if ctx.Err() != nil {
		return 0
	}
	select {
	case places <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	for free = 1; free < 10; free++ {
		select {
		case places <- struct{}{}:
		default:
			return free
		}
	}
	return free
}

func (c *Consumer) receive(ctx context.Context, most int32) ([]types.Message, error) {
	out, err := c.Client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl:                    &c.QueueURL,
		MaxNumberOfMessages:         most,
		WaitTimeSeconds:             20,
		VisibilityTimeout:           seconds(c.Visibility),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameApproximateReceiveCount},
	})
	if err != nil {
		return nil, err
	}
	return out.Messages, nil
}

// process has a message handled and settles it.
func (c *Consumer) process(ctx context.Context, m types.Message) {
	receives, _ := strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
	message := Message{ID: *m.MessageId, Body: *m.Body, Receives: max(receives, 1)}
	log := c.Log.With("queue", c.QueueURL, "message", message.ID, "receives", message.Receives)

	handling, lose := context.WithCancelCause(ctx)
	var beating sync.WaitGroup
	beating.Go(func() { c.keep(handling, lose, m) })
	err := c.handle(handling, message)
	taken := context.Cause(handling) == errTaken
	lose(nil) // ends the heart
	beating.Wait()

	// What is done is settled, also when the handlers' time is up.
	settling, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	switch {
	case err == nil:
		_, err := c.Client.DeleteMessage(settling, &sqs.DeleteMessageInput{QueueUrl: &c.QueueURL, ReceiptHandle: m.ReceiptHandle})
		if err != nil {
			log.Error("deleting: the message will come again", "error", err)
		}
	case taken:
		log.Warn("another consumer has the message", "error", err)
	default:
		wait := Backoff(message.Receives)
		if errors.Is(err, ErrUnreadable) {
			wait = 0 // nobody can read it, so let the redrive policy have it soon
		}
		log.Warn("handling: the message will come again", "in", wait, "error", err)
		if err := c.show(settling, m, wait); err != nil {
			log.Error("the message will come again after its visibility timeout", "error", err)
		}
	}
}

// handle calls the handler. A panic is an error.
func (c *Consumer) handle(ctx context.Context, m Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return c.Handle(ctx, m)
}

// keep extends the visibility of a message, the heartbeat, until ctx ends. If
// the message is not the consumer's any more it tells the handler.
func (c *Consumer) keep(ctx context.Context, lose context.CancelCauseFunc, m types.Message) {
	until := time.Now().Add(c.Visibility)
	for pause(ctx, c.Visibility/2) {
		began := time.Now()
		err := c.show(ctx, m, c.Visibility)
		switch {
		case err == nil:
			until = began.Add(c.Visibility)
		case ctx.Err() != nil:
			return
		case gone(err), !time.Now().Before(until):
			lose(errTaken)
			return
		default:
			c.Log.Warn("extending", "queue", c.QueueURL, "message", *m.MessageId, "error", err)
		}
	}
}

// gone says whether an error says that a message is not the consumer's any more:
// it is visible, or it was received or deleted by another one.
func gone(err error) bool {
	var notInFlight *types.MessageNotInflight
	var invalid *types.ReceiptHandleIsInvalid
	var api interface{ ErrorCode() string }
	return errors.As(err, &notInFlight) || errors.As(err, &invalid) || errors.As(err, &api) && api.ErrorCode() == "InvalidParameterValue"
}

// show makes a message visible after a while.
func (c *Consumer) show(ctx context.Context, m types.Message, after time.Duration) error {
	_, err := c.Client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &c.QueueURL, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds(after)})
	return err
}

// Backoff is how long a message waits after it was received so often: 1, 2, 4
// and so on minutes, up to two hours.
func Backoff(receives int) time.Duration {
	return min(time.Minute<<min(receives-1, 10), 2*time.Hour)
}

func seconds(d time.Duration) int32 { return int32(d / time.Second) }

// pause waits, and says whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
