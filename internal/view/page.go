package view

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
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
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
func PeekAt[T any](ctx context.Context, q *queue.Queue[T], o PeekOptions) (page []MessageView, next string, err error) {
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
	} else if e, ok := elsewhere(q); ok {
		seen, more, err = e.Look(ctx, after, o)
	} else {
		seen, more, err = lookHere(ctx, q, after, o.Most)
	}
	page = slices.Grow(page, len(seen))
	for k := range seen {
		page = append(page, seen[k].view(o.Body))
	}
	if more {
		next = seen[len(seen)-1].place.next()
	}
	if err != nil {
		err = fmt.Errorf("fanout: peek at %q: %w", q.Name(), err)
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
	D     delivery.Delivery[T]
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
	if d.Q.Store.Letters {
		v.DiedAt, v.Source = d.Hist.Died()
	}
	if body > 0 {
		v.Body = text(d, body)
	}
	return v
}

// text is the body as text, at most most bytes, or a little more for a note.
func text[T any](d *delivery.Delivery[T], most int) (text string) {
	switch body := any(d.Body).(type) {
	case string:
		text = body
	case []byte:
		text = string(body[:min(len(body), most+1)])
		if n := len(body) - len(text); n > 0 {
			text = string(body[:most]) + fmt.Sprintf(message.NoteFormat, n+1)
		}
	default:
		if data, ok := delivery.EncodedOf(d.Ext); ok {
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
