package fanoutweb

import (
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/gofanout/fanout"
)

// A Handler serves the page of some topics. [New] makes it. All methods may be called concurrently.
type Handler struct {
	options Options
	topics  []fanout.TopicView
	pages   *template.Template
	routes  map[string]route
	sampler *sampler
	jobs    *jobs
	stacks  stackLimit
	readers chan struct{} // one for each live page

	life context.Context // ended by Close
	stop context.CancelFunc
}

// A route is what is at one path, for one method.
type route struct {
	method string
	serve  func(*visit) error
}

// New returns a page of topics, which may be none. It does no I/O and starts nothing. It
// returns an error that wraps [fanout.ErrInvalidOption] for a nil topic, two topics of one name,
// or a negative MostReaders.
func New(o Options, topics ...fanout.AnyTopic) (*Handler, error) {
	if o.MostReaders < 0 {
		return nil, fmt.Errorf("%w: Options.MostReaders %d: want 1 or more, or 0 for the default", fanout.ErrInvalidOption, o.MostReaders)
	}
	if o.MostReaders == 0 {
		o.MostReaders = 32
	}
	if o.Title == "" {
		o.Title = "fanout"
	}
	if o.Allow == nil {
		o.Allow = func(_ *http.Request, a Access) bool { return a.Action == View }
	}
	if o.CrossOrigin == nil {
		o.CrossOrigin = http.NewCrossOriginProtection()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	h := &Handler{options: o, readers: make(chan struct{}, o.MostReaders)}
	h.life, h.stop = context.WithCancel(context.Background())
	for k, t := range topics {
		if t == nil {
			return nil, fmt.Errorf("%w: fanoutweb.New with topic %d of %d nil", fanout.ErrInvalidOption, k+1, len(topics))
		}
		v := t.View()
		if h.topic(v.Name()) != nil {
			return nil, fmt.Errorf("%w: fanoutweb.New with two topics named %q", fanout.ErrInvalidOption, v.Name())
		}
		h.topics = append(h.topics, v)
	}
	h.pages = parsePages()
	h.sampler = newSampler(h.life, h.topics)
	h.jobs = newJobs(h.life)
	h.routes = map[string]route{
		"":          {"GET", (*visit).flow},
		"queue":     {"GET", (*visit).queuePage},
		"letters":   {"GET", (*visit).letters},
		"letter":    {"GET", (*visit).letter},
		"confirm":   {"GET", (*visit).confirm},
		"act":       {"POST", (*visit).act},
		"cancel":    {"POST", (*visit).cancel},
		"events":    {"GET", (*visit).events},
		"style.css": {"GET", asset("style.css", "text/css; charset=utf-8")},
		"script.js": {"GET", asset("script.js", "text/javascript; charset=utf-8")},
		"icon.svg":  {"GET", asset("icon.svg", "image/svg+xml")},
	}
	return h, nil
}

// Close ends all live pages and cancels what is still being done, and returns when that
// has ended. Requests that come later get 503. It may be called again. Give it to
// [http.Server.RegisterOnShutdown]: without it Shutdown waits for live pages for ever.
func (h *Handler) Close() {
	h.stop()
	h.sampler.close()
	h.jobs.close()
}

// topic returns the topic of a name, nil if there is none.
func (h *Handler) topic(name string) fanout.TopicView {
	for _, t := range h.topics {
		if t.Name() == name {
			return t
		}
	}
	return nil
}

// policy lets a page load its own style and script, talk to its own origin, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP serves the page at the last element of the request's path.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Cache-Control", "no-store")
	head.Set("Content-Security-Policy", policy)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Frame-Options", "DENY")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Vary", "Accept")
	v := &visit{h: h, w: w, r: r, json: wantsJSON(r)}
	if err := v.serve(); err != nil {
		v.fail(err)
	}
}

func (v *visit) serve() error {
	path := v.r.URL.Path
	at, found := v.h.routes[path[strings.LastIndexByte(path, '/')+1:]]
	method := v.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	switch {
	case v.h.life.Err() != nil:
		return refusal{http.StatusServiceUnavailable, "This page is closed: the program is shutting down."}
	case !found:
		return refusal{http.StatusNotFound, "There is no such page."}
	case method != at.method:
		v.w.Header().Set("Allow", at.method)
		return refusal{http.StatusMethodNotAllowed, "This page takes " + at.method + " only, not " + strconv.Quote(v.r.Method) + "."}
	case method == http.MethodPost:
		if err := v.h.options.CrossOrigin.Check(v.r); err != nil {
			return refusal{http.StatusForbidden, "This request comes from another site. Use the buttons of the page itself."}
		}
		v.r.Body = http.MaxBytesReader(v.w, v.r.Body, mostForm)
	}
	if err := v.r.ParseForm(); err != nil {
		return refusal{http.StatusBadRequest, "The request can't be read: " + err.Error() + "."}
	}
	return at.serve(v)
}

// mostForm is how many bytes a form may have: a thousand letters are chosen with less.
const mostForm = 1 << 20

// wantsJSON reports whether a request prefers JSON: it names it, and no HTML.
func wantsJSON(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}
