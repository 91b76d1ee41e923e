// Package orders is the order processing of a shop on Amazon SNS and SQS.
//
//	                       topic orders
//	Desk.Place ── order.placed ──▶ queue billing  ── Billing ──┐
//	                 order.paid ◀──────────────────────────────┘
//	                     │
//	                     ├──▶ queue shipping ── Shipping
//	                     └──▶ queue receipts ── Receipts, a Lambda function
//
// The queues get the messages raw, with a filter policy on the attribute event.
// Each has a dead-letter queue. SNS and SQS deliver at least once: everything
// that is done for an order has the order's ID as its key, so that doing it twice
// does it once.
package orders

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"
)

// The events of an order, in the message attribute event.
const (
	Placed = "order.placed"
	Paid   = "order.paid"
)

// An Order is the body of each message.
type Order struct {
	ID      string `json:"id"`
	Cents   int64  `json:"cents"`
	Address string `json:"address"`
	Email   string `json:"email"`
}

// ErrUnreadable is returned for a message that no retry will make readable.
var ErrUnreadable = errors.New("unreadable message")

// ReadOrder reads the body of a message.
func ReadOrder(body string) (Order, error) {
	var o Order
	if err := json.Unmarshal([]byte(body), &o); err != nil {
		return Order{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if o.ID == "" || o.Cents <= 0 {
		return Order{}, fmt.Errorf("%w: an order without an ID or an amount", ErrUnreadable)
	}
	return o, nil
}

// SNS is what a Desk needs of the SDK's client.
type SNS interface {
	Publish(context.Context, *sns.PublishInput, ...func(*sns.Options)) (*sns.PublishOutput, error)
}

// A Desk publishes what happens to orders.
type Desk struct {
	Client   SNS
	TopicARN string
}

// Place publishes a new order. When it returns nil the order is in SNS's hands;
// after an error it may be there, too, and can be placed again.
func (d *Desk) Place(ctx context.Context, o Order) error { return d.publish(ctx, Placed, o) }

func (d *Desk) publish(ctx context.Context, event string, o Order) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = d.Client.Publish(ctx, &sns.PublishInput{
		TopicArn: &d.TopicARN,
		Message:  aws.String(string(body)),
		MessageAttributes: map[string]types.MessageAttributeValue{
			"event": {DataType: aws.String("String"), StringValue: &event},
		},
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", event, o.ID, err)
	}
	return nil
}
