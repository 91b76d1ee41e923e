package shop

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

func TestIndexGivesEachOrderASlot(t *testing.T) {
	for name, x := range map[string]Index{
		"consecutive": IndexOf([]int{12, 10, 11}),
		"a range":     IndexRange(10, 3),
		"with gaps":   IndexOf([]int{math.MaxInt32, 10, 500}),
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, 3, x.Len())
			for slot := range 3 {
				back, ok := x.Slot(x.OrderID(slot))
				require.True(t, ok)
				require.Equal(t, slot, back)
			}
			for _, id := range []int{-1, 9, 13, 501} {
				_, ok := x.Slot(id)
				require.False(t, ok, id)
			}
		})
	}
	require.Zero(t, IndexOf(nil).Len())
}

func TestALedgerKnowsWhoWasFirst(t *testing.T) {
	l := NewLedger(IndexRange(10, 2))
	require.True(t, l.Enter(10))
	require.False(t, l.Enter(10))
	require.False(t, l.Enter(99))
	require.True(t, l.Has(10))
	require.False(t, l.Has(11))
	require.False(t, l.Has(99))
	require.Equal(t, 1, l.Total())
	require.Equal(t, 1, l.Again())
}

func ledgerOf(x Index, ids ...int) *Ledger {
	l := NewLedger(x)
	for _, id := range ids {
		l.Enter(id)
	}
	return l
}

func dead(ids ...int) (ds []fanout.Delivery[PaymentSucceeded]) {
	for _, id := range ids {
		ds = append(ds, fanout.Delivery[PaymentSucceeded]{Body: PaymentSucceeded{OrderID: id}})
	}
	return ds
}

func left(ids ...int) (ms []fanout.Message[PaymentSucceeded]) {
	for _, id := range ids {
		ms = append(ms, fanout.Message[PaymentSucceeded]{Body: PaymentSucceeded{OrderID: id}})
	}
	return ms
}

func TestBooksBalanceIfEachOrderIsInOnePlace(t *testing.T) {
	x := IndexRange(1, 6)
	stats := fanout.Stats{Queue: "inventory", Published: 5, Acked: 2, DeadLettered: 1, Dead: 1, Left: 2}
	a := Audit(ledgerOf(x, 1, 2, 3, 4, 5), ledgerOf(x, 1, 2, 4), QueueSide{Stats: stats, Dead: dead(3), Left: left(4, 5)})
	require.True(t, a.Balanced(), "%v", a.Wrong)
	require.Equal(t, Account{Service: "inventory", Published: 5, Settled: 2, Dead: 1, Left: 2, Early: 1}, *a)
}

func TestBooksNameTheOrdersThatDoNotFit(t *testing.T) {
	x := IndexRange(1, 3)
	fine := fanout.Stats{Published: 3, Acked: 3}
	for name, tt := range map[string]struct {
		published, work *Ledger
		q               QueueSide
		want            []string
	}{
		"lost": {
			ledgerOf(x, 1, 2, 3), ledgerOf(x, 1, 3),
			QueueSide{Stats: fine},
			[]string{"order 2 is lost: not settled, not dead, not left", "settled: the books say 2, the queue says 3"},
		},
		"dead and left": {
			ledgerOf(x, 1, 2, 3), ledgerOf(x, 1, 3),
			QueueSide{Stats: fanout.Stats{Published: 3, Acked: 2, DeadLettered: 1, Dead: 1, Left: 1, Redriven: 1}, Dead: dead(2), Left: left(2)},
			[]string{"order 2 is in several places: 1 times dead, 1 times left"},
		},
		"out of nowhere": {
			ledgerOf(x, 1, 2), ledgerOf(x, 1, 2, 3),
			QueueSide{Stats: fanout.Stats{Published: 2, Acked: 2}},
			[]string{"order 3 was not published, and yet it arrived"},
		},
		"unknown": {
			ledgerOf(x, 1, 2, 3), ledgerOf(x, 1, 2, 3, 77),
			QueueSide{Stats: fine, Dead: dead(78)},
			[]string{"order 77 is in nobody's index", "order 78 is in a queue and in nobody's index"},
		},
		"a queue that counts otherwise": {
			ledgerOf(x, 1, 2, 3), ledgerOf(x, 1, 2, 3),
			QueueSide{Stats: fanout.Stats{Published: 4, Acked: 3, Ready: 1}},
			[]string{"published: the books say 3, the queue says 4", "left: the books say 0, the queue says 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := Audit(tt.published, tt.work, tt.q)
			var got []string
			for _, w := range a.Wrong {
				got = append(got, w.String())
			}
			require.Equal(t, tt.want, got)
			require.False(t, a.Balanced())
		})
	}
}

