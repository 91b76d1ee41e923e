package core

import (
	"context"
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// A place is where a queue's messages are: in memory, or with a keeper. These are the
// calls that an engine has to be asked for. No lock is held; ctx is not nil and has
// not ended.
type place[T any] interface {
	receive(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error)
	tryReceive(ctx context.Context, vis time.Duration) (d Delivery[T], ok bool, err error)
	settle(ctx context.Context, ref message.Ref, v message.Verdict) error
	extend(ctx context.Context, ref message.Ref, by time.Duration) error

	depth(ctx context.Context) (Depth, error)
	peek(ctx context.Context, most int) ([]Delivery[T], error)
	// look returns a page of messages behind a seat, and whether there are more.
	look(ctx context.Context, after seat, o PeekOptions) (seen []sight[T], more bool, err error)
	redrive(ctx context.Context, c *LetterChoice[T]) (moved int, err error)
	deleteLetters(ctx context.Context, c *LetterChoice[T]) (deleted int, err error)
	purge(ctx context.Context) (dropped int, err error)
	close() error
	delete(ctx context.Context) error

	// For the topic's end: awaitEmpty waits until nothing of the queue is kept
	// elsewhere; askLeft asks what that is, for left, which then tells; letGo ends the
	// use of the engine's queue.
	awaitEmpty(ctx context.Context) error
	askLeft()
	left() (ready, inFlight int)
	letGo()
}

// A keeper is the place of a queue whose messages an engine keeps. What the queue has
// received is in entries of its window, with the states and time-outs that all messages
// have. What ends is told to the engine, which then forgets it, or delivers it again.
//
// What has "Locked" in its name is called with the queue's mu held, and leaves calls of
// the engine pending. calls and polling of the queue count what is under way.
type keeper[T any] interface {
	place[T]

	// wantLocked says that a worker is free and nothing is ready.
	wantLocked()
	// changedLocked says that the queue was paused, resumed or closed, or that a
	// subscriber has stopped.
	changedLocked()
	// endLocked ends the delivery of entry i, which is no longer scheduled, as v says.
	// Nobody waits for that.
	endLocked(i int32, v message.Verdict, now int64)
	// buryLocked has entry i, whose state has been left, go to the dead letters.
	buryLocked(i int32)
	// extendLocked makes the engine's lease of entry i end after by at the earliest.
	extendLocked(i int32, by time.Duration)

	// failed tells that the engine failed at a worker's settlement, unless err says
	// that the worker came too late, and reports which it is.
	failed(err error) bool
	// hide makes unknown what only the engine knows.
	hide(s *Stats)
	// capacity is what the user asked for, Unknown if he asked for nothing.
	capacity() int
}

// at returns where the queue's messages are.
func (q *Queue[T]) at() place[T] {
	if q.keeper != nil {
		return q.keeper
	}
	return memory[T]{q}
}

// memory is the place of a queue whose messages are all here.
type memory[T any] struct{ q *Queue[T] }

func (m memory[T]) receive(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error) {
	return m.q.receiveHere(ctx, most, vis)
}

func (m memory[T]) tryReceive(ctx context.Context, vis time.Duration) (Delivery[T], bool, error) {
	return m.q.tryReceiveHere(ctx, vis)
}

func (m memory[T]) settle(_ context.Context, ref message.Ref, v message.Verdict) error {
	return m.q.settleHere(ref, v)
}

func (m memory[T]) extend(_ context.Context, ref message.Ref, by time.Duration) error {
	return m.q.extendHere(ref, by)
}

func (m memory[T]) depth(context.Context) (Depth, error) { return m.q.depth(), nil }

func (m memory[T]) peek(_ context.Context, most int) ([]Delivery[T], error) {
	return m.q.peekHere(most), nil
}

func (m memory[T]) look(ctx context.Context, after seat, o PeekOptions) ([]sight[T], bool, error) {
	return m.q.lookHere(ctx, after, o.Most)
}

func (m memory[T]) redrive(ctx context.Context, c *LetterChoice[T]) (int, error) {
	if c.dead == nil {
		return 0, c.Unknown()
	}
	return m.q.redriveFrom(ctx, c)
}

func (m memory[T]) deleteLetters(ctx context.Context, c *LetterChoice[T]) (int, error) {
	if c.dead == nil {
		return 0, c.Unknown()
	}
	return m.q.deleteFrom(ctx, c)
}

func (m memory[T]) purge(context.Context) (int, error) { return m.q.purgeHere() }
func (m memory[T]) close() error                       { return m.q.end(false) }
func (m memory[T]) delete(context.Context) error       { return m.q.end(true) }
func (m memory[T]) awaitEmpty(context.Context) error   { return nil }
func (m memory[T]) askLeft()                           {}
func (m memory[T]) left() (ready, inFlight int)        { return 0, 0 }
func (m memory[T]) letGo()                             {}
