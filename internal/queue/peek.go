package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/store"
)

// PeekOptions say what PeekAt returns.
type PeekOptions struct {
	After string // the cursor that the page before was returned with
	Most  int    // how many messages the page has at most
	Body  int    // how many bytes of a body's text each has
}

// A MessageView is a message in a queue, without its T. Package fanout explains it.
type MessageView struct {
	ID          string
	PublishedAt time.Time
	Cursor      string
	State       string
	DueAt       time.Time
	Attempt     int
	OrderingKey string
	Attributes  map[string]string
	History     []message.Attempt
	DiedAt      time.Time
	Source      string
	Body        string
}

// PeekAt returns a page of the queue's messages and the cursor of the next page, which is
// empty after the last page.
func (q *Queue[T]) PeekAt(ctx context.Context, o PeekOptions) (page []MessageView, next string, err error) {
	after, err := o.check()
	if err != nil {
		return nil, "", err
	}
	if ctx == nil {
		return nil, "", fmt.Errorf("%w: Peek: %w", message.ErrInvalidOption, message.ErrNilContext)
	}
	var seen []Sight[T]
	var more bool
	if ctx.Err() != nil {
		err = message.ContextError(ctx)
	} else {
		seen, more, err = q.At().Look(ctx, after, o)
	}
	page = slices.Grow(page, len(seen))
	for k := range seen {
		page = append(page, seen[k].view(o.Body))
	}
	if more {
		next = seen[len(seen)-1].place.next()
	}
	if err != nil {
		err = fmt.Errorf("fanout: peek at %q: %w", q.QueueName, err)
	}
	return page, next, err
}

