package fanoutaws

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

// LambdaHandler makes a function for an SQS event source of what subscribes
// elsewhere. wire makes the topic on the engine it is given and subscribes the
// handler, as a container does with the engine that [New] makes:
//
//	func wire(ctx context.Context, e engine.Engine) (*fanout.Topic[PaymentSucceeded], error) {
//		payments, err := fanout.NewTopic[PaymentSucceeded]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)))
//		if err == nil {
//			_, err = payments.Subscribe(ctx, "inventory", reserveStock, fanout.WithConcurrency(10))
//		}
//		return payments, err
//	}
//
//	func main() { lambda.Start(fanoutaws.LambdaHandler(sqs.NewFromConfig(cfg), wire)) }
//
// wire is called for each event, since nothing may outlive an invocation: Lambda
// freezes the process between two. Its context ends with the invocation. The
// topic only receives; publish to one that is made with New, once, outside.
//
// The handler runs as ever, with interceptors, hooks, backoffs and attempts.
// What it acknowledges is left to Lambda to delete. What fails becomes
// visible after its backoff, and is reported as a failure. What is dead is sent
// to the dead-letter queue that the event source's redrive policy names. A
// message whose handler has not returned shortly before the function's time is
// up is a failure too; its handler's context is cancelled, and what it does after
// that is lost.
//
// Of a FIFO queue the messages are handled one after the other. The first failure
// ends the event: those behind it are failures too, and SQS counts a
// delivery of each though nobody tried it. Give such a queue more attempts.
//
// The event source mapping must have ReportBatchItemFailures. The queue's
// visibility timeout must be no shorter than the function's time, and AWS
// advises six times as long. The role needs sqs:GetQueueUrl, GetQueueAttributes,
// ReceiveMessage, DeleteMessage and ChangeMessageVisibility, and SendMessage on
// the dead-letter queue.
//
// The function may be called concurrently. It returns an error, which fails the
// whole event, if wire does or if the queue can't be found.
func LambdaHandler[T any](queues *sqs.Client, wire func(context.Context, engine.Engine) (*fanout.Topic[T], error)) func(context.Context, SQSEvent) (SQSResponse, error) {
	l := &lambda[T]{wire: wire}
	l.from.e = &Engine{sqs: queues, settings: defaults()}
	return l.invoke
}

// A lambda is what outlives an invocation.
type lambda[T any] struct {
	wire func(context.Context, engine.Engine) (*fanout.Topic[T], error)
	from source
}

func (l *lambda[T]) invoke(ctx context.Context, event SQSEvent) (SQSResponse, error) {
	if len(event.Records) == 0 {
		return SQSResponse{BatchItemFailures: []SQSItemFailure{}}, nil
	}
	ctx, cancel := closeToEnd(ctx)
	defer cancel()
	from := event.Records[0].EventSourceARN
	q, err := l.from.of(ctx, from)
	if err != nil {
		return SQSResponse{}, fmt.Errorf("fanoutaws: event source %s: %w", from, err)
	}
	i := newInvocation(q, event.Records)
	topic, err := l.wire(ctx, i)
	if err == nil && topic == nil {
		err = errors.New("it made no topic")
	}
	if err != nil {
		if topic != nil {
			_ = topic.Close()
		}
		return SQSResponse{}, fmt.Errorf("fanoutaws: event source %s: wiring: %w", from, err)
	}
	select {
	case <-i.finished:
	case <-ctx.Done():
	}
	// What is settled from here on is not in the answer, so it must not be done.
	answer := i.end()
	_ = topic.Close()
	select {
	case <-topic.Done():
	case <-ctx.Done():
	}
	return answer, nil
}
