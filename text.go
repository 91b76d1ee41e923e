package fanout

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// namedText is the name of a value from first to last.
func namedText[E ~uint8](e, first, last E, name func(E) string) ([]byte, error) {
	if e < first || e > last {
		return nil, fmt.Errorf("%w: %T(%d): want one that has a name", ErrInvalidOption, e, uint8(e))
	}
	return []byte(name(e)), nil
}

// fromName returns the value from first to last that has that name.
func fromName[E ~uint8](text []byte, first, last E, name func(E) string) (E, error) {
	var names []string
	for e := first; e <= last; e++ {
		if name(e) == string(text) {
			return e, nil
		}
		names = append(names, name(e))
	}
	return 0, invalid(strings.TrimPrefix(fmt.Sprintf("%T", first), "fanout."), fmt.Sprintf("%q", text), "one of "+strings.Join(names, ", "))
}

// MarshalText returns what [Cause.String] does, so that a cause is a name in JSON, in
// configurations and in logs. The zero Cause is "none". A number that is not a Cause is
// [ErrInvalidOption].
func (c Cause) MarshalText() ([]byte, error) { return namedText(c, 0, Released, Cause.String) }

// UnmarshalText reads what MarshalText writes. Any other text is [ErrInvalidOption],
// naming the text.
func (c *Cause) UnmarshalText(text []byte) (err error) {
	read, err := fromName(text, 0, Released, Cause.String)
	if err == nil {
		*c = read
	}
	return err
}

// MarshalText returns the policy's name as in the source code, such as "DropOldest". A
// number that is not a policy, 0 included, is [ErrInvalidOption].
func (o Overflow) MarshalText() ([]byte, error) {
	return namedText(o, Block, DropNewest, Overflow.String)
}

// UnmarshalText reads what MarshalText writes, so that an Overflow can stand in a
// configuration, or be a flag by [flag.TextVar]. Any other text is [ErrInvalidOption],
// naming the text.
func (o *Overflow) UnmarshalText(text []byte) (err error) {
	read, err := fromName(text, Block, DropNewest, Overflow.String)
	if err == nil {
		*o = read
	}
	return err
}

// MarshalText returns what [DropReason.String] does. The zero DropReason is "none". A number
// that is not a reason is [ErrInvalidOption].
func (r DropReason) MarshalText() ([]byte, error) {
	return namedText(r, 0, lastReason, DropReason.String)
}

// UnmarshalText reads what MarshalText writes. Any other text is [ErrInvalidOption],
// naming the text.
func (r *DropReason) UnmarshalText(text []byte) (err error) {
	read, err := fromName(text, 0, lastReason, DropReason.String)
	if err == nil {
		*r = read
	}
	return err
}

// attemptJSON is an Attempt in JSON.
type attemptJSON struct {
	Number  int       `json:"number"`
	Cause   Cause     `json:"cause"`
	Queue   string    `json:"queue"`
	Start   time.Time `json:"start"`
	Elapsed string    `json:"elapsed"`
	Error   *string   `json:"error,omitempty"`
	Stack   string    `json:"stack,omitempty"`
}

// MarshalJSON writes the attempt as an object with the fields number, cause (its name),
// queue, start (in RFC 3339), elapsed (as [time.Duration] prints it: "1.5s"), and, where
// there is one, error (its text) and stack.
func (a Attempt) MarshalJSON() ([]byte, error) {
	j := attemptJSON{Number: a.Number, Cause: a.Cause, Queue: a.Queue, Start: a.Start, Elapsed: a.Elapsed.String(), Stack: a.Stack}
	if a.Err != nil {
		text := fmt.Sprint(a.Err) // a text that panics is said to, as in String
		j.Error = &text
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes. An error comes back as its text, in which
// errors.Is and errors.As find nothing. A value that is not valid, such as an unknown cause,
// is an error that names it, and the attempt stays as it was.
func (a *Attempt) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil // as package json has it
	}
	j := attemptJSON{Elapsed: "0s"}
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("fanout: attempt: %w", err)
	}
	elapsed, err := time.ParseDuration(j.Elapsed)
	if err != nil {
		return fmt.Errorf("fanout: attempt: elapsed: %w", err)
	}
	*a = Attempt{Number: j.Number, Cause: j.Cause, Queue: j.Queue, Start: j.Start, Elapsed: elapsed, Stack: j.Stack}
	if j.Error != nil {
		a.Err = errors.New(*j.Error)
	}
	return nil
}

// eventJSON is an Event in JSON.
type eventJSON struct {
	plainEvent
	Err *string
}

type plainEvent Event

// MarshalJSON writes the event as an object with the names of its fields. Err is its text,
// or null if there is none.
func (e Event) MarshalJSON() ([]byte, error) {
	j := eventJSON{plainEvent: plainEvent(e)}
	if e.Err != nil {
		text := fmt.Sprint(e.Err) // a text that panics is said to, as in String
		j.Err = &text
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes. An error comes back as its text, in which
// errors.Is and errors.As find nothing. If the data is not valid, the event stays as it was.
func (e *Event) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil // as package json has it
	}
	var j eventJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("fanout: event: %w", err)
	}
	*e = Event(j.plainEvent)
	if j.Err != nil {
		e.Err = errors.New(*j.Err)
	}
	return nil
}
