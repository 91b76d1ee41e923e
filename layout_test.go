// The types of this package and those below are laid out alike, and what exists twice, for its documentation here and for those below, agrees.

package fanout_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/topic"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

func TestCausesAndReasonsAreThoseBelow(t *testing.T) {
	for ours, theirs := range map[fanout.Cause]message.Cause{
		fanout.Acked: message.Acked, fanout.Failed: message.Failed, fanout.Panicked: message.Panicked, fanout.Exited: message.Exited, fanout.TimedOut: message.TimedOut,
		fanout.Nacked: message.Nacked, fanout.PermanentlyFailed: message.PermanentlyFailed, fanout.Expired: message.Expired, fanout.Snoozed: message.Snoozed, fanout.Released: message.Released,
	} {
		require.Equal(t, uint8(theirs), uint8(ours))
	}
	for ours, theirs := range map[fanout.DropReason]notice.Reason{
		fanout.DroppedOldest: notice.DroppedOldest, fanout.DroppedNewest: notice.DroppedNewest, fanout.DroppedByClose: notice.DroppedByClose,
		fanout.DroppedByPurge: notice.DroppedByPurge, fanout.DroppedByDelete: notice.DroppedByDelete,
	} {
		require.Equal(t, uint8(theirs), uint8(ours))
	}
	require.Equal(t, uint8(notice.LastReason), uint8(fanout.LastReason))
}

func TestAnEventIsToldWhole(t *testing.T) {
	e := notice.Event{
		Topic: "t", Queue: "q", Seq: 1, Time: time.Unix(2, 0), MessageID: "id", PublishedAt: time.Unix(3, 0), Attempt: 4, Cause: message.Nacked,
		Err: errors.New("5"), Elapsed: 6, Wait: 7, Reason: notice.DroppedByPurge, Subscriber: "file:8", Stack: "9", Stats: &view.Stats{Ready: 10}, Count: 11,
	}
	ours, theirs := reflect.ValueOf(fanout.EventOf(&e)), reflect.ValueOf(e)
	for k := range ours.NumField() {
		field := ours.Type().Field(k)
		require.False(t, ours.Field(k).IsZero(), "%s is not told", field.Name)
		their := theirs.FieldByName(field.Name)
		if their.Kind() == reflect.Interface && field.Name == "Stats" {
			their = their.Elem()
		}
		if field.Name == "Stats" {
			that := fanout.Stats(*their.Interface().(*view.Stats))
			their = reflect.ValueOf(&that)
		}
		require.Equal(t, their.Convert(field.Type).Interface(), ours.Field(k).Interface(), field.Name)
	}
	require.Nil(t, fanout.EventOf(&notice.Event{}).Stats)
}

// Each hook hears of its own kind.
func TestHooksAreThoseOfTheirKinds(t *testing.T) {
	kinds := map[string]notice.Kind{
		"Published": notice.Published, "Delivered": notice.Delivered, "Settled": notice.Settled, "DeadLettered": notice.DeadLettered, "Parked": notice.Parked,
		"Redriven": notice.Redriven, "Dropped": notice.Dropped, "Stuck": notice.Stuck, "StuckStack": notice.StuckStack, "Stalled": notice.Stalled,
		"EngineFailed": notice.EngineFailed, "Late": notice.Late,
	}
	fields := reflect.TypeFor[fanout.Hooks]()
	require.Equal(t, fields.NumField(), len(kinds))
	for name, kind := range kinds {
		var h fanout.Hooks
		told := 0
		reflect.ValueOf(&h).Elem().FieldByName(name).Set(reflect.ValueOf(func(fanout.Event) { told++ }))
		var l notice.Listeners
		fanout.Listen(&h, &l)
		for k := range notice.Kinds {
			is := k == kind || k == notice.LateCancelled && kind == notice.Late
			require.Equal(t, is, l.Hooked(k), "%s, kind %d", name, k)
		}
		l.Call(kind, new(notice.Event))
		require.Equal(t, 1, told, name)
	}
}

// Pointers and slices of one are taken for those of the other.
func TestTypesAreLaidOutAsThoseBelow(t *testing.T) {
	type odd struct {
		_ byte
		_ [3]uint16
		_ string
	}
	for _, row := range []struct{ ours, theirs reflect.Type }{
		{reflect.TypeFor[fanout.Topic[int]](), reflect.TypeFor[topic.Topic[int]]()},
		{reflect.TypeFor[fanout.Queue[int]](), reflect.TypeFor[queue.Queue[int]]()},
		{reflect.TypeFor[fanout.Subscriber[int]](), reflect.TypeFor[workers.Subscriber[int]]()},
	} {
		require.Equal(t, 1, row.ours.NumField())
		require.Equal(t, row.theirs, row.ours.Field(0).Type)
	}
	for _, row := range []struct{ ours, theirs reflect.Type }{
		{reflect.TypeFor[fanout.Delivery[byte]](), reflect.TypeFor[delivery.Delivery[byte]]()},
		{reflect.TypeFor[fanout.Delivery[odd]](), reflect.TypeFor[delivery.Delivery[odd]]()},
		{reflect.TypeFor[fanout.Delivery[struct{}]](), reflect.TypeFor[delivery.Delivery[struct{}]]()},
		{reflect.TypeFor[fanout.Message[byte]](), reflect.TypeFor[message.Published[byte]]()},
		{reflect.TypeFor[fanout.Message[odd]](), reflect.TypeFor[message.Published[odd]]()},
		{reflect.TypeFor[fanout.Left](), reflect.TypeFor[ending.Left]()},
		{reflect.TypeFor[fanout.Attempt](), reflect.TypeFor[message.Attempt]()},
		{reflect.TypeFor[fanout.MessageView](), reflect.TypeFor[view.MessageView]()},
		{reflect.TypeFor[fanout.Depth](), reflect.TypeFor[view.Depth]()},
		{reflect.TypeFor[fanout.Info](), reflect.TypeFor[intercept.Info]()},
	} {
		require.Equal(t, row.theirs.Size(), row.ours.Size())
		require.Equal(t, row.theirs.NumField(), row.ours.NumField())
		for k := range row.ours.NumField() {
			a, b := row.ours.Field(k), row.theirs.Field(k)
			switch b.Type { // of these there are two, too
			case reflect.TypeFor[message.Cause](), reflect.TypeFor[[]message.Attempt](), reflect.TypeFor[intercept.Operation]():
				require.Equal(t, b.Type.Kind(), a.Type.Kind(), "%v, %s", row.ours, a.Name)
			default:
				require.Equal(t, b.Type, a.Type, "%v, %s", row.ours, a.Name)
			}
			require.Equal(t, strings.ToLower(b.Name), strings.ToLower(a.Name), "%v", row.ours)
			require.Equal(t, b.Offset, a.Offset, "%v, %s", row.ours, a.Name)
		}
	}
}
