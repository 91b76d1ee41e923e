package fanout

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// What exists twice, for its documentation here and for those below, agrees.

func TestCausesAndReasonsAreThoseBelow(t *testing.T) {
	for ours, theirs := range map[Cause]message.Cause{
		Acked: message.Acked, Failed: message.Failed, Panicked: message.Panicked, Exited: message.Exited, TimedOut: message.TimedOut,
		Nacked: message.Nacked, PermanentlyFailed: message.PermanentlyFailed, Expired: message.Expired, Snoozed: message.Snoozed, Released: message.Released,
	} {
		require.Equal(t, uint8(theirs), uint8(ours))
	}
	for ours, theirs := range map[DropReason]notice.Reason{
		DroppedOldest: notice.DroppedOldest, DroppedNewest: notice.DroppedNewest, DroppedByClose: notice.DroppedByClose,
		DroppedByPurge: notice.DroppedByPurge, DroppedByDelete: notice.DroppedByDelete,
	} {
		require.Equal(t, uint8(theirs), uint8(ours))
	}
	require.Equal(t, uint8(notice.LastReason), uint8(lastReason))
}

func TestAnEventIsToldWhole(t *testing.T) {
	e := notice.Event{
		Topic: "t", Queue: "q", Seq: 1, Time: time.Unix(2, 0), MessageID: "id", PublishedAt: time.Unix(3, 0), Attempt: 4, Cause: message.Nacked,
		Err: errors.New("5"), Elapsed: 6, Wait: 7, Reason: notice.DroppedByPurge, Subscriber: "file:8", Stack: "9", Stats: &Stats{Ready: 10}, Count: 11,
	}
	ours, theirs := reflect.ValueOf(eventOf(&e)), reflect.ValueOf(e)
	for k := range ours.NumField() {
		field := ours.Type().Field(k)
		require.False(t, ours.Field(k).IsZero(), "%s is not told", field.Name)
		their := theirs.FieldByName(field.Name)
		if their.Kind() == reflect.Interface && field.Name == "Stats" {
			their = their.Elem()
		}
		require.Equal(t, their.Convert(field.Type).Interface(), ours.Field(k).Interface(), field.Name)
	}
	require.Nil(t, eventOf(&notice.Event{}).Stats)
}

// Each hook hears of its own kind.
func TestHooksAreThoseOfTheirKinds(t *testing.T) {
	kinds := map[string]notice.Kind{
		"Published": notice.Published, "Delivered": notice.Delivered, "Settled": notice.Settled, "DeadLettered": notice.DeadLettered, "Parked": notice.Parked,
		"Redriven": notice.Redriven, "Dropped": notice.Dropped, "Stuck": notice.Stuck, "StuckStack": notice.StuckStack, "Stalled": notice.Stalled,
		"EngineFailed": notice.EngineFailed, "Late": notice.Late,
	}
	fields := reflect.TypeFor[Hooks]()
	require.Equal(t, fields.NumField(), len(kinds))
	for name, kind := range kinds {
		var h Hooks
		told := 0
		reflect.ValueOf(&h).Elem().FieldByName(name).Set(reflect.ValueOf(func(Event) { told++ }))
		var l notice.Listeners
		h.listen(&l)
		for k := range notice.Kinds {
			is := k == kind || k == notice.LateCancelled && kind == notice.Late
			require.Equal(t, is, l.Hooked(k), "%s, kind %d", name, k)
		}
		l.Call(kind, new(notice.Event))
		require.Equal(t, 1, told, name)
	}
}
