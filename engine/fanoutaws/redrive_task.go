package fanoutaws

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// A RedriveTask is SQS's own move of dead letters.
type RedriveTask struct {
	// Handle is what CancelMessageMoveTask takes.
	Handle string
	// From and To are the ARNs of the dead-letter queue and of the queue.
	From, To string
}

// StartRedrive has SQS itself move a queue's dead letters back, by
// StartMessageMoveTask, for more letters than a process wants to carry. It
// returns as soon as SQS has begun; SQS allows one task a queue. Up to perSecond
// letters move in a second, at most 500; 0 leaves it to SQS.
//
// Letters moved so have their attempts anew but lose their histories, which
// fanout's own Redrive keeps. ordered says that the topic has ordering or
// deduplication.
func (e *Engine) StartRedrive(ctx context.Context, topic, queue string, ordered bool, perSecond int) (RedriveTask, error) {
	if perSecond < 0 || perSecond > 500 {
		return RedriveTask{}, fmt.Errorf("fanoutaws: StartRedrive: %d letters a second: SQS takes 1 to 500, or 0", perSecond)
	}
	source, dead, err := e.findQueues(ctx, topic, queue, ordered)
	if err != nil {
		return RedriveTask{}, fmt.Errorf("fanoutaws: queue %q of topic %q: %w", queue, topic, err)
	}
	in := &sqs.StartMessageMoveTaskInput{
		SourceArn: aws.String(dead.arn),
		// Without it SQS moves a message to where it came from, and it knows no
		// such place for those that were sent here.
		DestinationArn: aws.String(source.arn),
	}
	if perSecond > 0 {
		in.MaxNumberOfMessagesPerSecond = aws.Int32(int32(perSecond))
	}
	out, err := e.sqs.StartMessageMoveTask(ctx, in)
	if err != nil {
		return RedriveTask{}, fmt.Errorf("fanoutaws: queue %q of topic %q: %w", queue, topic, err)
	}
	return RedriveTask{Handle: aws.ToString(out.TaskHandle), From: dead.arn, To: source.arn}, nil
}
