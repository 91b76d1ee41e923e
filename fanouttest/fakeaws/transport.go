package fakeaws

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// errClosed is what requests get after [AWS.Close].
var errClosed error = closedError{}

// A closedError is no lost connection: the SDK, which takes CanceledError for the caller's
// own end, must not wait and try again. At the end of a synctest bubble it would for ever.
type closedError struct{}

func (closedError) Error() string       { return "fakeaws: closed" }
func (closedError) CanceledError() bool { return true }

// mostBody is how long a request may be: a little more than a batch of 1 MiB in
// which every byte is escaped.
const mostBody = 16 << 20

// A request is what came, whatever way.
type request struct {
	method string
	url    *url.URL
	host   string
	header http.Header
	body   []byte
	base   string // see call.base
}

// A response is what goes back.
type response struct {
	status int
	header http.Header
	body   []byte
}

// transport is the cloud as an [http.RoundTripper].
type transport cloud

// RoundTrip answers a request in the goroutine of its caller.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	c := (*cloud)(t)
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(io.LimitReader(r.Body, mostBody+1))
		r.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	out, err := c.serve(r.Context(), request{method: r.Method, url: r.URL, host: r.URL.Host, header: r.Header, body: body})
	if err != nil {
		return nil, err
	}
	return &http.Response{
		Status: strconv.Itoa(out.status) + " " + http.StatusText(out.status), StatusCode: out.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: out.header, Body: io.NopCloser(bytes.NewReader(out.body)), ContentLength: int64(len(out.body)), Request: r,
	}, nil
}

// handler is the cloud as an [http.Handler].
type handler cloud

// ServeHTTP answers a request that came through a socket.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := (*cloud)(h)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody+1))
	if err != nil && len(body) <= mostBody {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	out, err := c.serve(r.Context(), request{method: r.Method, url: r.URL, host: r.Host, header: r.Header, body: body, base: scheme + r.Host})
	if err != nil {
		// The connection is lost, as a fault or the caller wants it.
		panic(http.ErrAbortHandler)
	}
	for name, values := range out.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(out.body)))
	w.WriteHeader(out.status)
	_, _ = w.Write(out.body)
}

// serve answers one request. An error means that there is no answer: the
// connection is lost.
func (c *cloud) serve(ctx context.Context, r request) (response, error) {
	if err := ctx.Err(); err != nil {
		return response{}, err
	}
	select {
	case <-c.closed:
		return response{}, errClosed
	default:
	}
	k := &call{cloud: c, ctx: ctx, requestID: newID(), base: r.base, now: time.Now()}
	began := k.now
	out, err := k.serve(r)
	c.log(k.warnings...)
	if c.observe != nil && k.operation != "" {
		if err != nil {
			k.failed = err
		}
		told := Call{Operation: k.operation, Resource: k.resource, Region: k.place.region, Account: k.place.account, Time: began, Took: time.Since(began)}
		if k.failed != nil {
			told.Error = k.failed.Error()
		}
		c.observe(told)
	}
	return out, err
}

// serve answers the request that the call is for.
func (c *call) serve(r request) (response, error) {
	service := c.identify(r)
	if len(r.body) > mostBody {
		return c.unsupported(r, errSerialization.with("The request is longer than %d bytes.", mostBody)), nil
	}
	if target, ok := strings.CutPrefix(r.header.Get("X-Amz-Target"), sqsTarget); ok {
		return c.serveJSON(target, r)
	}
	if r.header.Get("X-Amz-Target") != "" || service != "" && service != "sns" && service != "sqs" {
		return c.unsupported(r, errUnknownOperation.with("fakeaws serves SQS and SNS; it does not know the service of this request (%s %s).", service, r.header.Get("X-Amz-Target"))), nil
	}
	form, err := formOf(r)
	if err != nil {
		return c.answerQuery(nil, errSerialization.with("The request is no form: %v.", err)), nil
	}
	if form.Get("Action") == "" {
		if out, ok := c.serveURL(r); ok {
			return out, nil
		}
	}
	if service == "sqs" {
		return c.answerQuery(nil, errUnknownOperation.with("fakeaws serves SQS in the AWS JSON protocol only; this request (Action %s) is in the Query protocol of older SDKs.", form.Get("Action"))), nil
	}
	return c.serveQuery(form)
}

// formOf reads the parameters of a request in the Query protocol, which may be
// in the body or in the URL.
func formOf(r request) (url.Values, error) {
	form, err := url.ParseQuery(r.url.RawQuery)
	if err != nil {
		return nil, err
	}
	if r.method != http.MethodPost || !strings.HasPrefix(r.header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return form, nil
	}
	body, err := url.ParseQuery(string(r.body))
	if err != nil {
		return nil, err
	}
	for name, values := range body {
		form[name] = append(form[name], values...)
	}
	return form, nil
}

// identify finds out who calls, and where: from the credential scope of the
// signature, AccessKey/20261127/us-east-1/sqs/aws4_request. Signatures are not
// checked. It returns the service that the request was signed for, if any.
func (c *call) identify(r request) (service string) {
	c.place = place{account: c.settings.account, region: c.settings.region}
	_, scope, ok := strings.Cut(r.header.Get("Authorization"), "Credential=")
	if !ok {
		scope = r.url.Query().Get("X-Amz-Credential")
	}
	scope, _, _ = strings.Cut(scope, ",")
	parts := strings.Split(strings.TrimSpace(scope), "/")
	if len(parts) != 5 {
		c.anonymous = true
		return ""
	}
	if id := strings.TrimPrefix(parts[0], accessKeyPrefix); accountPattern.MatchString(id) {
		c.place.account = id
	}
	if parts[2] != "" {
		c.place.region = parts[2]
	}
	return parts[3]
}

// unsupported answers a request that is of no protocol that the fake speaks, in
// a way that the SDKs of most services can read.
func (c *call) unsupported(r request, e *apiError) response {
	kind := r.header.Get("Content-Type")
	switch {
	case strings.HasPrefix(kind, "application/x-amz-json"), r.header.Get("X-Amz-Target") != "":
		return c.answerJSON(nil, e, true)
	case strings.HasPrefix(kind, "application/x-www-form-urlencoded"):
		return c.answerQuery(nil, e)
	}
	header := http.Header{"Content-Type": {"application/xml"}, "X-Amzn-Errortype": {e.queryCode()}, "X-Amzn-Requestid": {c.requestID}}
	return response{status: e.httpStatus(), header: header,
		body: fmt.Appendf(nil, "<Error><Code>%s</Code><Message>%s</Message><RequestId>%s</RequestId></Error>", e.queryCode(), escapeXML(e.message), c.requestID)}
}
