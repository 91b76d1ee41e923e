package core

import (
	"context"
	"log/slog"
	"time"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// hooked reports whether anybody wants to hear of events of kind k.
func (q *Queue[T]) hooked(k notice.Kind) bool { return q.core.to.Wants(k) }

// noteLocked has an event told, if anybody wants to hear of it.
func (q *Queue[T]) noteLocked(k notice.Kind, e notice.Event) {
	if !q.hooked(k) {
		return
	}
	e.Seq, e.Time = q.seq.Add(1), time.Now()
	q.pending.Add(&q.report, k, e)
}

// noteItemLocked is noteLocked for an event about one message.
func (q *Queue[T]) noteItemLocked(k notice.Kind, it *item[T], e notice.Event) {
	if !q.hooked(k) {
		return
	}
	e.MessageID, e.PublishedAt, e.Count = q.core.id(it.Seq, it.At, it.Ext), q.core.time(it.At), 1
	if it.Ext != nil {
		e.Message = it.Ext
	}
	q.noteLocked(k, e)
}

// noteUnreturnedLocked notes that an attempt ended in a panic or an exit, if it did.
func (q *Queue[T]) noteUnreturnedLocked(it *item[T], v message.Verdict, attempt int, elapsed time.Duration) {
	k := notice.Panicked
	switch v.Cause {
	case message.Panicked:
	case message.Exited:
		k = notice.Exited
	default:
		return
	}
	q.noteItemLocked(k, it, notice.Event{Attempt: attempt, Cause: message.Cause(v.Cause), Err: v.Err, Stack: v.Stack, Elapsed: elapsed})
}

// deliveredLocked notes that d was made.
func (q *Queue[T]) deliveredLocked(d *Delivery[T]) {
	if q.hooked(notice.Delivered) {
		q.noteLocked(notice.Delivered, notice.Event{MessageID: d.ID(), PublishedAt: d.PublishedAt(), Attempt: d.Attempt(), Count: 1})
	}
}

// messageKey is the key of the message that a log line is about.
type messageKey struct{}

// MessageOf returns the message that a log line is about, whose context is given; nil if it
// is about none.
func MessageOf(ctx context.Context) intercept.About {
	a, _ := ctx.Value(messageKey{}).(intercept.About)
	return a
}

// logContext is the context of an event's log line.
func logContext(e *notice.Event) context.Context {
	if e.MessageID == "" {
		return context.Background()
	}
	l := &loggedMessage{messageID: e.MessageID, at: e.PublishedAt, number: e.Attempt}
	l.extra, _ = e.Message.(*extra)
	return context.WithValue(context.Background(), messageKey{}, intercept.About(l))
}

// A loggedMessage is what a log line knows of a message.
type loggedMessage struct {
	messageID string
	at        time.Time
	number    int
	extra     *extra
}

func (l *loggedMessage) Count() int                   { return 1 }
func (l *loggedMessage) Body(int) any                 { return nil }
func (l *loggedMessage) ID(int) string                { return l.messageID }
func (l *loggedMessage) Ext(int) *extra               { return l.extra }
func (l *loggedMessage) Attempt(int) int              { return l.number }
func (l *loggedMessage) PublishedAt(int) time.Time    { return l.at }
func (l *loggedMessage) Set(int, string, string) bool { return false }

// reportStall tells that a publish has been waiting for room.
func (q *Queue[T]) reportStall(waited time.Duration) {
	s := q.Stats()
	q.mu.Lock()
	q.noteLocked(notice.Stalled, notice.Event{Elapsed: waited, Count: 1, Stats: &s, Logged: []slog.Attr{
		slog.Int("depth", s.Unsettled()), slog.Int("ready", s.Ready), slog.Int("in_flight", s.InFlight),
		slog.Int("workers", s.Workers), slog.Int("stuck", s.Stuck),
	}})
	q.unlock()
}

// droppedByDelete counts what an engine says that it dropped, and leaves in p what has to
// be told of it.
func (q *Queue[T]) droppedByDelete(n int, p *notice.Pending) {
	if n <= 0 {
		return
	}
	q.mu.Lock()
	q.rareLocked().dropped += uint64(n)
	q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByDelete, Count: n})
	q.unlockTo(p)
}