func (o *PeekOptions) check() (after Seat, err error) {
	switch {
	case o.Most < 1:
		return after, message.Invalid("PeekOptions.Most", o.Most, "at least 1")
	case o.Body < 0:
		return after, message.Invalid("PeekOptions.Body", o.Body, "a number of bytes that is not negative")
	case o.After == "":
		return Seat{entry: math.MinInt32}, nil
	}
	seq, entry, _ := strings.Cut(o.After, ".")
	i, err := strconv.ParseInt(entry, 10, 32)
	if err == nil {
		after.entry = int32(i)
		after.seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if err != nil {
		return after, message.Invalid("PeekOptions.After", strconv.Quote(o.After), "what Peek returned with the page before")
	}
	return after, nil
}

// A Seat is where a message stands among those of a queue that is looked at: in the order
// of publication. Two letters may have the same number, of queues that were opened one
// after the other by one name: these stay in their entries.
type Seat struct {
	seq   uint64
	entry int32 // inLog: not in the window yet
}

const inLog = int32(-1)

func (s Seat) compare(o Seat) int {
	if s.seq != o.seq {
		if s.seq < o.seq {
			return -1
		}
		return 1
	}
	return int(s.entry) - int(o.entry)
}

// next is the cursor behind s. What is in the log may be in the window by then.
func (s Seat) next() string {
	if s.entry == inLog {
		s.entry = math.MaxInt32
	}
	return fmt.Sprintf("%d.%d", s.seq, s.entry)
}

// here is the cursor just before s.
func (s Seat) here() string { return fmt.Sprintf("%d.%d", s.seq, int64(s.entry)-1) }

// A Sight is a message that was seen in a queue.
type Sight[T any] struct {
	place Seat
	D     Delivery[T]
	State uint8
	due   int64 // 0 if it waits for no instant
}

// stateNames are what views call the states.
var stateNames = [store.States]string{
	store.Backlogged: "ready", store.Due: "ready", store.Delayed: "delayed", store.Retrying: "retrying", store.InFlight: "in flight",
	store.InHandler: "in flight", store.Parked: "parked", store.Released: "released", store.Blocked: "blocked",
}

// view is what s looks like without T. It calls the body's methods: no lock is held.
func (s *Sight[T]) view(body int) MessageView {
	d := &s.D
	v := MessageView{
		ID: d.ID(), PublishedAt: d.PublishedAt(), State: stateNames[s.State], Attempt: d.Attempt(), OrderingKey: d.OrderingKey(),
		Attributes: d.Attributes(), History: d.History(),
	}
	if d.Q.Keeper == nil {
		v.Cursor = s.place.here()
	}
	if s.due > 0 {
		v.DueAt = d.Q.Core.Time(s.due)
	}
	if d.Q.Letters {
		v.DiedAt, v.Source = d.Hist.Died()
	}
	if body > 0 {
		v.Body = d.text(body)
	}
	return v
}

// text is the body as text, at most most bytes, or a little more for a note.
func (d *Delivery[T]) text(most int) (text string) {
	switch body := any(d.Body).(type) {
	case string:
		text = body
	case []byte:
		text = string(body[:min(len(body), most+1)])
		if n := len(body) - len(text); n > 0 {
			text = string(body[:most]) + fmt.Sprintf(message.NoteFormat, n+1)
		}
	default:
		if data, ok := encodedOf(d.Ext); ok {
			text = string(data)
		} else if e := callback.Apart(func() { text = textOf(body) }); !e.Returned {
			text = fmt.Sprintf("a %T, whose text could not be had", body)
		}
	}
	return strings.ToValidUTF8(message.ShortText(text, most), "?")
}

func textOf(body any) string {
	if data, err := json.Marshal(body); err == nil {
		return string(data)
	}
	return fmt.Sprintf("%+v", body)
}

// lookLen is how many messages are looked at under one lock.
const lookLen = 1024

// lookHere returns the messages behind a seat, at most as many as are asked for, in the
// order of publication, and whether there are more. It looks at the log before the window,
// since that is the way that messages go.
func (q *Queue[T]) lookHere(ctx context.Context, after Seat, most int) (seen []Sight[T], more bool, err error) {
	s := sights[T]{after: after, most: min(most, math.MaxInt-1) + 1}
	q.Mu.Lock()
	q.TakeAllBack()
	held := q.Win.Len()
	q.Unlock() // what was taken back was tallied
	s.seen = make([]Sight[T], 0, min(s.most, held)+min(lookLen, held))
	pos, entry := int64(0), int32(0)
	for _, step := range []func() bool{
		func() bool { // what timed out together
			q.Unfold(lookLen)
			return q.Leases.Expired() > 0
		},
		func() bool { return q.seeLogLocked(&s, &pos) },
		func() (more bool) {
			entry, more = q.Win.Scan(entry, lookLen, func(i int32) { q.seeLocked(&s, i) })
			return more
		},
	} {
		for more := true; more; {
			q.Locked(func() { more = step() })
			s.trim()
			if ctx.Err() != nil {
				return nil, false, message.ContextError(ctx)
			}
		}
	}
	if len(s.seen) == s.most {
		return s.seen[:most], true, nil
	}
	return s.seen, false, nil
}

// seeLogLocked looks at what stands in the log from pos on, and reports whether there may
// be more that is wanted.
func (q *Queue[T]) seeLogLocked(s *sights[T], pos *int64) (more bool) {
	if q.Direct || q.Closed {
		return false
	}
	*pos = max(*pos, q.Cursor.Pos())
	n := 0
	q.Cursor.ScanFrom(*pos, func(it *message.Item[T]) bool {
		if at := (Seat{it.Seq, inLog}); s.wants(at) {
			s.seen = append(s.seen, Sight[T]{place: at, D: q.inLogDelivery(it), State: store.Backlogged})
		}
		n++
		return n < lookLen
	})
	*pos += int64(n)
	return n == lookLen && len(s.seen) < s.most // they come in order
}

// seeLocked looks at an entry of the window.
func (q *Queue[T]) seeLocked(s *sights[T], i int32) {
	m, h := q.Win.Meta(i), q.Win.At(i)
	at := Seat{h.Seq, i}
	if !s.wants(at) || q.InFlight(i) {
		return
	}
	seen := Sight[T]{place: at, D: q.peekedLocked(i), State: m.State}
	if m.State == store.Delayed || m.State == store.Retrying {
		seen.due = m.Deadline
	}
	s.seen = append(s.seen, seen)
}

// sights are the first messages behind a seat, as far as a queue was looked at. They
// belong to one goroutine.
type sights[T any] struct {
	after   Seat
	most    int
	seen    []Sight[T]
	trimmed int // how many of seen are in order, and the first of all
}

// wants reports whether a message is behind the seat and before the last that is wanted.
func (s *sights[T]) wants(at Seat) bool {
	return at.compare(s.after) > 0 && (s.trimmed < s.most || at.compare(s.seen[s.most-1].place) < 0)
}

// trim brings what was seen in order, and forgets what is too much. A message that was
// seen twice, in the log and in the window or in two entries, is there once.
func (s *sights[T]) trim() {
	if len(s.seen) == s.trimmed {
		return
	}
	slices.SortFunc(s.seen, func(a, b Sight[T]) int { return a.place.compare(b.place) })
	s.seen = slices.CompactFunc(s.seen, func(a, b Sight[T]) bool {
		return a.place.seq == b.place.seq && (a.place.entry == inLog || !a.D.Q.Letters)
	})
	if len(s.seen) > s.most {
		clear(s.seen[s.most:])
		s.seen = s.seen[:s.most]
	}
	s.trimmed = len(s.seen)
}