func smallShop(t *testing.T) (*Workload, *Inventory) {
	t.Helper()
	load, err := Load(files(goodProducts, goodOrders, goodDetails))
	require.NoError(t, err)
	return load, NewInventory(load, NewWorld(1, 0, Instant))
}

func TestReserveTakesAllLinesOrNone(t *testing.T) {
	load, s := smallShop(t)
	p := load.Payment(0)
	p.Lines = []Line{{1, 30}, {2, 100}, {1, 10}} // 40 of the 39 in two lines, and enough of the other
	err := s.Reserve(p)
	var short *ShortageError
	require.ErrorAs(t, err, &short)
	require.EqualError(t, err, "order 10248: Chai: 40 wanted, 39 in stock")
	require.False(t, s.Ledger().Has(p.OrderID))

	a := s.AuditStock(load.All())
	require.Equal(t, StockAccount{Products: 2, Opening: 140, OnShelf: 140}, *a)
}

func TestReserveTakesAnOrderOnce(t *testing.T) {
	load, s := smallShop(t)
	for range 3 {
		require.NoError(t, s.Reserve(load.Payment(0)))
	}
	require.Equal(t, 2, s.Ledger().Again())
	require.Equal(t, StockAccount{Products: 2, Opening: 140, Reserved: 22, OnShelf: 118}, *s.AuditStock(load.All()))
}

func TestRestockIsJustEnoughForTheOrders(t *testing.T) {
	load, s := smallShop(t)
	all := slices.Collect(load.All())
	all[0].Lines, all[1].Lines = []Line{{1, 100}}, []Line{{1, 50}, {2, 1}}
	require.Error(t, s.Reserve(all[0]))
	products, units := s.Restock(slices.Values(all))
	require.Equal(t, 1, products)
	require.Equal(t, 150-39, units)
	require.NoError(t, s.Reserve(all[0]))
	require.NoError(t, s.Reserve(all[1]))
	products, _ = s.Restock(slices.Values(all))
	require.Zero(t, products)
	a := s.AuditStock(slices.Values(all))
	require.True(t, a.Balanced())
	require.Equal(t, StockAccount{Products: 2, Opening: 140, Restocked: 111, Reserved: 151, OnShelf: 100}, *a)
}

func TestStockThatIsGoneWithoutAnOrderIsNamed(t *testing.T) {
	load, s := smallShop(t)
	s.products[1].stock--
	a := s.AuditStock(load.All())
	require.Equal(t, []string{"Chai: opening 39 + restocked 0 is not reserved 0 + on shelf 38"}, a.Wrong)
}

func TestAFloodIsTheSameEachTime(t *testing.T) {
	a, b := Flood(100, 7), Flood(100, 7)
	require.Equal(t, slices.Collect(a.All()), slices.Collect(b.All()))
	require.Equal(t, 100, a.Len())
	s := NewInventory(a, NewWorld(7, 0, Instant))
	for p := range a.All() {
		require.NoError(t, s.Reserve(p))
	}
}

func TestPermanentIsWhatAHandlerMakesOfAShortage(t *testing.T) {
	load, s := smallShop(t)
	p := load.Payment(0)
	p.Lines = []Line{{1, 40}}
	err := s.Handle(t.Context(), fanout.Delivery[PaymentSucceeded]{Body: p})
	var short *ShortageError
	require.True(t, errors.As(err, &short))
	require.NotEqual(t, error(short), err, "wrapped by Permanent")
}
