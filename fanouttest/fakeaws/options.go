package fakeaws

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"
)

// settings are what options write to.
type settings struct {
	region, account string
	staleDeletes    bool
	lostPolls       bool
	signedEnvelopes bool
	policyDelay     time.Duration
	deliveries      http.RoundTripper
	observe         func(Call)
}

// An Option configures a fake.
type Option func(*settings) error

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern  = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]$`)
)

// WithRegion sets the region of the view that [New] returns, and of requests
// that name none. The default is [DefaultRegion].
func WithRegion(region string) Option {
	return func(s *settings) error {
		if !regionPattern.MatchString(region) {
			return fmt.Errorf("fakeaws: WithRegion(%q): want a region such as us-east-1", region)
		}
		s.region = region
		return nil
	}
}

// WithAccount sets the account of the view that [New] returns, and of requests
// that name none. The default is [DefaultAccount].
func WithAccount(id string) Option {
	return func(s *settings) error {
		if !accountPattern.MatchString(id) {
			return fmt.Errorf("fakeaws: WithAccount(%q): want twelve digits", id)
		}
		s.account = id
		return nil
	}
}

// WithStaleDeletes makes a DeleteMessage in a standard queue delete the message
// also if its receipt handle is not that of the last receive. SQS says that the
// message might not be deleted then; the default is that it is not.
func WithStaleDeletes() Option {
	return func(s *settings) error { s.staleDeletes = true; return nil }
}

// WithLostPolls makes a long poll whose caller has gone away take messages
// until its wait would have ended, as SQS does: they are in flight, and nobody
// has them. The default is that it takes none.
func WithLostPolls() Option {
	return func(s *settings) error { s.lostPolls = true; return nil }
}

// WithSignedEnvelopes has the envelopes of messages in queues signed, as those
// of HTTP deliveries always are. In SNS all are signed; the default is without,
// since a signature takes about a millisecond and few consumers of queues look
// at it.
func WithSignedEnvelopes() Option {
	return func(s *settings) error { s.signedEnvelopes = true; return nil }
}

// WithFilterPolicyDelay makes changes of a subscription's filter policy, and of
// its scope, hold after a delay; until then the one before it holds. In SNS that
// takes up to 15 minutes. The default is 0: a change holds at once. The policy
// that a subscription is made with always does. It returns an error for a
// negative delay.
func WithFilterPolicyDelay(d time.Duration) Option {
	return func(s *settings) error {
		if d < 0 {
			return fmt.Errorf("fakeaws: WithFilterPolicyDelay(%v): want 0 or more", d)
		}
		s.policyDelay = d
		return nil
	}
}

// WithDeliveries has what SNS delivers to HTTP and HTTPS endpoints sent through
// a transport, if [AWS.Endpoint] gave no handler for them. [http.DefaultTransport]
// opens connections, so that time must be real. The transport must end with the
// request's context, and may be used concurrently. The default is that such
// deliveries fail. It returns an error for nil.
func WithDeliveries(through http.RoundTripper) Option {
	return func(s *settings) error {
		if through == nil {
			return errors.New("fakeaws: WithDeliveries(nil): want a transport")
		}
		s.deliveries = through
		return nil
	}
}

// WithObserver has f called after each call, without a lock, in the goroutine
// of the caller, possibly concurrently; and after each run of a Lambda function
// and each attempt to deliver to an HTTP endpoint, in a goroutine of the fake.
func WithObserver(f func(Call)) Option {
	return func(s *settings) error {
		if f == nil {
			return errors.New("fakeaws: WithObserver(nil): want a function")
		}
		s.observe = f
		return nil
	}
}

// A Call is what an observer is told of one call.
type Call struct {
	// Operation is the operation's name, such as SendMessage; Invoke for the run
	// of a function, Deliver for an attempt to deliver to an HTTP endpoint.
	Operation string
	// Resource is the name of the queue, topic or function that it was about, if
	// any; of Deliver it is the endpoint, without its password.
	Resource string
	// Region and Account are the caller's.
	Region, Account string
	// Time is when the call came, and Took how long it took.
	Time time.Time
	Took time.Duration
	// Error is the code and message of the answer, empty if all went well.
	Error string
}
