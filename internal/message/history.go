package message

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// An Attempt is how one delivery of a message ended.
type Attempt struct {
	Number  int // 1 for the first delivery; counts on through snoozes, releases and redrives
	Cause   Cause
	Queue   string // that made the delivery
	Start   time.Time
	Elapsed time.Duration
	Err     error
	Stack   string // where a panic came from
}

// A Kept is an attempt as a history keeps it.
type Kept struct {
	Attempt
	Text   string // Err's, so that nobody calls code of the user's to have it
	Letter bool   // a dead-letter queue made the delivery
}

// An Origin says where attempts were made. It is shared by all of a queue.
type Origin struct {
	Clock  *Clock
	Queue  string
	Letter bool // it is a dead-letter queue
}

// A Past is what a message has been through when it is taken once more.
type Past struct {
	Hist   *History // nil: nothing
	Spent  uint32   // attempts
	Passes uint16   // settlements that spent no attempt
}

// A History is what ended attempts left behind. It is never changed, so that a
// delivery can carry it: each attempt makes a new one, which shares what came
// before. A nil History is empty.
//
// One History may be that of many messages, which timed out together: it keeps
// their starts, and the attempts of each are made when somebody asks.
//
// Invariant: attempts are at most mostAttempts and a slack that is cut at times;
// texts is how many bytes of texts they have, at most mostTexts.
type History struct {
	attempts []Kept
	texts    int
	group    *group // instead of attempts
}

const (
	// mostAttempts is how many attempts a history shows.
	mostAttempts = 1000
	// slack is how many more are kept before all above are cut, which copies them.
	slack = mostAttempts / 4
	// MostText bounds one text, of an error or a stack, and mostTexts those of a
	// history, in bytes.
	MostText  = 8 << 10
	mostTexts = 256 << 10
)

// Attempts returns a copy of the attempts of the message with the given number.
func (h *History) Attempts(seq uint64) []Attempt {
	if h == nil {
		return nil
	}
	shown := cut(h.Of(seq).attempts, mostAttempts)
	as := make([]Attempt, len(shown))
	for k := range shown {
		as[k] = shown[k].Attempt
	}
	return as
}

// Kept returns the attempts of a history of one message. They must not be changed.
func (h *History) Kept() []Kept {
	if h == nil {
		return nil
	}
	return h.attempts
}

// Restored is a history of attempts that were kept elsewhere.
func Restored(as []Kept) *History {
	h := &History{attempts: as}
	for k := range as {
		h.texts += as[k].size()
	}
	return h
}

// Of is the history of the message with the given number as one of its own.
func (h *History) Of(seq uint64) *History {
	if h == nil || h.group == nil {
		return h
	}
	return h.group.of(seq)
}

// Releases counts the releases with an error that h, which is of one message, ends
// with, up to most: those that had to wait. What h has not kept between them counts, too.
func (h *History) Releases(most int) (n int) {
	next := 0 // the number of the attempt behind
	for _, a := range slices.Backward(h.Kept()) {
		if a.Cause != Released {
			break
		}
		if a.Err != nil {
			n++
		}
		if next > 0 {
			n += next - a.Number - 1
		}
		next = a.Number
	}
	return min(n, most)
}

// Last returns the newest attempt of h, which is of one message and not empty.
func (h *History) Last() *Kept { return &h.attempts[len(h.attempts)-1] }

// With returns h, which is of one message, and a behind it, numbered.
func (h *History) With(a Kept) *History {
	if h == nil || len(h.attempts) == 0 {
		a.Number = 1
		first := &struct { // most have one: in one piece
			History
			only [1]Kept
		}{only: [1]Kept{a}}
		first.attempts, first.texts = first.only[:], a.size()
		return &first.History
	}
	a.Number = h.Last().Number + 1
	next := &History{attempts: append(h.attempts, a), texts: h.texts + a.size()}
	if len(next.attempts) >= mostAttempts+slack || next.texts > mostTexts {
		next.attempts, next.texts = Bounded(next.attempts, mostAttempts, MostText, mostTexts)
	}
	return next
}

func (a *Kept) size() int { return len(a.Text) + len(a.Stack) }

// A Group is messages that timed out together, in no order that means anything.
// What is the same for all is given once.
type Group struct {
	At      int64      // when they timed out
	Start   int64      // when their deliveries began, if Starts is nil
	Starts  []int64    // when each began
	Seqs    []uint64   // their numbers; needed only with Starts or Befores
	Before  *History   // what all have been through before, if Befores is nil
	Befores []*History // what each has been through before
}

type group struct {
	*Origin
	Group
}

// Together is the history of messages after they timed out together. It keeps
// the group's slices.
func Together(o *Origin, g Group) *History { return &History{group: &group{o, g}} }

