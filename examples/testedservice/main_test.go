package main

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

// A ledger is a bank and a carrier that remember what they were asked to do.
type ledger struct {
	mu      sync.Mutex // guards the fields below
	charged map[string]int
	parcels map[string]string
	decline map[string]bool
}

func (l *ledger) Charge(_ context.Context, reference string, cents int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.decline[reference] {
		return ErrDeclined
	}
	l.charged[reference] = cents
	return nil
}

func (l *ledger) Book(_ context.Context, reference string, _ []string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parcels[reference] = "parcel-" + reference
	return l.parcels[reference], nil
}

// A world is the service with its topics, its bank and its carrier.
type world struct {
	*testing.T
	*fanouttest.Kit
	orders  *fanouttest.Topic[Order]
	paid    *fanouttest.Topic[Paid]
	shipped *fanouttest.Topic[Shipped]
	*ledger
}

// inWorld runs test in virtual time. What it leaves undone fails it.
func inWorld(t *testing.T, test func(w world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		w := world{
			T: t, Kit: k,
			orders:  fanouttest.NewTopic[Order](k, "orders"),
			paid:    fanouttest.NewTopic[Paid](k, "paid"),
			shipped: fanouttest.NewTopic[Shipped](k, "shipped"),
			ledger:  &ledger{charged: map[string]int{}, parcels: map[string]string{}, decline: map[string]bool{}},
		}
		require.NoError(t, Start(t.Context(), Service{w.orders.Topic, w.paid.Topic, w.shipped.Topic, w.ledger, w.ledger}))
		test(w)
	})
}

func (w world) order(orders ...Order) {
	for _, o := range orders {
		require.NoError(w, w.orders.Publish(w.Context(), o))
	}
}

var (
	tea     = Order{ID: "o-17", Cents: 499, Items: []string{"tea"}}
	cups    = Order{ID: "o-18", Cents: 1299, Items: []string{"cup", "cup"}}
	errDown = errors.New("no connection")
)

func TestAnOrderIsPaidAndShipped(t *testing.T) {
	inWorld(t, func(w world) {
		w.order(tea, cups)
		w.Settle(w.Context())
		w.paid.Published().WantInAnyOrder(Paid{"o-17", 499, tea.Items}, Paid{"o-18", 1299, cups.Items})
		w.shipped.Published().WantInAnyOrder(Shipped{"o-17", "parcel-o-17"}, Shipped{"o-18", "parcel-o-18"})
		require.Equal(w, map[string]int{"o-17": 499, "o-18": 1299}, maps.Clone(w.charged))
	})
}

func TestABankThatIsDownForAnHourDelaysTheOrderAndNoOther(t *testing.T) {
	inWorld(t, func(w world) {
		begin := time.Now()
		w.orders.Handling("billing").Message("tea").Do(func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
			if time.Since(begin) < time.Hour {
				return errDown
			}
			return next(ctx)
		})
		require.NoError(w, w.orders.PublishMessages(w.Context(), fanout.Message[Order]{ID: "tea", Body: tea}))
		w.order(cups)
		w.Advance(0)
		w.shipped.Published().Want(Shipped{"o-18", "parcel-o-18"})
		w.Settle(w.Context())
		w.shipped.Published().Want(Shipped{"o-18", "parcel-o-18"}, Shipped{"o-17", "parcel-o-17"})
		w.orders.Retried("billing").WantCount(18)
		require.Equal(w, time.Hour+3*time.Minute+39*time.Second+100*time.Millisecond, time.Since(begin))
	})
}

func TestADeclinedCardIsFinal(t *testing.T) {
	inWorld(t, func(w world) {
		w.decline["o-18"] = true
		w.order(tea, cups)
		w.Settle(w.Context())
		w.orders.DeadLettered("billing").Want(cups)
		w.orders.Retried("billing").Want()
		w.shipped.Published().Want(Shipped{"o-17", "parcel-o-17"})
	})
}

func TestWhatIsPaidIsNotForgottenIfTellingFails(t *testing.T) {
	inWorld(t, func(w world) {
		w.paid.Publishing().First(2).Fail(fanout.ErrQueueFull)
		w.order(tea)
		w.Settle(w.Context())
		w.orders.Retried("billing").Want(tea, tea)
		w.shipped.Published().WantCount(1)
	})
}

func TestAnOrderThatComesTwiceIsOneParcel(t *testing.T) {
	inWorld(t, func(w world) {
		w.orders.Handling("billing").Nth(1).Duplicate()
		w.paid.Handling("shipping").Nth(2).Duplicate()
		w.order(tea)
		w.Settle(w.Context())
		w.paid.Published().WantCount(2)
		w.shipped.Published().WantCount(3)
		require.Len(w, w.charged, 1)
		require.Len(w, w.parcels, 1)
	})
}

func TestAHandlerThatHangsPanicsOrExitsIsReplaced(t *testing.T) {
	inWorld(t, func(w world) {
		begin := time.Now()
		w.paid.Handling("shipping").Nth(1).TimeOut()
		w.paid.Handling("shipping").Nth(2).Panic("nil map")
		w.paid.Handling("shipping").Nth(3).Exit()
		w.order(tea)
		require.Equal(w, time.Minute, w.Next()) // the visibility timeout
		w.Settle(w.Context())
		w.shipped.Published().Want(Shipped{"o-17", "parcel-o-17"})
		require.Equal(w, time.Minute+200*time.Millisecond+400*time.Millisecond, time.Since(begin))
	})
}

func TestAParcelThatCannotBeBookedIsADeadLetterAndCanBeRedriven(t *testing.T) {
	inWorld(t, func(w world) {
		w.paid.Handling("shipping").First(5).Fail(errDown)
		w.order(tea)
		w.Settle(w.Context())
		w.paid.DeadLettered("shipping").Want(Paid{"o-17", 499, tea.Items})
		moved, err := w.paid.Queue("shipping").Redrive(w.Context())
		require.NoError(w, err)
		require.Equal(w, 1, moved)
		w.Settle(w.Context())
		w.shipped.Published().Want(Shipped{"o-17", "parcel-o-17"})
	})
}

func TestTheProgramShowsARetryAndADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), &out))
		require.Equal(t, `o-17: the bank is down
o-17: charged
o-17: shipped as parcel-o-17
o-18: declined
dead: 1
`, out.String())
	})
}
