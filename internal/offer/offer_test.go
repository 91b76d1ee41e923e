package offer

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/routing"
	"github.com/gofanout/fanout/internal/settings"
)

func newQueue(t *testing.T, name string) *queue.Queue[int] {
	c, err := core.New("t", settings.Topic{})
	require.NoError(t, err)
	set := settings.DefaultQueue()
	return queue.NewQueue(c, &queue.Home[int]{Core: c}, name, &set.Limits)
}

// The model asks of each item whether its ID is known or stands before it, and of each row
// which of its items are left.
func TestOfEachIDTheFirstIsLeftUnlessItIsKnown(t *testing.T) {
	a, b := newQueue(t, "a"), newQueue(t, "b")
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		known := map[string]bool{}
		for k := range 3 {
			known[strconv.Itoa(k)] = r.IntN(3) == 0
		}
		o := &Offer[int]{}
		rows := map[*queue.Queue[int]][]int{}
		want, wantRows := []int{}, map[*queue.Queue[int]][]int{}
		seen := map[string]bool{}
		for k := range r.IntN(7) {
			it := message.Item[int]{Body: k}
			if id := r.IntN(5); id < 4 {
				it.Ext = &message.Extra{Dedup: strconv.Itoa(id)}
			}
			o.Items = append(o.Items, it)
			duplicate := it.Ext != nil && (known[it.Ext.Dedup] || seen[it.Ext.Dedup])
			if it.Ext != nil {
				seen[it.Ext.Dedup] = true
			}
			for _, q := range []*queue.Queue[int]{a, b} {
				if r.IntN(2) == 0 {
					rows[q] = append(rows[q], k)
					if !duplicate {
						wantRows[q] = append(wantRows[q], k)
					}
				}
			}
			if !duplicate {
				want = append(want, k)
			}
		}
		for _, q := range []*queue.Queue[int]{a, b} {
			if len(rows[q]) > 0 {
				o.Rows = append(o.Rows, routing.Row[int]{Q: q, Accepted: rows[q]})
			}
		}
		n, room := len(o.Items), o.Items
		o.Look()
		require.Equal(t, len(seen) > 0, o.Dedup)
		require.False(t, o.Delayed)
		o.DropDuplicates(func(id string) bool { return known[id] })
		got, gotRows := []int{}, map[*queue.Queue[int]][]int{}
		for _, it := range o.Items {
			got = append(got, it.Body)
		}
		for _, row := range o.Rows {
			for _, k := range row.Accepted {
				gotRows[row.Q] = append(gotRows[row.Q], o.Items[k].Body)
			}
		}
		require.Equal(t, want, got, "seed %d", seed)
		require.Equal(t, wantRows, gotRows, "seed %d", seed)
		require.EqualValues(t, n-len(got), o.Duplicates)
		for _, it := range room[len(got):] {
			require.Equal(t, message.Item[int]{}, it, "what is taken out is not kept")
		}
	}
}

func TestAnOfferSaysWhereItGoes(t *testing.T) {
	var open routing.List[int]
	plain, filtered, gone := newQueue(t, "plain"), newQueue(t, "filtered"), newQueue(t, "gone")
	open.Add(plain)
	gone.Closing = true
	targets := func(o *Offer[int]) (ts []string) {
		for q, n := range o.Targets(&open) {
			ts = append(ts, fmt.Sprint(q.Name(), " ", n))
		}
		return ts
	}
	o := &Offer[int]{Items: make([]message.Item[int], 3)}
	o.Rows = []routing.Row[int]{{Q: gone, Accepted: []int{0}}, {Q: filtered, Accepted: []int{0, 2}}}
	require.Equal(t, []string{"plain 3", "filtered 2"}, targets(o))
	require.Equal(t, 2, o.Queues())
	require.False(t, o.Redrives())
	require.Nil(t, o.Queue(0))
	require.Nil(t, o.Queue(1), "nobody has waited there")
	lines := MakeLines(filtered)
	require.Same(t, lines, MakeLines(filtered))
	require.Same(t, lines, o.Queue(1))
	require.Empty(t, targets(&Offer[int]{}))

	o = &Offer[int]{Redrive: plain}
	require.Equal(t, []string{"plain 1"}, targets(o))
	require.Equal(t, 1, o.Queues())
	require.True(t, o.Redrives())
	require.Same(t, o.Queue(0), plain.Wait)
	o.Redrive = gone
	require.Empty(t, targets(o))
	require.Nil(t, o.Queue(0))
}

