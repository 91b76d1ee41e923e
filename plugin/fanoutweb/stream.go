package fanoutweb

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// streamFor is how long a live page goes on before it has to ask again, and is asked for
	// what it may see.
	streamFor = 5 * time.Minute
	// writeFor is how long a reader may take to take an event.
	writeFor = 10 * time.Second
)

// events sends the parts of a page that change, as server-sent events, whenever the
// counters have been read and a part has changed.
func (v *visit) events() error {
	fragment, ended := v.livePart()
	if _, err := fragment(); err != nil {
		return err
	}
	select {
	case v.h.readers <- struct{}{}:
	default:
		v.w.Header().Set("Retry-After", "5")
		return refusal{http.StatusServiceUnavailable, "There are as many live pages as there may be."}
	}
	defer func() { <-v.h.readers }()
	out := http.NewResponseController(v.w)
	head := v.w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("X-Accel-Buffering", "no")
	_ = out.SetWriteDeadline(time.Now().Add(writeFor)) // where it can't be set there is none
	if err := out.Flush(); errors.Is(err, http.ErrNotSupported) {
		return refusal{http.StatusNotImplemented, "This server can't send events."}
	}
	return v.stream(out, fragment, ended)
}

// stream sends events until the reader goes, the page is closed, or what it shows ends.
func (v *visit) stream(out *http.ResponseController, fragment func() ([]byte, error), ended func() bool) error {
	timer := time.NewTimer(streamFor)
	defer timer.Stop()
	defer func() { _ = out.SetWriteDeadline(time.Time{}) }()
	var sent []byte
	for {
		next, last := v.h.sampler.wait(), ended()
		part, err := fragment()
		if err != nil {
			part = nil // it is gone: the page that is asked for again says why
			last = true
		}
		var b bytes.Buffer
		if part != nil && !bytes.Equal(part, sent) {
			sent = part
			event(&b, "part", part)
		} else {
			b.WriteString(":\n\n")
		}
		if last {
			event(&b, "end", nil)
		}
		_ = out.SetWriteDeadline(time.Now().Add(writeFor))
		if _, err := v.w.Write(b.Bytes()); err != nil || last {
			return nil
		}
		if err := out.Flush(); err != nil {
			return nil
		}
		select {
		case <-next:
		case <-timer.C:
			return nil // it comes again
		case <-v.r.Context().Done():
			return nil
		case <-v.h.life.Done():
			return nil
		}
	}
}

// event writes one event.
func event(b *bytes.Buffer, name string, data []byte) {
	fmt.Fprintf(b, "event: %s\n", name)
	for line := range bytes.Lines(data) {
		fmt.Fprintf(b, "data: %s\n", bytes.TrimRight(line, "\r\n"))
	}
	b.WriteString("data: \n\n")
}

// livePart returns what renders the part of a page that changes, and what says whether it
// has ended.
func (v *visit) livePart() (fragment func() ([]byte, error), ended func() bool) {
	rendered := func(template string, page any) ([]byte, error) {
		var b bytes.Buffer
		err := v.h.pages.ExecuteTemplate(&b, template, page)
		return b.Bytes(), err
	}
	if v.r.Form.Get("page") == "queue" {
		return func() ([]byte, error) {
			at, err := v.place()
			if err != nil {
				return nil, err
			}
			p, err := v.queueOf(at)
			if err != nil {
				return nil, err
			}
			return rendered("live-queue", &p)
		}, func() bool { return v.over(v.r.Form.Get("topic")) }
	}
	if v.r.Form.Get("page") == "job" {
		return func() ([]byte, error) {
			at, err := v.place()
			if err != nil {
				return nil, err
			}
			return rendered("job", v.jobAside(at))
		}, func() bool { return v.over(v.r.Form.Get("topic")) }
	}
	return func() ([]byte, error) { return rendered("live-flow", v.flowPage()) }, func() bool { return v.over("") }
}

// over reports whether a topic has ended, or all have.
func (v *visit) over(topic string) bool {
	for _, t := range v.h.topics {
		if topic != "" && topic != t.Name() {
			continue
		}
		select {
		case <-t.Done():
		default:
			return false
		}
	}
	return len(v.h.topics) > 0
}
