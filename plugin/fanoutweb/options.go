// Package fanoutweb is a page that shows topics, their queues and their dead letters in a
// browser, and mends what is broken: pause, resume, redrive, delete, purge, and the stack
// of a handler that doesn't return.
//
//	page, err := fanoutweb.New(fanoutweb.Options{Allow: allow}, orders, payments)
//	mux.Handle("/queues/", page)                  // behind your own authentication
//	server.RegisterOnShutdown(page.Close)         // ends live pages
//
// The page is an [http.Handler] for a path that ends with a slash. It uses relative links
// only, so that it works below any prefix, with or without [http.StripPrefix], and behind proxies.
// It needs no other files, loads nothing from elsewhere, and works without JavaScript.
//
// # Who may do what
//
// The page knows no users. [Options].Allow is asked for each [Action], whether a request may do it with a
// queue. Without it everybody who reaches the page sees names, counters, and the
// causes that attempts ended with, and can do nothing: no bodies, IDs, attributes, error
// texts or stacks. Mount it behind your authentication, or on a loopback address.
//
// What a browser sends to change something has to come from the page itself, as
// [http.CrossOriginProtection] checks it. No answer may be stored, framed, or load anything from elsewhere.
//
// # What it costs
//
// Nothing while nobody looks: no goroutine, no timer, no hook. With the first reader one
// goroutine begins to read the counters of all queues, once a second for all
// readers together, and hooks hear of messages that die. They end a minute after the last. After a
// redrive it is heard for a minute what dies again. Rates and charts are differences
// between these looks, and go back ten minutes at most.
//
// Numbers that refresh come from counters. Messages are looked at when a reader asks for
// them, in bounded parts, by [github.com/gofanout/fanout.QueueView].
//
// # JSON
//
// Each page answers in JSON to a request with "Accept: application/json". Names that are
// documented in internal/docs/page.md do not change within a version.
package fanoutweb

import (
	"log/slog"
	"net/http"
	"time"
)

// An Action is something that a request may be allowed.
type Action string

// The actions. Each also shows what it needs: who may Redrive, but not Body, chooses letters
// by cause and age.
const (
	// View shows names, counters, options in force, and causes of failed attempts.
	View Action = "view"
	// Body shows bodies, IDs, ordering keys, attributes and error texts.
	Body Action = "body"
	// Stack shows the stacks of panics, and those of handlers that are running. The latter
	// makes a profile of all goroutines, at most once in five seconds, which stops the world
	// for a moment.
	Stack Action = "stack"
	// Sample receives dead letters from an engine to show them, and gives them back, which
	// raises their receive counts. In memory it isn't asked for.
	Sample Action = "sample"
	// Pause, Resume, Redrive and Purge are the methods of [github.com/gofanout/fanout.QueueView], Delete is
	// DeleteLetters. A redrive that waits for room can be cancelled by who may Redrive.
	Pause   Action = "pause"
	Resume  Action = "resume"
	Redrive Action = "redrive"
	Delete  Action = "delete"
	Purge   Action = "purge"
)

// An Access is what a request asks for: an action with a queue of a topic. For a dead-letter
// queue, Queue is the queue that the letters come from. It is empty for View of the topic alone.
type Access struct {
	Action       Action
	Topic, Queue string
}

// AllowAll allows everything to everybody. Give it to [Options].Allow only where nobody else gets to
// the page: on a loopback address of your own machine.
func AllowAll(*http.Request, Access) bool { return true }

// A Text is something that a message holds, before it is shown, searched or told.
type Text struct {
	Topic, Queue string
	// Kind is "body", "attribute", "ordering key", "error" or "stack".
	Kind string
	// Name is the attribute's name, else empty.
	Name string
	Text string
}

// An Entry is what the audit hook hears: of each action that changes something or costs
// something (all but View and Body), once before it is done and once after.
type Entry struct {
	Time    time.Time
	Request *http.Request // that asked for it: who it was is in its context or headers
	Access
	// Done is false before, and true after.
	Done bool
	// Letters is how the letters were chosen, such as `cause=panicked text="no such order"`,
	// empty if the action is not about letters. Its texts are redacted.
	Letters string
	// Count is how many messages are to be changed, then how many were.
	Count int
	// Err is why it failed, or did less than it was to.
	Err error
}

// Options say what a page shows, and to whom. The zero Options are safe: see the package.
type Options struct {
	// Title is the heading, "fanout" if it is empty.
	Title string
	// Allow reports whether a request may do what it asks for. It is called for each queue
	// that is shown, possibly by several goroutines; for a live page when that begins,
	// and again every five minutes. nil allows View alone.
	Allow func(r *http.Request, a Access) bool
	// Redact returns what is shown instead of a text. It is called before a text is shown,
	// searched, given as JSON or told to Audit, possibly by several goroutines. A panic in it is shown
	// as "redacted". nil changes nothing.
	Redact func(Text) string
	// Audit hears of actions, possibly from several goroutines. What is to be done waits for
	// it, and is not done if it panics.
	Audit func(Entry)
	// CrossOrigin checks requests that change something. nil is a new one of net/http, which
	// trusts no other origin.
	CrossOrigin *http.CrossOriginProtection
	// Logger is told of faults of the page itself, and of actions that failed. nil is
	// slog.Default().
	Logger *slog.Logger
	// MostReaders is how many live pages there may be at once, 32 if it is 0. Further
	// readers' pages ask for themselves again every five seconds.
	MostReaders int
}
