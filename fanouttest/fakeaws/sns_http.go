package fakeaws

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// An endpoint is what takes the deliveries to a URL and to those below it.
type endpoint struct {
	handler     http.Handler
	autoConfirm bool
}

// An EndpointOption changes what [AWS.Endpoint] does.
type EndpointOption func(*endpoint)

// AutoConfirm makes subscriptions of the endpoint confirmed when they are made:
// the handler gets no SubscriptionConfirmation. The default is that the
// subscription waits until somebody confirms it, as in SNS.
func AutoConfirm() EndpointOption { return func(e *endpoint) { e.autoConfirm = true } }

// Endpoint has h called for what SNS delivers to an HTTP or HTTPS endpoint: to the URL, and
// to URLs below its path that have no handler of their own. The scheme and the host must be
// those of the subscription's endpoint. It applies to all accounts and regions, also for
// subscriptions that exist. A second call with the same URL replaces the handler, and nil
// removes it. A delivery to an endpoint without a handler fails like a refused connection
// and is tried again. A bad URL ends the test; outside of a test it panics.
//
// The handler is called in process, without a socket, in a goroutine of the fake, for
// several messages at once and in any order. It has 15 seconds; then its context ends, and
// the delivery is tried again. If it panics, or ends its goroutine as t.FailNow does, the
// delivery fails like a lost connection, and the test's log says so. [AWS.Close] waits for
// it.
func (a *AWS) Endpoint(rawURL string, h http.Handler, options ...EndpointOption) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		a.refuse("fakeaws: Endpoint(%q): want a URL such as https://shop.example/hook, without user, query and fragment", rawURL)
		return
	}
	e := &endpoint{handler: h}
	for _, o := range options {
		o(e)
	}
	c := a.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	key := endpointKey(u) + strings.TrimSuffix(u.Path, "/")
	if h == nil {
		delete(c.endpoints, key)
		return
	}
	if c.endpoints == nil {
		c.endpoints = map[string]*endpoint{}
	}
	c.endpoints[key] = e
}

func endpointKey(u *url.URL) string { return u.Scheme + "://" + strings.ToLower(u.Host) }

// endpointLocked returns what takes deliveries to a URL, nil if there is nothing.
func (c *cloud) endpointLocked(u *url.URL) *endpoint {
	path := strings.TrimSuffix(u.Path, "/")
	for {
		if e := c.endpoints[endpointKey(u)+path]; e != nil {
			return e
		}
		k := strings.LastIndexByte(path, '/')
		if k < 0 {
			return nil
		}
		path = path[:k]
	}
}

// An httpDelivery is a message on its way to an HTTP endpoint.
//
// Its job is under way all the time, until it is delivered or fails for good.
// told is written under the cloud's lock, all else by one job after the other.
type httpDelivery struct {
	c        *call
	s        *subscription
	to       *url.URL
	told     *TopicDelivery
	message  envelope // if it is not raw
	raw      bool
	version  string  // of the signature
	letter   content // for the dead-letter queue; its body is what is sent
	header   http.Header
	policy   *deliveryPolicy
	failures int
}

// The types of what SNS sends.
const (
	typeNotification   = "Notification"
	typeConfirmation   = "SubscriptionConfirmation"
	typeUnsubscription = "UnsubscribeConfirmation"
)

func (s *subscription) overHTTP() bool { return s.protocol == "http" || s.protocol == "https" }

// postLocked begins to deliver a message to an HTTP endpoint.
func (c *call) postLocked(s *subscription, n *notification, told *TopicDelivery) {
	d := c.deliveryLocked(s, typeNotification, n.id, told)
	if d.raw = s.raw; d.raw {
		d.letter = s.contentOf(c, n)
	} else {
		d.message = s.envelopeOf(c, n)
	}
	d.header.Set("X-Amz-Sns-Subscription-Arn", s.arn)
	if d.raw {
		d.header.Set("X-Amz-Sns-Rawdelivery", "true")
	}
	d.header.Set("Content-Type", *d.policy.RequestPolicy.HeaderContentType)
	c.laterLocked(0, d.attempt)
}

// postConfirmationLocked sends what asks to confirm a subscription, or says
// that one has ended.
func (c *call) postConfirmationLocked(s *subscription, e envelope) {
	d := c.deliveryLocked(s, e.Type, e.MessageID, &TopicDelivery{})
	d.message = e
	if e.Type == typeUnsubscription {
		d.header.Set("X-Amz-Sns-Subscription-Arn", s.arn)
	}
	d.header.Set("Content-Type", defaultType)
	c.laterLocked(0, d.attempt)
}