func TestWhatATopicCanNotKeepIsRefused(t *testing.T) {
	plain, all := &Maker[int]{Topic: "t"}, &Maker[int]{Topic: "t", Ordering: true, Deduplication: true}
	for _, row := range []struct {
		m             message.Published[int]
		by, byPlain   string // errors of the two; empty: none
		is, isOfPlain error
	}{
		{m: message.Published[int]{Body: 1, ID: "a", Attributes: map[string]string{"a": "b"}, TimeToLive: time.Second, Delay: time.Second}},
		{m: message.Published[int]{Delay: -1}, by: "Delay is -1ns", is: message.ErrInvalidMessage},
		{m: message.Published[int]{TimeToLive: -1}, by: "TimeToLive is -1ns", is: message.ErrInvalidMessage},
		{m: message.Published[int]{Attributes: map[string]string{"": "b"}}, by: `without a name has the value "b"`, is: message.ErrInvalidMessage},
		{m: message.Published[int]{Attributes: map[string]string{"\xff": "b"}}, by: `attribute "\xff"`, is: message.ErrInvalidMessage},
		{m: message.Published[int]{Attributes: map[string]string{"a": "\xff"}}, by: `attribute "a" is "\xff"`, is: message.ErrInvalidMessage},
		{m: message.Published[int]{OrderingKey: "k"}, byPlain: `topic "t" was not made WithOrdering`, isOfPlain: message.ErrUnsupported},
		{m: message.Published[int]{DeduplicationID: "d"}, byPlain: `topic "t" was not made WithDeduplication`, isOfPlain: message.ErrUnsupported},
		{m: message.Published[int]{OrderingKey: "k", Delay: 1}, by: "with a key, delay the queue", is: message.ErrUnsupported, byPlain: "WithOrdering", isOfPlain: message.ErrUnsupported},
	} {
		for _, m := range []*Maker[int]{plain, all} {
			text, is := row.by, row.is
			if m == plain && row.byPlain != "" {
				text, is = row.byPlain, row.isOfPlain
			}
			o, err := m.OfAll([]message.Published[int]{{Body: 7}, row.m})
			if text != "" {
				require.ErrorIs(t, err, is)
				require.ErrorContains(t, err, "message 1: ")
				require.ErrorContains(t, err, text)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, message.Item[int]{Body: 7}, o.Items[0], "a plain message has nothing else")
			require.Equal(t, &message.Extra{ID: row.m.ID, Attributes: row.m.Attributes, Key: row.m.OrderingKey, Dedup: row.m.DeduplicationID, Delay: row.m.Delay, TTL: row.m.TimeToLive}, o.Items[1].Ext)
			o.Look()
			require.Equal(t, [2]bool{row.m.Delay > 0, row.m.DeduplicationID != ""}, [2]bool{o.Delayed, o.Dedup})
			if row.m.Attributes != nil {
				row.m.Attributes["a"] = "c"
				require.Equal(t, "b", o.Items[1].Ext.Attributes["a"], "the caller may change his map")
				row.m.Attributes["a"] = "b"
			}
		}
	}
}

