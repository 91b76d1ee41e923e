package notice

import (
	"context"
	"time"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
)

// messageKey is the key of the message that a log line is about.
type messageKey struct{}

// MessageOf returns the message that a log line is about, whose context is given; nil if it
// is about none.
func MessageOf(ctx context.Context) intercept.About {
	a, _ := ctx.Value(messageKey{}).(intercept.About)
	return a
}

// logContext is the context of an event's log line.
func logContext(e *Event) context.Context {
	if e.MessageID == "" {
		return context.Background()
	}
	l := &loggedMessage{messageID: e.MessageID, at: e.PublishedAt, number: e.Attempt}
	l.extra, _ = e.Message.(*message.Extra)
	return context.WithValue(context.Background(), messageKey{}, intercept.About(l))
}

// A loggedMessage is what a log line knows of a message.
type loggedMessage struct {
	messageID string
	at        time.Time
	number    int
	extra     *message.Extra
}

func (l *loggedMessage) Count() int { return 1 }

func (l *loggedMessage) Body(int) any { return nil }

func (l *loggedMessage) ID(int) string { return l.messageID }

func (l *loggedMessage) Ext(int) *message.Extra { return l.extra }

func (l *loggedMessage) Attempt(int) int { return l.number }

func (l *loggedMessage) PublishedAt(int) time.Time { return l.at }

func (l *loggedMessage) Set(int, string, string) bool { return false }