func (c *call) deliveryLocked(s *subscription, kind, id string, told *TopicDelivery) *httpDelivery {
	to, _ := url.Parse(s.endpoint) // it was checked when it was subscribed
	told.Outcome = UnderWay
	h := http.Header{"User-Agent": {"Amazon Simple Notification Service Agent"}, "Accept-Encoding": {"gzip,deflate"}}
	h.Set("X-Amz-Sns-Message-Type", kind)
	h.Set("X-Amz-Sns-Message-Id", id)
	h.Set("X-Amz-Sns-Topic-Arn", s.topic.arn)
	return &httpDelivery{c: &call{cloud: c.cloud, place: s.topic.region.place, ctx: c.cloud.ctx, requestID: c.requestID, base: c.base},
		s: s, to: to, told: told, version: s.topic.signatureVersion(), header: h, policy: s.deliveryPolicy()}
}

// attempt makes the next attempt, when the subscription's throttle permits.
func (d *httpDelivery) attempt(ctx context.Context) {
	d.c.mu.Lock()
	if t := d.policy.ThrottlePolicy; t != nil {
		now := d.c.clock()
		free := max(d.s.free, now)
		d.s.free = free + time.Second/time.Duration(*t.MaxReceivesPerSecond)
		if free > now {
			d.c.laterLocked(free-now, d.send)
			d.c.mu.Unlock()
			return
		}
	}
	d.c.mu.Unlock()
	d.send(ctx)
}

// errPermanent marks failures after which SNS does not try again.
var errPermanent = errors.New("not tried again")

// send makes an attempt.
func (d *httpDelivery) send(ctx context.Context) {
	if !d.raw && d.failures == 0 { // not under the lock, since it takes a millisecond
		d.message.sign(d.version, d.c.snsURL(d.s.topic))
		d.letter.body = d.message.encode()
		d.letter.digest()
	}
	d.c.mu.Lock()
	d.told.Attempts++
	e := d.c.endpointLocked(d.to)
	d.c.mu.Unlock()
	began := time.Now()
	status, err := d.post(ctx, e)
	if ctx.Err() != nil {
		return // the fake is closed
	}
	if d.c.observe != nil {
		told := Call{Operation: "Deliver", Resource: d.to.Redacted(), Region: d.c.place.region, Account: d.c.place.account, Time: began, Took: time.Since(began)}
		if err != nil {
			told.Error = err.Error()
		}
		d.c.observe(told)
	}
	d.c.mu.Lock()
	d.settleLocked(status, err)
	d.c.mu.Unlock()
	d.c.log(d.c.warnings...)
	d.c.warnings = nil
}

// settleLocked ends an attempt.
func (d *httpDelivery) settleLocked(status int, err error) {
	d.told.Error = ""
	if err == nil {
		d.told.Outcome = Delivered
		return
	}
	d.told.Error = err.Error()
	retry := d.policy.HealthyRetryPolicy
	if d.failures++; !errors.Is(err, errPermanent) && d.failures <= *retry.NumRetries {
		d.c.laterLocked(retry.delay(d.failures-1), d.attempt)
		return
	}
	code := "ConnectionFailure"
	if status != 0 {
		code = strconv.Itoa(status)
	}
	if kind := d.header.Get("X-Amz-Sns-Message-Type"); kind != typeNotification {
		d.c.warnings = append(d.c.warnings, fmt.Sprintf("fakeaws: the %s of topic %s to %s was lost: %v", kind, d.s.topic.name, d.s.endpoint, err))
		return
	}
	d.c.failLocked(d.s, d.letter, code, err.Error(), d.told)
}

// post calls the endpoint once, or twice if it asks for a password.
func (d *httpDelivery) post(ctx context.Context, e *endpoint) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	w, err := d.call(ctx, e, "")
	if err == nil && w.asksForPassword() && d.to.User != nil {
		password, _ := d.to.User.Password()
		w, err = d.call(ctx, e, "Basic "+encodeBase64([]byte(d.to.User.Username()+":"+password)))
	}
	switch {
	case err != nil:
		return 0, err
	case w.status >= 200 && w.status < 300:
		return w.status, nil
	case w.status >= 500 || w.status == http.StatusTooManyRequests:
		return w.status, fmt.Errorf("it answered %d %s", w.status, http.StatusText(w.status))
	}
	return w.status, fmt.Errorf("it answered %d %s: %w", w.status, http.StatusText(w.status), errPermanent)
}

