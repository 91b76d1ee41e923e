package fakeaws

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// The region and account of what [New] and [Start] return, unless options say
// otherwise.
const (
	DefaultRegion  = "us-east-1"
	DefaultAccount = "123456789012"
)

// TB is what [New] needs of a test. [testing.T], [testing.B] and [testing.F]
// have it.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// AWS is a fake of Amazon SQS and SNS, seen from one region and one account.
// [AWS.In] and [AWS.Account] give other views of the same fake. All methods may
// be called concurrently.
type AWS struct {
	cloud   *cloud
	region  string
	account string

	sqsOnce sync.Once
	sqs     *sqs.Client
	snsOnce sync.Once
	sns     *sns.Client
}

// New returns a fake with no queues and no topics, which ends with the test.
func New(t TB, options ...Option) *AWS {
	t.Helper()
	a, err := start(options)
	if err != nil {
		t.Fatalf("%v", err)
	}
	a.cloud.tb = t
	t.Cleanup(a.Close)
	return a
}

// Start returns a fake that lives until [AWS.Close]. Tests call [New]; Start is
// for programs, as cmd/fakeaws. It returns an error for an invalid option.
func Start(options ...Option) (*AWS, error) { return start(options) }

func start(options []Option) (*AWS, error) {
	s := settings{region: DefaultRegion, account: DefaultAccount}
	for _, o := range options {
		if err := o(&s); err != nil {
			return nil, err
		}
	}
	c := &cloud{settings: s, began: time.Now()}
	c.closed = make(chan struct{})
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.http.Transport = (*transport)(c)
	return &AWS{cloud: c, region: s.region, account: s.account}, nil
}

// Close ends the fake: long polls in flight and all later requests fail, and
// what the fake still had to do is dropped. It ends the contexts of the handlers
// and functions that the fake is calling, and waits until they have returned:
// they must not call it. Calling it again only waits. [New] has it called at the
// end of the test.
func (a *AWS) Close() { a.cloud.close() }

// In returns a view of the same fake in another region. A name that cannot be a
// region's ends the test, or panics outside of one.
func (a *AWS) In(region string) *AWS {
	if !regionPattern.MatchString(region) {
		a.refuse("fakeaws: In(%q): want a region such as us-east-1", region)
	}
	return &AWS{cloud: a.cloud, region: region, account: a.account}
}

// Account returns a view of the same fake for another account, named by its
// number of twelve digits. Another id ends the test, or panics outside of one.
func (a *AWS) Account(id string) *AWS {
	if !accountPattern.MatchString(id) {
		a.refuse("fakeaws: Account(%q): want twelve digits", id)
	}
	return &AWS{cloud: a.cloud, region: a.region, account: id}
}

// refuse ends the test for a mistake in its own code, or panics.
func (a *AWS) refuse(format string, args ...any) {
	if t := a.cloud.tb; t != nil {
		t.Helper()
		t.Fatalf(format, args...)
	}
	panic(fmt.Sprintf(format, args...))
}

// SQS returns a client of SQS for the region and account of the view. It is
// made once for each view.
func (a *AWS) SQS() *sqs.Client {
	a.sqsOnce.Do(func() { a.sqs = sqs.NewFromConfig(a.Config()) })
	return a.sqs
}

// SNS returns a client of SNS for the region and account of the view. It is
// made once for each view.
func (a *AWS) SNS() *sns.Client {
	a.snsOnce.Do(func() { a.sns = sns.NewFromConfig(a.Config()) })
	return a.sns
}

// Config returns a finished configuration, for programs that make their own
// clients: region, credentials, HTTP client and endpoint are set. It reads
// neither environment nor files. Clients of services other than SQS and SNS
// that are made from it get an error which says so.
func (a *AWS) Config() aws.Config {
	return aws.Config{
		Region:       a.region,
		Credentials:  credentials(a.account),
		HTTPClient:   a.HTTPClient(),
		BaseEndpoint: aws.String(inProcessEndpoint),
	}
}

// HTTPClient returns a client whose requests are answered by the fake, in
// process: those of SDK clients and those for every URL that the fake hands
// out. It never opens a connection.
func (a *AWS) HTTPClient() *http.Client { return &a.cloud.http }

// Handler returns the fake as an [http.Handler], for programs in other
// processes and languages. Requests without credentials, and those whose
// credentials name no account, are answered for the account of [New]. URLs
// that it hands out have the host of the request. Over a socket time is real:
// synctest cannot help there.
func (a *AWS) Handler() http.Handler { return (*handler)(a.cloud) }

// inProcessEndpoint is where SDK clients send their requests. The name can
// never be resolved: a client that does not use the fake's HTTP client fails.
const inProcessEndpoint = "http://fakeaws.invalid"

// accessKeyPrefix begins the access keys of the fake. The account follows.
const accessKeyPrefix = "FAKEAWS"

// staticCredentials are credentials whose access key names the account.
type staticCredentials aws.Credentials

// Retrieve implements [aws.CredentialsProvider].
func (c staticCredentials) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials(c), nil
}

func credentials(account string) aws.CredentialsProvider {
	return staticCredentials{AccessKeyID: accessKeyPrefix + account, SecretAccessKey: "fake", Source: "fakeaws", AccountID: account}
}