// of returns the history of one message in one piece.
func (g *group) of(seq uint64) *History {
	together := 1
	start, before := g.last(seq)
	base := before
	for ; base != nil && base.group != nil; together++ {
		_, base = base.group.last(seq)
	}
	h := &History{attempts: make([]Kept, 0, len(base.Kept())+together+1)} // the next attempt finds room
	if base != nil {
		h.attempts, h.texts = append(h.attempts, base.attempts...), base.texts
	}
	number := 0
	if n := len(h.attempts); n > 0 {
		number = h.attempts[n-1].Number
	}
	h.attempts = h.attempts[:len(h.attempts)+together]
	for k, at := len(h.attempts)-1, g; ; k-- {
		a := TimeOut(at.Origin, start, at.At)
		a.Number = number + together
		together--
		h.attempts[k] = a
		if together == 0 {
			break
		}
		at = before.group
		start, before = at.last(seq)
	}
	if len(h.attempts) >= mostAttempts+slack {
		h.attempts, h.texts = Bounded(h.attempts, mostAttempts, MostText, mostTexts)
	}
	return h
}

// last returns when the delivery of one message began that timed out last, and what the
// message had been through before.
func (g *group) last(seq uint64) (start int64, before *History) {
	start, before = g.Start, g.Before
	if k := slices.Index(g.Seqs, seq); k >= 0 {
		if g.Starts != nil {
			start = g.Starts[k]
		}
		if g.Befores != nil {
			before = g.Befores[k]
		}
	}
	return start, before
}

// TimeOut is the attempt of a delivery from o that timed out.
func TimeOut(o *Origin, start, at int64) Kept {
	return Kept{
		Attempt: Attempt{Cause: TimedOut, Queue: o.Queue, Start: o.Clock.Time(start), Elapsed: time.Duration(at - start)},
		Letter:  o.Letter,
	}
}

// Bounded returns what is kept of attempts: at most most of them, as cut says,
// each text shortened to at most each bytes, and of the oldest texts only how long
// they were, until all are at most total bytes. It returns how many they are. What
// is left out can't be had again, but as is said of it: a note of some ten bytes
// may stand in for a text even if total has no room for it. It changes nothing.
func Bounded(as []Kept, most, each, total int) (out []Kept, texts int) {
	out = slices.Clone(cut(as, most))
	for k := range out {
		out[k].shorten(each)
		texts += out[k].size()
	}
	for k := 0; k < len(out) && texts > total; k++ {
		a := &out[k]
		texts -= a.size()
		a.Stack = ShortText(a.Stack, 0)
		if texts+a.size() > total {
			a.shorten(0)
		}
		texts += a.size()
	}
	return out, texts
}

// cut returns at most most attempts: what dead-letter queues did goes first, the
// oldest before the newer, and then the middle. The newest always stays.
func cut(as []Kept, most int) []Kept {
	over := len(as) - most
	if over <= 0 {
		return as
	}
	out := make([]Kept, 0, len(as))
	for k, a := range as {
		if over > 0 && a.Letter && k < len(as)-1 {
			over--
			continue
		}
		out = append(out, a)
	}
	return slices.Delete(out, most/2, most/2+over)
}

// shorten makes each text of a at most that many bytes. An error whose text is
// longer becomes one that has the short text; nothing else of it is left, as it
// would keep the long one.
func (a *Kept) shorten(most int) {
	a.Stack = ShortText(a.Stack, most)
	if short := ShortText(a.Text, most); short != a.Text {
		a.Text, a.Err = short, errors.New(short)
	}
}

// noteLen is more than a note of what was left out is long.
const noteLen = 48

// ShortText returns text if it is at most most bytes; else its beginning, with a
// note of how many bytes were left out, and all of that at most most bytes. If
// there is no room for a note it is the note, unless text is as short.
func ShortText(text string, most int) string {
	if len(text) <= max(most, noteLen) {
		return text
	}
	before := 0 // left out when text was shortened before
	if i := strings.LastIndex(text, noteBegin); i >= 0 && len(text)-i < noteLen {
		if n, _ := fmt.Sscanf(text[i:], NoteFormat, &before); n == 1 {
			text = text[:i]
		}
	}
	end := max(most-noteLen, 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end]) + fmt.Sprintf(NoteFormat, before+len(text)-end)
}

const (
	noteBegin = "... ("
	// NoteFormat is the note of how many bytes of a text were left out.
	NoteFormat = "... (%d bytes left out)"
)

// Died returns when the attempt ended that made a dead letter of the message, and the
// queue that made it.
func (h *History) Died() (at time.Time, queue string) {
	for _, a := range slices.Backward(h.Kept()) {
		if !a.Letter {
			return a.Start.Add(a.Elapsed), a.Queue
		}
	}
	return at, ""
}