// call makes a request. A handler is called in a goroutine of its own, since SNS
// does not wait for one that takes too long.
func (d *httpDelivery) call(ctx context.Context, e *endpoint, authorization string) (*answer, error) {
	ended := make(chan error, 1)
	w := &answer{header: http.Header{}}
	switch {
	case e != nil:
		r := d.request(ctx, authorization)
		d.c.mu.Lock()
		d.c.laterLocked(0, func(context.Context) { d.c.handle(e.handler, w, r, ended) })
		d.c.mu.Unlock()
	case d.c.deliveries != nil:
		if err := d.exchange(ctx, w, authorization); ctx.Err() == nil {
			return w, err
		}
	default:
		return nil, fmt.Errorf("connection refused: no handler was given for %s, see AWS.Endpoint", d.to.Redacted())
	}
	select {
	case err := <-ended:
		return w, err
	case <-ctx.Done():
		return nil, fmt.Errorf("it did not answer within %v", deliveryTimeout)
	}
}

// exchange sends the request through the transport of [WithDeliveries].
func (d *httpDelivery) exchange(ctx context.Context, w *answer, authorization string) error {
	r := d.request(ctx, authorization)
	r.URL, r.RequestURI, r.RemoteAddr, r.TLS = &url.URL{Scheme: d.to.Scheme, Host: d.to.Host, Path: d.to.Path, RawPath: d.to.RawPath, RawQuery: d.to.RawQuery}, "", "", nil
	r.Header.Del("Content-Length") // the transport writes it
	out, err := d.c.deliveries.RoundTrip(r)
	if err != nil {
		return err
	}
	w.status, w.header = out.StatusCode, out.Header
	return out.Body.Close()
}

// handle calls a handler. It writes to ended whether the handler returned.
func (c *call) handle(h http.Handler, w *answer, r *http.Request, ended chan<- error) {
	result := errors.New("connection lost: the handler ended its goroutine")
	defer func() { ended <- result }()
	defer func() {
		if p := recover(); p != nil {
			result = fmt.Errorf("connection lost: the handler panicked: %v", p)
			if p != http.ErrAbortHandler {
				c.log(fmt.Sprintf("fakeaws: the handler of %s panicked: %v\n%s", r.Host, p, debug.Stack()))
			}
		}
	}()
	h.ServeHTTP(w, r)
	if w.status == 0 {
		w.status = http.StatusOK
	}
	result = nil
}

// request makes a request as a server has it.
func (d *httpDelivery) request(ctx context.Context, authorization string) *http.Request {
	r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: d.to.Path, RawPath: d.to.RawPath, RawQuery: d.to.RawQuery}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: d.header.Clone(), Body: io.NopCloser(bytes.NewReader([]byte(d.letter.body))), ContentLength: int64(len(d.letter.body)), Host: d.to.Host, RemoteAddr: "192.0.2.1:1234"}
	if r.URL.Path == "" {
		r.URL.Path = "/"
	}
	r.RequestURI = r.URL.RequestURI()
	r.Header.Set("Content-Length", strconv.Itoa(len(d.letter.body)))
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	if d.to.Scheme == "https" {
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: d.to.Hostname()}
	}
	return r.WithContext(ctx)
}

// An answer is what a handler answers. Only the status counts, and the header
// that asks for a password.
type answer struct {
	header http.Header
	status int
}

// asksForPassword says whether it is a challenge that SNS answers: it wants a
// realm.
func (w *answer) asksForPassword() bool {
	challenge := strings.ToLower(w.header.Get("Www-Authenticate"))
	return w.status == http.StatusUnauthorized && strings.HasPrefix(challenge, "basic ") && strings.Contains(challenge, "realm=")
}

// Header implements [http.ResponseWriter].
func (w *answer) Header() http.Header { return w.header }

// WriteHeader implements [http.ResponseWriter]. It panics for what is no status,
// as that of net/http does.
func (w *answer) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

// Write implements [http.ResponseWriter].
func (w *answer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(p), nil
}

// Flush implements [http.Flusher].
func (w *answer) Flush() { w.WriteHeader(http.StatusOK) }
