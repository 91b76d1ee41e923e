// What a message has when it is published: its ID, its time, and the queues whose filters accept it.

package publishing_test

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestRowMessageID(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		type stream struct {
			top     *fanout.Topic[int]
			q, twin *fanout.Queue[int]
			last    string
		}
		var streams []*stream
		seen := map[string]bool{}
		for range 20 { // topics that are made, and publish, at the same instants
			x := &stream{top: kit.NewTopic[int](t)}
			x.q = kit.OpenQueue(t, x.top, "q")
			x.twin = kit.OpenQueue(t, x.top, "twin", fanout.WithFilter(func(int) bool { return true }))
			streams = append(streams, x)
		}
		for n := range 50 {
			if n%10 == 0 {
				kit.Elapse(1234567 * time.Nanosecond)
			}
			for _, x := range streams {
				kit.PublishAll(t, x.top, fanout.Message[int]{Body: n}, fanout.Message[int]{Body: n})
				for range 2 {
					d := kit.Receive(t, x.q)
					id, err := uuid.Parse(d.ID())
					require.NoError(t, err)
					require.Equal(t, uuid.Version(7), id.Version())
					require.Equal(t, uuid.RFC4122, id.Variant())
					require.Equal(t, d.ID(), kit.Receive(t, x.twin).ID(), "the same in every queue")
					sec, ns := id.Time().UnixTime()
					require.Equal(t, time.Now().UnixMilli(), time.Unix(sec, ns).UnixMilli())
					require.Equal(t, time.Now(), d.PublishedAt(), "one clock reading for a call")
					require.Greater(t, d.ID(), x.last, "they sort in the order of publication")
					require.False(t, seen[d.ID()])
					x.last, seen[d.ID()] = d.ID(), true
					require.NoError(t, d.Ack(ctx))
				}
			}
		}
		for _, x := range streams {
			kit.PublishAll(t, x.top, fanout.Message[int]{ID: "mine"})
			require.Equal(t, "mine", kit.Receive(t, x.q).ID())
			x.top.Close()
		}
	})
}

func TestAnIDTellsTheTimeOfPublicationToAQuarterOfAMicrosecond(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		time.Sleep(5*time.Millisecond + 625*time.Microsecond)
		kit.Publish(t, top, 1)
		d := kit.Receive(t, q)
		id := strings.Split(d.ID(), "-")
		ms, err := strconv.ParseInt(id[0]+id[1], 16, 64)
		require.NoError(t, err)
		require.Equal(t, d.PublishedAt().UnixMilli(), ms)
		require.Equal(t, fmt.Sprintf("7%03x", 625*4096/1000), id[2])
		top.Close()
	})
}

func TestWithoutRandomnessThereIsNoTopic(t *testing.T) {
	uuid.SetRand(iotest.ErrReader(io.ErrNoProgress))
	defer uuid.SetRand(nil)
	_, err := fanout.NewTopic[int]("payments")
	require.ErrorIs(t, err, io.ErrNoProgress)
	require.ErrorContains(t, err, `"payments"`)
	_, err = fanout.NewDeadLetterQueue[int]("dead")
	require.ErrorIs(t, err, io.ErrNoProgress)
	require.ErrorContains(t, err, `"dead"`)
}

