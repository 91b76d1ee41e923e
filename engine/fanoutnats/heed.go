package fanoutnats

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// A server does not answer what a client has no permission to send, nor does it let an
// answer come that the client has no permission to subscribe to. It says so beside, and
// the client's library keeps the last thing that a server has said so. Nor does it answer
// what it can't write to its disk: a server in this process says so in its log.

const (
	// firstLook is when a call that is not answered yet looks whether the server has
	// refused it, and lastLook how long it waits between looks in the end.
	firstLook = 10 * time.Millisecond
	lastLook  = 500 * time.Millisecond
)

// A watch looks now and then whether the server has refused messages to a subject, or a
// subscription, since it began. Its timer runs look; stop ends it.
type watch struct {
	engine   *Engine
	nc       *nats.Conn
	subjects []string
	writes   bool  // what is waited for is written to the server's disk
	before   error // what the server said last, before
	began    time.Time
	refused  func(error)

	mu      sync.Mutex // guards the fields below
	stopped bool
	wait    time.Duration
	timer   *time.Timer
}

// newWatch begins to look. It calls refused at most once, and not with a lock held.
func (e *Engine) newWatch(writes bool, refused func(error), subjects ...string) *watch {
	w := &watch{engine: e, nc: e.nc, subjects: subjects, writes: writes, before: e.nc.LastError(), began: time.Now(), refused: refused, wait: firstLook}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.wait, w.look)
	return w
}

func (w *watch) look() {
	err := w.nc.LastError()
	if !w.denies(err) {
		err = nil
		if w.writes {
			err = w.engine.settings.failures.Since(w.began)
		}
	}
	if err != nil {
		w.stop()
		w.refused(err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.wait = min(2*w.wait, lastLook)
		w.timer.Reset(w.wait)
	}
}

// denies reports whether err is the server's refusal of one of the subjects. The
// subscription for the answers to requests is made once for a connection, and so is
// refused once: it ends in "*", as no other one here does.
func (w *watch) denies(err error) bool {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return false
	}
	text := err.Error()
	if strings.Contains(text, `Subscription to "`+w.inboxes()) && strings.Contains(text, `.*"`) {
		return true
	}
	if err == w.before {
		return false
	}
	for _, s := range w.subjects {
		if strings.Contains(text, `"`+s+`"`) {
			return true
		}
	}
	return false
}

// inboxes is what the subjects of answers begin with.
func (w *watch) inboxes() string {
	if p := w.nc.Opts.InboxPrefix; p != "" {
		return p + "."
	}
	return nats.InboxPrefix
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}

// heed calls f, which sends something to subject and waits for the answer, and returns
// the server's reason if it refuses that, or can't do it.
func heed[T any](ctx context.Context, e *Engine, subject string, f func(context.Context) (T, error)) (T, error) {
	once, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := e.newWatch(true, cancel, subject)
	defer w.stop()
	v, err := f(once)
	if cause := context.Cause(once); err != nil && ctx.Err() == nil && cause != nil {
		err = cause
	}
	return v, err
}

// hears returns the server's reason if the client may not subscribe to answers.
func hears(ctx context.Context, nc *nats.Conn) error {
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return err
	}
	// It fails only if the connection is closed, and then it is gone too.
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.FlushWithContext(ctx); err != nil {
		return err
	}
	if err := nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+sub.Subject+`"`) {
		return err
	}
	return nil
}
