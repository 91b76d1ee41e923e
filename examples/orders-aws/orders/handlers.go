package orders

import (
	"context"
	"fmt"

	"github.com/aws/aws-lambda-go/events"
)

// A Bank charges customers. Charging twice with the same key charges once.
type Bank interface {
	Charge(ctx context.Context, key string, cents int64) error
}

// Billing charges orders that were placed, and publishes that they are paid.
type Billing struct {
	Bank Bank
	Desk *Desk
}

// Handle is the Handler of the queue billing.
func (b *Billing) Handle(ctx context.Context, m Message) error {
	o, err := ReadOrder(m.Body)
	if err != nil {
		return err
	}
	if err := b.Bank.Charge(ctx, o.ID, o.Cents); err != nil {
		return fmt.Errorf("charging %s: %w", o.ID, err)
	}
	return b.Desk.publish(ctx, Paid, o)
}

// A Carrier takes parcels. A second parcel with the same key is the first one.
type Carrier interface {
	Ship(ctx context.Context, key, address string) error
}

// Shipping ships orders that were paid.
type Shipping struct{ Carrier Carrier }

// Handle is the Handler of the queue shipping.
func (s *Shipping) Handle(ctx context.Context, m Message) error {
	o, err := ReadOrder(m.Body)
	if err != nil {
		return err
	}
	if err := s.Carrier.Ship(ctx, o.ID, o.Address); err != nil {
		return fmt.Errorf("shipping %s: %w", o.ID, err)
	}
	return nil
}

// A Mailer sends e-mails. A second one with the same key is not sent.
type Mailer interface {
	Send(ctx context.Context, key, to, text string) error
}

// Receipts sends receipts for orders that were paid.
type Receipts struct{ Mailer Mailer }

// Handle is a Lambda function for the queue receipts. Its event source mapping
// needs ReportBatchItemFailures: only the messages that it names come again.
func (r *Receipts) Handle(ctx context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
	var out events.SQSEventResponse
	for _, m := range e.Records {
		if err := r.send(ctx, m); err != nil {
			out.BatchItemFailures = append(out.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	return out, nil
}

func (r *Receipts) send(ctx context.Context, m events.SQSMessage) error {
	o, err := ReadOrder(m.Body)
	if err != nil {
		return err
	}
	return r.Mailer.Send(ctx, o.ID, o.Email, fmt.Sprintf("We have charged %d.%02d for order %s.", o.Cents/100, o.Cents%100, o.ID))
}