func TestRowFilter(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		asked := 0
		body := kit.OpenQueue(t, top, "body", fanout.WithFilter(func(b int) bool { asked++; return b > 1 }))
		message := kit.OpenQueue(t, top, "message", fanout.WithMessageFilter(func(m fanout.Message[int]) bool {
			return m.OrderingKey == "k" || m.ID == "i" || m.TimeToLive == time.Hour
		}))
		policy := kit.OpenQueue(t, top, "policy", fanout.WithFilterPolicy(`{"region": ["eu", {"prefix": "us-"}], "cents": [{"numeric": [">=", 100]}]}`))
		several := kit.OpenQueue(t, top, "several", fanout.WithFilter(func(b int) bool { return b%2 == 0 }),
			fanout.WithMessageFilter(func(m fanout.Message[int]) bool { return m.Body > 2 }), fanout.WithFilterPolicy(`{"region": [{"exists": true}]}`))
		none := kit.OpenQueue(t, top, "none", fanout.WithFilter(func(int) bool { return false }), fanout.WithCapacity(1), fanout.WithOverflow(fanout.Reject))
		region := func(r, cents string) map[string]string { return map[string]string{"region": r, "cents": cents} }
		kit.PublishAll(t, top,
			fanout.Message[int]{Body: 1, Attributes: region("eu", "99")},
			fanout.Message[int]{Body: 2, ID: "i", Attributes: region("us-east", "100")},
			fanout.Message[int]{Body: 3, OrderingKey: "k", Attributes: region("us", "1e3")},
			fanout.Message[int]{Body: 4, TimeToLive: time.Hour, Attributes: region("eu", "250.5")},
			fanout.Message[int]{Body: 6},
		)
		require.Equal(t, []int{2, 3, 4, 6}, kit.Bodies(t, body))
		require.Equal(t, []int{2, 3, 4}, kit.Bodies(t, message))
		require.Equal(t, []int{2, 4}, kit.Bodies(t, policy))
		require.Equal(t, []int{4}, kit.Bodies(t, several))
		require.Empty(t, kit.Bodies(t, none), "and it never refuses")
		require.Equal(t, 5, asked, "once for each message")
		require.Equal(t, 4, body.Stats().Unsettled())

		p := kit.OpenQueue(t, top, "panics", fanout.WithFilter(func(b int) bool { panic(kit.ErrBusy) }))
		err := top.Publish(ctx, 7)
		require.ErrorIs(t, err, kit.ErrBusy)
		require.ErrorContains(t, err, `"panics"`)
		require.Equal(t, []int{2, 3, 4, 6}, kit.Bodies(t, body), "it is in none")
		require.NoError(t, p.Close())
		kit.Publish(t, top, 7)
		kit.Check(t, top)
		_, err = top.OpenQueue(ctx, "bad", fanout.WithFilterPolicy(`{"region": [{"no-such": 1}]}`))
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.ErrorContains(t, err, "region")
		top.Close()
	})
}

func TestAFilterForAnotherTypeIsRefusedByTheNameOfItsOption(t *testing.T) {
	top := kit.NewTopic[int](t)
	for name, o := range map[string]fanout.QueueOption{
		"WithFilter was given a func(string) bool":                        fanout.WithFilter(func(string) bool { return true }),
		"WithMessageFilter was given a func(fanout.Message[string]) bool": fanout.WithMessageFilter(func(fanout.Message[string]) bool { return true }),
		"WithFilter was given a func(fanout.Message[int]) bool":           fanout.WithFilter(func(fanout.Message[int]) bool { return true }),
	} {
		_, err := top.OpenQueue(t.Context(), "q", o)
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, "but the topic carries int")
	}
	top.Close()
}

func TestCombinationOfADelayWithOrderingIsRefusedAsAWhole(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering(), fanout.WithDeduplication(time.Minute, 10))
		q := kit.OpenQueue(t, top, "q")
		for range 2 {
			err := top.PublishMessages(ctx, kit.WithID(1, "x"), fanout.Message[int]{Body: 2, OrderingKey: "a", Delay: time.Second})
			require.ErrorIs(t, err, fanout.ErrUnsupported)
			require.ErrorContains(t, err, "message 1")
		}
		require.Zero(t, q.Stats().Published)
		require.Zero(t, top.Stats().Remembered)
		kit.PublishAll(t, top, kit.WithID(1, "x"))
		require.Equal(t, []int{1}, kit.Bodies(t, q))
		kit.Check(t, top)
		top.Close()
	})
}

func TestABatchOfPlainMessagesIsHookedAndRetainedAsAnyOther(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var ids []string
		top := kit.NewTopic[int](t, fanout.WithRetention(2), fanout.WithHooks(fanout.Hooks{Published: func(e fanout.Event) { ids = append(ids, e.MessageID) }}))
		q := kit.OpenQueue(t, top, "q")
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 3}))
		require.Len(t, ids, 3)
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		for k, d := range ds {
			require.Equal(t, ids[k], d.ID())
		}
		require.Equal(t, []int{2, 3}, kit.Bodies(t, kit.OpenQueue(t, top, "late", fanout.WithReplay(5))))
		top.Close()
	})
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithRetention(2))
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 3}))
		require.Equal(t, []int{2, 3}, kit.Bodies(t, kit.OpenQueue(t, top, "late", fanout.WithReplay(5))))
		top.Close()
	})
}
