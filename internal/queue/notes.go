package queue

import (
	"time"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// Hooked reports whether there is a hook for events of kind k.
func (q *Queue[T]) Hooked(k notice.Kind) bool { return q.Core.Hooked[k] }

// NoteLocked has an event told, if anybody wants to hear of it.
func (q *Queue[T]) NoteLocked(k notice.Kind, e notice.Event) {
	if !q.Core.To.Wants(k) {
		return
	}
	e.Seq, e.Time = q.Seq.Add(1), time.Now()
	q.Pending.Add(&q.Report, k, e)
}

// NoteItemLocked is NoteLocked for an event about one message.
func (q *Queue[T]) NoteItemLocked(k notice.Kind, it *message.Item[T], e notice.Event) {
	if !q.Core.To.Wants(k) {
		return
	}
	e.MessageID, e.PublishedAt, e.Count = q.Core.IDOf(it.Seq, it.At, it.Ext), q.Core.Time(it.At), 1
	if it.Ext != nil {
		e.Message = it.Ext
	}
	q.NoteLocked(k, e)
}

// NoteUnreturnedLocked notes that an attempt ended in a panic or an exit, if it did.
func (q *Queue[T]) NoteUnreturnedLocked(it *message.Item[T], v message.Verdict, attempt int, elapsed time.Duration) {
	k := notice.Panicked
	switch v.Cause {
	case message.Panicked:
	case message.Exited:
		k = notice.Exited
	default:
		return
	}
	q.NoteItemLocked(k, it, notice.Event{Attempt: attempt, Cause: message.Cause(v.Cause), Err: v.Err, Stack: v.Stack, Elapsed: elapsed})
}

// DroppedByDelete counts what an engine says that it dropped, and leaves in p what has to
// be told of it.
func (q *Queue[T]) DroppedByDelete(n int, p *notice.Pending) {
	if n <= 0 {
		return
	}
	q.Mu.Lock()
	q.Store.Counters().Dropped += uint64(n)
	q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByDelete, Count: n})
	q.UnlockTo(p)
}