func TestALargeOfferAndOneThatWaitedAreNotUsedAgain(t *testing.T) {
	var m Maker[int]
	large, waited := m.New(), m.Of(1)
	large.Items = make([]message.Item[int], 0, 1<<16)
	waited.MayWait = true
	m.Done(large)
	m.Done(waited)
	for range 10 {
		o := m.New()
		require.NotSame(t, large, o)
		require.NotSame(t, waited, o)
	}
	require.Len(t, waited.Items, 1, "others may look at it still")
}

// One that is done is used again, with its room, and empty.
func TestAnOfferIsUsedAgainEmpty(t *testing.T) {
	var m Maker[int]
	q := newQueue(t, "q")
	again := false
	for range 100 { // a pool may lose it
		o, err := m.OfAll([]message.Published[int]{{Body: 1, Delay: 1}, {Body: 2, Attributes: map[string]string{"a": "b"}}})
		require.NoError(t, err)
		o.Items = append(o.Items, make([]message.Item[int], int(offerBytes/o.ItemBytes())-len(o.Items))...)
		o.Items = slices.Clip(o.Items)
		o.Rows = append(o.Rows, routing.Row[int]{Q: q, Accepted: []int{0}})
		o.Delayed, o.Dedup, o.Duplicates = true, true, 3
		items := o.Items
		m.Done(o)
		next := m.New()
		if next != o || cap(items) > int(offerBytes/o.ItemBytes()) {
			continue
		}
		again = true
		require.Empty(t, next.Items)
		require.Empty(t, next.Rows)
		require.Equal(t, []any{false, false, uint64(0)}, []any{next.Delayed, next.Dedup, next.Duplicates})
		require.Equal(t, cap(items), cap(next.Items), "it keeps its room")
		for _, it := range items {
			require.Equal(t, message.Item[int]{}, it, "and nothing of what was in it")
		}
	}
	require.True(t, again)
}

// The lines of a queue know whether it drops, and whether it has filters.
func TestALineKnowsItsQueue(t *testing.T) {
	plain, drops := newQueue(t, "plain"), newQueue(t, "drops")
	require.Nil(t, plain.Wait)
	lines := MakeLines(plain)
	require.NotNil(t, lines)
	require.Equal(t, []bool{false, false}, []bool{lines.Filtered, lines.Drops})
	set := settings.DefaultQueue()
	set.Overflow = settings.DropNewest
	drops.Store.Set, drops.Filters = &set.Limits, filter.New([]filter.Filter[int]{{Body: func(int) bool { return true }}})
	lines = MakeLines(drops)
	require.Equal(t, []bool{true, true}, []bool{lines.Filtered, lines.Drops})
	o := &Offer[int]{Redrive: newQueue(t, "redriven")}
	require.NotNil(t, o.Queue(0), "it is made for who redrives")
}

// Whoever walks the targets may stop anywhere.
func TestAWalkOverTheTargetsStops(t *testing.T) {
	var open routing.List[int]
	a, b, c := newQueue(t, "a"), newQueue(t, "b"), newQueue(t, "c")
	open.Add(a)
	o := &Offer[int]{Items: make([]message.Item[int], 1), Answer: routing.Answer[int]{Rows: []routing.Row[int]{{Q: b, Accepted: []int{0}}, {Q: c, Accepted: []int{0}}}}}
	for n := range 3 {
		var seen []string
		for q := range o.Targets(&open) {
			if seen = append(seen, q.Name()); len(seen) > n {
				break
			}
		}
		require.Equal(t, []string{"a", "b", "c"}[:n+1], seen)
	}
}

func TestThereIsNoLockClockOrGoroutine(t *testing.T) {
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		require.NoError(t, err)
		for _, i := range file.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			require.False(t, slices.Contains([]string{"time", "context", "sync/atomic"}, path), "%s imports %s", f.Name(), path)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				require.NotContains(t, []string{"Mutex", "RWMutex", "Lock", "Now"}, s.Sel.Name, f.Name())
			}
			_, goes := n.(*ast.GoStmt)
			require.False(t, goes, f.Name())
			return true
		})
	}
}
