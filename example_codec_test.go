package fanout_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// Payment is an interface: its JSON doesn't say which payment it was.
type Payment interface{ Amount() int }

type Card struct{ Cents int }

func (c Card) Amount() int { return c.Cents }

type Voucher struct{ Value int }

func (v Voucher) Amount() int { return v.Value }

// paymentCodec puts a tag beside each value that says which type it has.
type paymentCodec struct{}

type taggedPayment struct {
	Type  string
	Value json.RawMessage
}

func (paymentCodec) ContentType() string { return "application/json" }

func (paymentCodec) Encode(body any) (data []byte, err error) {
	p := taggedPayment{Type: "voucher"}
	switch body.(type) {
	case Card:
		p.Type = "card"
	case Voucher:
	default:
		return nil, fmt.Errorf("%T is no payment that travels", body)
	}
	if p.Value, err = json.Marshal(body); err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

func (paymentCodec) Decode(data []byte, body any) error {
	var p taggedPayment
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	to := body.(*Payment)
	switch p.Type {
	case "card":
		return decodePayment[Card](p.Value, to)
	case "voucher":
		return decodePayment[Voucher](p.Value, to)
	}
	return fmt.Errorf("%q is no payment", p.Type)
}

func decodePayment[P Payment](data []byte, to *Payment) error {
	var p P
	err := json.Unmarshal(data, &p)
	*to = p
	return err
}

// A topic of an interface needs a codec that says which type a value has.
func ExampleWithCodec_interface() {
	ctx := context.Background()
	e := fakeengine.New(fakeengine.Config{}) // in a program: an engine of fanoutnats or fanoutaws
	_, err := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e))
	fmt.Println(err != nil)

	payments, _ := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e), fanout.WithCodec(paymentCodec{}))
	defer payments.Close()
	billing, _ := payments.OpenQueue(ctx, "billing")
	payments.Publish(ctx, Card{499})
	payments.Publish(ctx, Voucher{1000})
	for range 2 {
		d, _ := billing.Receive(ctx)
		fmt.Printf("%T %d\n", d.Body, d.Body.Amount())
		d.Ack(ctx)
	}
	// Output:
	// true
	// fanout_test.Card 499
	// fanout_test.Voucher 1000
}

// What can't be decoded is a dead letter; what there is of it are the bytes.
func ExampleDelivery_Encoded() {
	ctx := context.Background()
	e := fakeengine.New(fakeengine.Config{})
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // else what dies is logged
	old, _ := fanout.NewTopic[string]("orders", fanout.WithEngine(e), quiet)
	old.OpenQueue(ctx, "billing")
	old.Publish(ctx, "o-17")
	old.Close()

	orders, _ := fanout.NewTopic[int]("orders", fanout.WithEngine(e), quiet) // they have numbers now
	defer orders.Close()
	billing, _ := orders.OpenQueue(ctx, "billing")
	billing.TryReceive(ctx)
	letter, _ := billing.DeadLetters().Receive(ctx)
	fmt.Println(letter.Body, string(letter.Encoded()))
	// Output:
	// 0 "o-17"
}
