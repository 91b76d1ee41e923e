package fakeaws_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// A hook is a handler that keeps what comes, and answers what it is told.
type hook struct {
	mu       sync.Mutex
	began    time.Time
	requests []*http.Request
	bodies   []map[string]string // of what is not raw
	raw      []string
	at       []time.Duration // since began
	answer   func(n int, w http.ResponseWriter, r *http.Request)
}

func newHook(answer func(n int, w http.ResponseWriter, r *http.Request)) *hook {
	return &hook{began: time.Now(), answer: answer}
}

// status is an answer.
func status(codes ...int) func(int, http.ResponseWriter, *http.Request) {
	return func(n int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(codes[min(n, len(codes)-1)]) }
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	n := len(h.requests)
	h.requests = append(h.requests, r)
	h.raw = append(h.raw, string(body))
	h.at = append(h.at, time.Since(h.began))
	var fields map[string]any
	_ = json.Unmarshal(body, &fields) // raw messages are no JSON
	texts := map[string]string{}
	for name, v := range fields {
		texts[name] = fmt.Sprint(v)
	}
	h.bodies = append(h.bodies, texts)
	h.mu.Unlock()
	if h.answer != nil {
		h.answer(n, w, r)
	}
}

const hookURL = "https://shop.example/hook"

func subscribeHTTP(t testing.TB, a *fakeaws.AWS, topic, endpoint string, attributes ...string) string {
	t.Helper()
	scheme, _, _ := strings.Cut(endpoint, ":")
	out, err := a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: &scheme, Endpoint: &endpoint, Attributes: pairs(attributes), ReturnSubscriptionArn: true})
	require.NoError(t, err)
	return *out.SubscriptionArn
}

// verify checks a message as AWS's documentation tells receivers to, from
// scratch.
func verify(client *http.Client, roots *x509.CertPool, m map[string]string) error {
	u, err := url.Parse(m["SigningCertURL"])
	if err != nil {
		return err
	}
	if u.Scheme != "https" || !regexp.MustCompile(`^sns\.[a-z0-9-]{3,}\.amazonaws\.com$`).MatchString(u.Host) || !strings.HasSuffix(u.Path, ".pem") {
		return fmt.Errorf("a certificate of %s is not SNS's", u)
	}
	r, err := client.Get(u.String())
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		return fmt.Errorf("%d: %w", r.StatusCode, err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("no PEM: %s", text)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: u.Host}); err != nil {
		return err
	}
	names := []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	if m["Type"] != "Notification" {
		names = []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	}
	var signed bytes.Buffer
	for _, name := range names {
		if value, ok := m[name]; ok {
			signed.WriteString(name + "\n" + value + "\n")
		}
	}
	signature, err := base64.StdEncoding.DecodeString(m["Signature"])
	if err != nil {
		return err
	}
	key := certificate.PublicKey.(*rsa.PublicKey)
	algorithm := map[string]x509.SignatureAlgorithm{"1": x509.SHA1WithRSA, "2": x509.SHA256WithRSA}[m["SignatureVersion"]]
	if err := certificate.CheckSignature(algorithm, signed.Bytes(), signature); err != nil { // the shorter way
		return err
	}
	if m["SignatureVersion"] == "2" {
		sum := sha256.Sum256(signed.Bytes())
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature)
	}
	sum := sha1.Sum(signed.Bytes())
	return rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], signature)
}

// A handler as a real service has it: it verifies, confirms and takes.
func TestAnHTTPEndpointVerifiesConfirmsAndIsNotified(t *testing.T) {
	for _, version := range []string{"1", "2"} {
		bubble(t, func(t *testing.T, a *fakeaws.AWS) {
			a = a.In("eu-west-1")
			topic := newTopic(t, a, "orders", "SignatureVersion", version)
			h := newHook(nil)
			h.answer = func(n int, w http.ResponseWriter, r *http.Request) {
				m := h.bodies[n]
				if err := verify(a.HTTPClient(), a.SigningRoots(), m); err != nil {
					t.Error(err)
					http.Error(w, err.Error(), http.StatusForbidden)
					return
				}
				if m["Type"] == "SubscriptionConfirmation" {
					answer, err := a.HTTPClient().Get(m["SubscribeURL"])
					if err != nil || answer.StatusCode != http.StatusOK {
						t.Errorf("%v %+v", err, answer)
					}
				}
			}
			a.Endpoint(hookURL, h)
			in := &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("https"), Endpoint: aws.String(hookURL + "?key=1")}
			out, err := a.SNS().Subscribe(t.Context(), in)
			require.NoError(t, err)
			require.Equal(t, "pending confirmation", *out.SubscriptionArn)
			require.NoError(t, a.WaitQuiet(t.Context()))
			published := publish(t, a, topic, "m <1>", func(in *sns.PublishInput) {
				in.Subject = aws.String("an order")
				in.MessageAttributes = map[string]snstypes.MessageAttributeValue{"region": text("eu")}
			})
			require.NoError(t, a.WaitQuiet(t.Context()))
			list, err := a.SNS().ListSubscriptionsByTopic(t.Context(), &sns.ListSubscriptionsByTopicInput{TopicArn: &topic})
			require.NoError(t, err)
			arn := *list.Subscriptions[0].SubscriptionArn

			require.Len(t, h.requests, 2)
			confirmation, notification := h.requests[0], h.requests[1]
			for k, r := range h.requests {
				require.Equal(t, http.MethodPost, r.Method)
				require.Equal(t, "shop.example", r.Host)
				require.Equal(t, "/hook?key=1", r.RequestURI)
				require.Equal(t, "/hook", r.URL.Path)
				require.NotNil(t, r.TLS)
				require.Equal(t, "text/plain; charset=UTF-8", r.Header.Get("Content-Type"))
				require.Equal(t, "Amazon Simple Notification Service Agent", r.Header.Get("User-Agent"))
				require.Equal(t, h.bodies[k]["Type"], r.Header.Get("x-amz-sns-message-type"))
				require.Equal(t, h.bodies[k]["MessageId"], r.Header.Get("x-amz-sns-message-id"))
				require.Equal(t, topic, r.Header.Get("x-amz-sns-topic-arn"))
				require.Empty(t, r.Header.Get("x-amz-sns-rawdelivery"))
				require.Equal(t, int64(len(h.raw[k])), r.ContentLength)
			}
			require.Empty(t, confirmation.Header.Get("x-amz-sns-subscription-arn"))
			require.Equal(t, arn, notification.Header.Get("x-amz-sns-subscription-arn"))
			c, n := h.bodies[0], h.bodies[1]
			require.Equal(t, "SubscriptionConfirmation", c["Type"])
			require.Equal(t, "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn="+topic+"&Token="+c["Token"], c["SubscribeURL"])
			require.Equal(t, "You have chosen to subscribe to the topic "+topic+".\nTo confirm the subscription, visit the SubscribeURL included in this message.", c["Message"])
			require.Equal(t, map[string]string{"Type": "Notification", "MessageId": *published.MessageId, "TopicArn": topic, "Subject": "an order", "Message": "m <1>",
				"Timestamp": "2000-01-01T00:00:00.000Z", "SignatureVersion": version, "Signature": n["Signature"], "SigningCertURL": c["SigningCertURL"],
				"UnsubscribeURL":    "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=" + arn,
				"MessageAttributes": "map[region:map[Type:String Value:eu]]"}, n)
			d := a.Topic("orders").Published()[0].Deliveries[0]
			require.Equal(t, fakeaws.TopicDelivery{Subscription: arn, Endpoint: hookURL + "?key=1", Outcome: fakeaws.Delivered, Attempts: 1}, d)
			attributes, err := a.SNS().GetSubscriptionAttributes(t.Context(), &sns.GetSubscriptionAttributesInput{SubscriptionArn: &arn})
			require.NoError(t, err)
			require.Equal(t, "false", attributes.Attributes["ConfirmationWasAuthenticated"])
			require.Equal(t, "false", attributes.Attributes["PendingConfirmation"])

			// What was changed does not verify, and each field counts.
			for _, name := range []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Signature"} {
				changed := map[string]string{}
				for k, v := range n {
					changed[k] = v
				}
				changed[name] = "A" + changed[name]
				require.Error(t, verify(a.HTTPClient(), a.SigningRoots(), changed), name)
			}
			require.Error(t, verify(a.HTTPClient(), x509.NewCertPool(), n), "another root")
			r, err := a.HTTPClient().Get("https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem")
			require.NoError(t, err)
			require.Equal(t, http.StatusBadRequest, r.StatusCode)
		})
	}
}

func TestASubscriptionIsConfirmedByItsTokenForTwoDays(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders")
		h := newHook(nil)
		a.Endpoint(hookURL, h)
		arn := subscribeHTTP(t, a, topic, hookURL)
		publish(t, a, topic, "too early")
		require.Equal(t, fakeaws.NotConfirmed, a.Topic("orders").Published()[0].Deliveries[0].Outcome)
		require.Equal(t, arn, subscribeHTTP(t, a, topic, hookURL), "it asks again")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Len(t, h.bodies, 2)
		token := h.bodies[1]["Token"]
		require.Equal(t, token, h.bodies[0]["Token"])
		confirm := func(token, authenticate string) error {
			_, err := a.SNS().ConfirmSubscription(t.Context(), &sns.ConfirmSubscriptionInput{TopicArn: &topic, Token: &token, AuthenticateOnUnsubscribe: &authenticate})
			return err
		}
		require.Equal(t, "InvalidParameter", code(confirm(token+"x", "false")))
		require.Equal(t, "InvalidParameter", code(confirm(token, "perhaps")))
		time.Sleep(48*time.Hour - time.Nanosecond)
		require.NoError(t, confirm(token, "true"))
		time.Sleep(time.Hour)
		require.NoError(t, confirm(token, "false"), "a second time")
		publish(t, a, topic, "m")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, "m", h.bodies[2]["Message"])

		// It was confirmed so that only signed requests end it.
		r, err := a.HTTPClient().Get(h.bodies[2]["UnsubscribeURL"])
		require.NoError(t, err)
		require.Equal(t, http.StatusForbidden, r.StatusCode)
		_, err = a.SNS().Unsubscribe(t.Context(), &sns.UnsubscribeInput{SubscriptionArn: &arn})
		require.NoError(t, err)
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Len(t, h.bodies, 3, "the owner ended it: nothing is to be told")

		arn = subscribeHTTP(t, a, topic, hookURL)
		require.NoError(t, a.WaitQuiet(t.Context()))
		time.Sleep(48 * time.Hour)
		require.Equal(t, "InvalidParameter", code(confirm(h.bodies[3]["Token"], "false")))
		_, err = a.SNS().GetSubscriptionAttributes(t.Context(), &sns.GetSubscriptionAttributesInput{SubscriptionArn: &arn})
		require.Equal(t, "NotFound", code(err))
	})
}

func TestTheUnsubscribeURLEndsASubscriptionAndTheEndpointCanHaveItBack(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a.Account("210987654321"), "orders") // the visitor is nobody
		a = a.Account("210987654321")
		h := newHook(nil)
		a.Endpoint(hookURL, h, fakeaws.AutoConfirm())
		arn := subscribeHTTP(t, a, topic, hookURL)
		publish(t, a, topic, "1")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Len(t, h.bodies, 1, "no confirmation")
		attributes, err := a.SNS().GetSubscriptionAttributes(t.Context(), &sns.GetSubscriptionAttributesInput{SubscriptionArn: &arn})
		require.NoError(t, err)
		require.Equal(t, "true", attributes.Attributes["ConfirmationWasAuthenticated"])
		r, err := a.HTTPClient().Get(h.bodies[0]["UnsubscribeURL"])
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, r.StatusCode)
		publish(t, a, topic, "2")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Len(t, h.bodies, 2)
		farewell := h.bodies[1]
		require.Equal(t, "UnsubscribeConfirmation", farewell["Type"])
		require.Equal(t, "UnsubscribeConfirmation", h.requests[1].Header.Get("x-amz-sns-message-type"))
		require.Equal(t, arn, h.requests[1].Header.Get("x-amz-sns-subscription-arn"))
		require.NoError(t, verify(a.HTTPClient(), a.SigningRoots(), farewell))
		r, err = a.HTTPClient().Get(farewell["SubscribeURL"])
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, r.StatusCode)
		publish(t, a, topic, "3")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, "3", h.bodies[2]["Message"])
		require.Equal(t, arn, h.requests[2].Header.Get("x-amz-sns-subscription-arn"))
	})
}

// Failures are tried again by SNS's default policy: three times, 20 seconds
// after the last failure.
func TestRetriesOfAnHTTPDelivery(t *testing.T) {
	const s = time.Second
	slow := func(n int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, row := range map[string]struct {
		answer  func(int, http.ResponseWriter, *http.Request)
		want    []time.Duration
		outcome fakeaws.Outcome
		code    string
		why     string
		took    time.Duration
	}{
		"well":             {status(200), []time.Duration{0}, fakeaws.Delivered, "", "", 0},
		"no content":       {status(204), []time.Duration{0}, fakeaws.Delivered, "", "", 0},
		"5xx, then well":   {status(500, 503, 200), []time.Duration{0, 20 * s, 40 * s}, fakeaws.Delivered, "", "", 40 * s},
		"5xx":              {status(502), []time.Duration{0, 20 * s, 40 * s, 60 * s}, fakeaws.DeadLettered, "502", "it answered 502 Bad Gateway", 60 * s},
		"too many":         {status(429), []time.Duration{0, 20 * s, 40 * s, 60 * s}, fakeaws.DeadLettered, "429", "it answered 429 Too Many Requests", 60 * s},
		"4xx":              {status(404), []time.Duration{0}, fakeaws.DeadLettered, "404", "it answered 404 Not Found: not tried again", 0},
		"5xx, then 4xx":    {status(500, 400), []time.Duration{0, 20 * s}, fakeaws.DeadLettered, "400", "it answered 400 Bad Request: not tried again", 20 * s},
		"redirect":         {status(302), []time.Duration{0}, fakeaws.DeadLettered, "302", "it answered 302 Found: not tried again", 0},
		"timeout":          {slow, []time.Duration{0, 35 * s, 70 * s, 105 * s}, fakeaws.DeadLettered, "ConnectionFailure", "it did not answer within 15s", 120 * s},
		"deaf":             {func(int, http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }, []time.Duration{0, 35 * s, 70 * s, 105 * s}, fakeaws.DeadLettered, "ConnectionFailure", "it did not answer within 15s", 105*s + time.Hour},
		"panic":            {func(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, []time.Duration{0, 20 * s, 40 * s, 60 * s}, fakeaws.DeadLettered, "ConnectionFailure", "connection lost: the handler panicked: net/http: abort Handler", 60 * s},
		"panic of its own": {func(int, http.ResponseWriter, *http.Request) { panic("no order") }, []time.Duration{0, 20 * s, 40 * s, 60 * s}, fakeaws.DeadLettered, "ConnectionFailure", "connection lost: the handler panicked: no order", 60 * s},
		"no status":        {status(0), []time.Duration{0, 20 * s, 40 * s, 60 * s}, fakeaws.DeadLettered, "ConnectionFailure", "connection lost: the handler panicked: invalid WriteHeader code 0", 60 * s},
		"early hints": {func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(103)
			w.WriteHeader(201)
			w.WriteHeader(500)
		}, []time.Duration{0}, fakeaws.Delivered, "", "", 0},
		"a body": {func(_ int, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("thanks"))
			w.WriteHeader(500)
		}, []time.Duration{0}, fakeaws.Delivered, "", "", 0},
		"exit": {func(int, http.ResponseWriter, *http.Request) { runtime.Goexit() }, []time.Duration{0, 20 * s, 40 * s, 60 * s}, fakeaws.DeadLettered, "ConnectionFailure", "connection lost: the handler ended its goroutine", 60 * s},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *fakeaws.AWS) {
				topic := newTopic(t, a, "orders")
				dead := newQueue(t, a, "dead", "Policy", permission(topic))
				newQueue(t, a, "main", "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":1}`, a.Queue("dead").ARN())) // so that letters are no work
				h := newHook(row.answer)
				a.Endpoint(hookURL, h, fakeaws.AutoConfirm())
				subscribeHTTP(t, a, topic, hookURL, "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q}`, a.Queue("dead").ARN()))
				out := publish(t, a, topic, "m")
				synctest.Wait()
				if len(row.want) > 1 {
					require.Equal(t, fakeaws.UnderWay, a.Topic("orders").Published()[0].Deliveries[0].Outcome)
				}
				require.NoError(t, a.WaitQuiet(t.Context()))
				require.Equal(t, row.want, h.at)
				require.Equal(t, row.took, time.Since(h.began))
				for k, r := range h.requests {
					require.Equal(t, *out.MessageId, r.Header.Get("x-amz-sns-message-id"))
					require.Equal(t, h.raw[0], h.raw[k])
				}
				d := a.Topic("orders").Published()[0].Deliveries[0]
				require.Equal(t, row.outcome, d.Outcome)
				require.Equal(t, row.why, d.Error)
				require.Equal(t, len(row.want), d.Attempts)
				letters := receive(t, a, dead)
				if row.outcome == fakeaws.Delivered {
					require.Empty(t, letters)
					return
				}
				require.Equal(t, h.raw[0], *letters[0].Body, "what was sent, with its signature")
				require.Equal(t, row.code, *letters[0].MessageAttributes["ErrorCode"].StringValue)
				require.Equal(t, row.why, *letters[0].MessageAttributes["ErrorMessage"].StringValue)
				require.NotEmpty(t, *letters[0].MessageAttributes["RequestID"].StringValue)
			})
		})
	}
}

func TestAnEndpointThatIsNotThere(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders")
		h := newHook(nil)
		subscribeHTTP(t, a, topic, "http://shop.example/a/b")
		time.Sleep(30 * time.Second)
		a.Endpoint("http://SHOP.example/a/", h) // the confirmation is tried again
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []time.Duration{40 * time.Second}, h.at)
		require.Nil(t, h.requests[0].TLS)
		_, err := a.SNS().ConfirmSubscription(t.Context(), &sns.ConfirmSubscriptionInput{TopicArn: &topic, Token: aws.String(h.bodies[0]["Token"])})
		require.NoError(t, err)
		for _, row := range []struct {
			url  string
			want bool
		}{{"http://shop.example", true}, {"http://shop.example/a/b", true}, {"http://shop.example/a/b/c", false}, {"https://shop.example/a", false}, {"http://shop.example/b", false}, {"http://shop.example:80/a", false}} {
			a.Endpoint("http://shop.example/a", nil)
			other := newHook(nil)
			a.Endpoint(row.url, other)
			publish(t, a, topic, "m")
			require.NoError(t, a.WaitQuiet(t.Context()))
			require.Equal(t, row.want, len(other.at) == 1, row.url)
			all := a.Topic("orders").Published()
			d := all[len(all)-1].Deliveries[0]
			if !row.want {
				require.Equal(t, fakeaws.Lost, d.Outcome)
				require.Equal(t, 4, d.Attempts)
				require.Equal(t, "connection refused: no handler was given for http://shop.example/a/b, see AWS.Endpoint", d.Error)
			}
			a.Endpoint(row.url, nil)
		}
		outer, inner := newHook(nil), newHook(nil)
		a.Endpoint("http://shop.example/", outer)
		a.Endpoint("http://shop.example/a/b", inner)
		publish(t, a, topic, "m")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Len(t, inner.at, 1)
		require.Empty(t, outer.at)
	})
	a, err := fakeaws.Start()
	require.NoError(t, err)
	defer a.Close()
	for _, bad := range []string{"", "shop.example", "ftp://shop.example", "https://", "https://shop.example?x=1", "https://u:p@shop.example", "https://shop.example#x", "http://[::1"} {
		require.PanicsWithValue(t, fmt.Sprintf("fakeaws: Endpoint(%q): want a URL such as https://shop.example/hook, without user, query and fragment", bad), func() { a.Endpoint(bad, newHook(nil)) })
	}
}

func TestRawHTTPDeliveriesAndFilters(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders")
		h := newHook(nil)
		a.Endpoint("https://shop.example", h, fakeaws.AutoConfirm())
		arn := subscribeHTTP(t, a, topic, hookURL, "RawMessageDelivery", "true", "FilterPolicy", `{"region":["eu"]}`,
			"DeliveryPolicy", `{"requestPolicy":{"headerContentType":"application/xml"}}`)
		for _, region := range []string{"us", "eu"} {
			publish(t, a, topic, "<"+region+"/>", func(in *sns.PublishInput) {
				in.MessageAttributes = map[string]snstypes.MessageAttributeValue{"region": text(region)}
			})
		}
		publish(t, a, topic, `{"default":"d","https":"for the web"}`, func(in *sns.PublishInput) {
			in.MessageStructure = aws.String("json")
			in.MessageAttributes = map[string]snstypes.MessageAttributeValue{"region": text("eu")}
		})
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.ElementsMatch(t, []string{"<eu/>", "for the web"}, h.raw)
		for _, r := range h.requests {
			require.Equal(t, "true", r.Header.Get("x-amz-sns-rawdelivery"))
			require.Equal(t, arn, r.Header.Get("x-amz-sns-subscription-arn"))
			require.Equal(t, "Notification", r.Header.Get("x-amz-sns-message-type"))
			require.Equal(t, "application/xml", r.Header.Get("Content-Type"))
			require.Empty(t, r.Header.Get("region"), "attributes are not sent")
		}
		require.Equal(t, fakeaws.Filtered, a.Topic("orders").Published()[0].Deliveries[0].Outcome)
		_, err := a.SNS().SetSubscriptionAttributes(t.Context(), &sns.SetSubscriptionAttributesInput{SubscriptionArn: &arn, AttributeName: aws.String("RawMessageDelivery"), AttributeValue: aws.String("false")})
		require.ErrorContains(t, err, "headerContentType", "only raw messages can be XML")

		for endpoint, protocol := range map[string]string{"http://shop.example": "https", "https://shop.example": "http", "shop.example": "http", "https://": "https"} {
			_, err := a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: &protocol, Endpoint: &endpoint})
			require.ErrorContains(t, err, "Endpoint must match the specified protocol", endpoint)
		}
		fifo := newTopic(t, a, "orders.fifo", "FifoTopic", "true")
		_, err = a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &fifo, Protocol: aws.String("https"), Endpoint: aws.String(hookURL)})
		require.ErrorContains(t, err, "Invalid protocol type: https")
	})
}

func TestAnEndpointCanAskForAPassword(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders")
		h := newHook(func(_ int, w http.ResponseWriter, r *http.Request) {
			if user, password, ok := r.BasicAuth(); !ok || user != "sns" || password != "secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="shop"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
		a.Endpoint(hookURL, h, fakeaws.AutoConfirm())
		subscribeHTTP(t, a, topic, "https://sns:secret@shop.example/hook")
		subscribeHTTP(t, a, topic, "https://sns:wrong@shop.example/hook")
		publish(t, a, topic, "m")
		require.NoError(t, a.WaitQuiet(t.Context()))
		ds := a.Topic("orders").Published()[0].Deliveries
		require.Equal(t, []fakeaws.Outcome{fakeaws.Delivered, fakeaws.Lost}, []fakeaws.Outcome{ds[0].Outcome, ds[1].Outcome})
		require.Equal(t, []int{1, 1}, []int{ds[0].Attempts, ds[1].Attempts})
		require.Len(t, h.requests, 4)

		h = newHook(func(_ int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
		})
		a.Endpoint(hookURL, h)
		publish(t, a, topic, "m")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Len(t, h.requests, 2, "SNS wants a realm")
	})
}

// An endpoint that fails holds up no other one, and no queue.
func TestAnEndpointThatFailsHoldsUpNoOther(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders")
		q := newQueue(t, a, "q", "Policy", permission(topic))
		slow, busy, well := newHook(func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), newHook(status(429)), newHook(nil)
		for path, h := range map[string]*hook{"/slow": slow, "/busy": busy, "/well": well} {
			a.Endpoint("https://shop.example"+path, h, fakeaws.AutoConfirm())
			subscribeHTTP(t, a, topic, "https://shop.example"+path)
		}
		subscribe(t, a, topic, a.Queue("q"))
		for range 2 {
			publish(t, a, topic, "m")
		}
		require.Len(t, receive(t, a, q), 2)
		synctest.Wait()
		require.Equal(t, []time.Duration{0, 0}, well.at)
		require.Equal(t, []time.Duration{0, 0}, slow.at)
	})
}

// The phases of a delivery policy, at their instants.
func TestDeliveryPolicies(t *testing.T) {
	retry := func(s string) string { return `{"healthyRetryPolicy":{` + s + `}}` }
	topicRetry := func(s string) string { return `{"http":{"defaultHealthyRetryPolicy":{` + s + `}}}` }
	at := func(seconds ...float64) []time.Duration {
		sum, all := time.Duration(0), []time.Duration{0}
		for _, s := range seconds {
			sum += time.Duration(s * float64(time.Second))
			all = append(all, sum)
		}
		return all
	}
	for _, row := range []struct {
		topic, subscription string
		want                []time.Duration
	}{
		{"", "", at(20, 20, 20)},
		{"", retry(`"numRetries":0`), at()},
		{"", retry(`"numRetries":5`), at(20, 20, 20, 20, 20)},
		{"", retry(`"minDelayTarget":1,"maxDelayTarget":9,"numRetries":9,"numNoDelayRetries":2,"numMinDelayRetries":2,"numMaxDelayRetries":2`), at(0, 0, 1, 1, 1, 5, 9, 9, 9)},
		{"", retry(`"minDelayTarget":1,"maxDelayTarget":16,"numRetries":5,"backoffFunction":"linear"`), at(1, 4.75, 8.5, 12.25, 16)},
		{"", retry(`"minDelayTarget":1,"maxDelayTarget":11,"numRetries":5,"backoffFunction":"arithmetic"`), at(1, 2, 4, 7, 11)},
		{"", retry(`"minDelayTarget":1,"maxDelayTarget":81,"numRetries":5,"backoffFunction":"geometric"`), at(1, 3, 9, 27, 81)},
		{"", retry(`"minDelayTarget":1,"maxDelayTarget":16,"numRetries":5,"backoffFunction":"exponential"`), at(1, 2, 4, 8, 16)},
		{"", retry(`"minDelayTarget":7,"maxDelayTarget":16,"numRetries":1,"backoffFunction":"exponential"`), at(7)},
		{"", retry(`"minDelayTarget":30,"numRetries":1`), at(30)},
		{"", retry(`"maxDelayTarget":10,"numRetries":1`), at(10)},
		{topicRetry(`"numRetries":1`), "", at(20)},
		{topicRetry(`"numRetries":2,"minDelayTarget":5,"maxDelayTarget":5`), retry(`"numRetries":1`), at(5)},
		{`{"http":{"defaultHealthyRetryPolicy":{"numRetries":1},"disableSubscriptionOverrides":true}}`, retry(`"numRetries":9`), at(20)},
		{topicRetry(`"numRetries":9,"numNoDelayRetries":5`), retry(`"numRetries":2`), at(0, 0)},
	} {
		bubble(t, func(t *testing.T, a *fakeaws.AWS) {
			topic := newTopic(t, a, "orders", "DeliveryPolicy", row.topic)
			h := newHook(status(500))
			a.Endpoint(hookURL, h, fakeaws.AutoConfirm())
			attributes := []string{}
			if row.subscription != "" {
				attributes = []string{"DeliveryPolicy", row.subscription}
			}
			subscribeHTTP(t, a, topic, hookURL, attributes...)
			publish(t, a, topic, "m")
			require.NoError(t, a.WaitQuiet(t.Context()))
			require.Equal(t, row.want, h.at, "%s %s", row.topic, row.subscription)
		})
	}
	a := fakeaws.New(t)
	topic := newTopic(t, a, "orders")
	arn := subscribeHTTP(t, a, topic, hookURL)
	setTopic := func(value string) error {
		_, err := a.SNS().SetTopicAttributes(t.Context(), &sns.SetTopicAttributesInput{TopicArn: &topic, AttributeName: aws.String("DeliveryPolicy"), AttributeValue: &value})
		return err
	}
	setSubscription := func(value string) error {
		_, err := a.SNS().SetSubscriptionAttributes(t.Context(), &sns.SetSubscriptionAttributesInput{SubscriptionArn: &arn, AttributeName: aws.String("DeliveryPolicy"), AttributeValue: &value})
		return err
	}
	for field, want := range map[string]string{
		`"minDelayTarget":0`:                      "minDelayTarget is 0, it must be from 1 to 20",
		`"minDelayTarget":21,"maxDelayTarget":20`: "minDelayTarget is 21, it must be from 1 to 20",
		`"maxDelayTarget":3601`:                   "maxDelayTarget is 3601, it must be from 20 to 3600",
		`"numRetries":101`:                        "numRetries is 101, it must be from 0 to 100",
		`"numRetries":-1`:                         "numRetries is -1, it must be from 0 to 100",
		`"numRetries":1.5`:                        "cannot unmarshal",
		`"numNoDelayRetries":4`:                   "numNoDelayRetries is 4, it must be from 0 to 3",
		`"numNoDelayRetries":2,"numMinDelayRetries":1,"numMaxDelayRetries":1`: "has 4 retries in its phases, numRetries is 3",
		`"backoffFunction":"random"`:                                          `backoffFunction is "random", it must be one of linear, arithmetic, geometric, exponential`,
		`"numRetries":100,"minDelayTarget":37,"maxDelayTarget":37`:            "has delays of 1h1m40s in all, it can have 3600 seconds",
		`"nonsense":1`: `unknown field "nonsense"`,
	} {
		require.ErrorContains(t, setSubscription(retry(field)), want, field)
		require.ErrorContains(t, setTopic(topicRetry(field)), want, field)
	}
	for value, want := range map[string]string{
		`x`:                        "invalid character",
		`{} {}`:                    "there is more after the value",
		`{"nonsense":1}`:           "unknown field",
		`{"http":{}}`:              "unknown field",
		`{"guaranteed":true}`:      "cannot be set",
		`{"sicklyRetryPolicy":{}}`: "cannot be set",
		`{"throttlePolicy":{"maxReceivesPerSecond":0}}`:         "maxReceivesPerSecond is 0, it must be at least 1",
		`{"requestPolicy":{"headerContentType":"image/png"}}`:   `headerContentType is "image/png", it must be one of text/plain, application/json`,
		`{"requestPolicy":{"headerContentType":"; charset=x"}}`: `headerContentType is "; charset=x"`,
	} {
		require.Equal(t, "InvalidParameter", code(setSubscription(value)), value)
		require.ErrorContains(t, setSubscription(value), want, value)
	}
	require.ErrorContains(t, setTopic(`{"healthyRetryPolicy":{}}`), "unknown field")
	require.NoError(t, setSubscription(`{"healthyRetryPolicy":{"numRetries":5},"sicklyRetryPolicy":null,"throttlePolicy":null,"requestPolicy":null,"guaranteed":false}`))
	require.NoError(t, setTopic(`{"http":{"defaultThrottlePolicy":{"maxReceivesPerSecond":3},"defaultRequestPolicy":{"headerContentType":"application/json"}}}`))
	attributes, err := a.SNS().GetSubscriptionAttributes(t.Context(), &sns.GetSubscriptionAttributesInput{SubscriptionArn: &arn})
	require.NoError(t, err)
	require.JSONEq(t, `{"healthyRetryPolicy":{"minDelayTarget":20,"maxDelayTarget":20,"numRetries":5,"numMaxDelayRetries":0,"numNoDelayRetries":0,"numMinDelayRetries":0,"backoffFunction":"linear"},
		"sicklyRetryPolicy":null,"throttlePolicy":{"maxReceivesPerSecond":3},"requestPolicy":{"headerContentType":"application/json"},"guaranteed":false}`, attributes.Attributes["EffectiveDeliveryPolicy"])
	require.NoError(t, setTopic(""))
	of, err := a.SNS().GetTopicAttributes(t.Context(), &sns.GetTopicAttributesInput{TopicArn: &topic})
	require.NoError(t, err)
	require.JSONEq(t, `{"http":{"defaultHealthyRetryPolicy":{"minDelayTarget":20,"maxDelayTarget":20,"numRetries":3,"numMaxDelayRetries":0,"numNoDelayRetries":0,"numMinDelayRetries":0,"backoffFunction":"linear"},
		"disableSubscriptionOverrides":false,"defaultRequestPolicy":{"headerContentType":"text/plain; charset=UTF-8"}}}`, of.Attributes["EffectiveDeliveryPolicy"])
}

func TestAThrottlePolicySpacesDeliveries(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders")
		h := newHook(status(500, 200))
		a.Endpoint(hookURL, h, fakeaws.AutoConfirm())
		subscribeHTTP(t, a, topic, hookURL, "DeliveryPolicy", `{"throttlePolicy":{"maxReceivesPerSecond":4}}`)
		for k := range 5 {
			publish(t, a, topic, fmt.Sprint(k))
		}
		time.Sleep(19 * time.Second)
		publish(t, a, topic, "a retry that waits does not hold it up")
		require.NoError(t, a.WaitQuiet(t.Context()))
		var want []time.Duration
		for _, ms := range []int{0, 250, 500, 750, 1000, 19000, 20000} {
			want = append(want, time.Duration(ms)*time.Millisecond)
		}
		require.Equal(t, want, h.at)
	})
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Endpoints without a handler are reached through a transport, if there is one.
func TestDeliveriesThroughATransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		var told []fakeaws.Call
		began := time.Now()
		a := fakeaws.New(t, fakeaws.WithObserver(func(c fakeaws.Call) {
			if c.Operation == "Deliver" {
				told = append(told, c)
			}
		}), fakeaws.WithDeliveries(tripper(func(r *http.Request) (*http.Response, error) {
			at = append(at, time.Since(began))
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, int64(len(body)), r.ContentLength)
			require.Equal(t, "https://other.example/hook%2Fa?b=c", r.URL.String())
			require.Equal(t, []string{"other.example", "", ""}, []string{r.Host, r.RequestURI, r.Header.Get("Content-Length")})
			switch len(at) {
			case 1:
				return nil, fmt.Errorf("no route")
			case 2:
				<-r.Context().Done()
				return nil, r.Context().Err()
			case 3:
				return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {"basic realm=x"}}, Body: http.NoBody}, nil
			}
			_, password, _ := r.BasicAuth()
			require.Equal(t, "secret", password)
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
		})))
		a.Endpoint("https://other.example/else", newHook(nil))
		topic := newTopic(t, a, "orders")
		subscribeHTTP(t, a, topic, "https://u:secret@other.example/hook%2Fa?b=c")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []time.Duration{0, 20 * time.Second, 55 * time.Second, 55 * time.Second}, at)
		deliver := fakeaws.Call{Operation: "Deliver", Resource: "https://u:xxxxx@other.example/hook%2Fa?b=c", Region: "us-east-1", Account: "123456789012"}
		for k, want := range []struct {
			at, took time.Duration
			err      string
		}{{0, 0, "no route"}, {20 * time.Second, 15 * time.Second, "it did not answer within 15s"}, {55 * time.Second, 0, ""}} {
			deliver.Time, deliver.Took, deliver.Error = began.Add(want.at), want.took, want.err
			require.Equal(t, deliver, told[k])
		}
		_, err := fakeaws.Start(fakeaws.WithDeliveries(nil))
		require.EqualError(t, err, "fakeaws: WithDeliveries(nil): want a transport")
	})
}

// An idle fake has no goroutine and no timer: else the bubble would not end.
// What is still to be done when the test ends is dropped.
func TestCloseEndsHTTPDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeaws.New(t)
		topic := newTopic(t, a, "orders")
		began := time.Now()
		h := newHook(func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 0 {
				w.WriteHeader(500)
				return
			}
			<-r.Context().Done()
			time.Sleep(time.Second)
		})
		a.Endpoint(hookURL, h, fakeaws.AutoConfirm())
		subscribeHTTP(t, a, topic, hookURL)
		publish(t, a, topic, "will be tried again in 20 s")
		synctest.Wait()
		publish(t, a, topic, "is being handled")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.ErrorContains(t, a.WaitQuiet(ctx), "deliveries under way")
		a.Close()
		require.Equal(t, 6*time.Second, time.Since(began), "it waited for the handler")
		require.Len(t, h.at, 2)
		ds := a.Topic("orders").Published()
		require.Equal(t, fakeaws.UnderWay, ds[0].Deliveries[0].Outcome)
		time.Sleep(time.Hour)
		require.Len(t, h.at, 2)
	})
}

func TestEnvelopesInQueuesAreSignedIfWanted(t *testing.T) {
	a := fakeaws.New(t, fakeaws.WithSignedEnvelopes())
	topic := newTopic(t, a, "orders", "SignatureVersion", "2")
	q := newQueue(t, a, "q", "Policy", permission(topic))
	subscribe(t, a, topic, a.Queue("q"))
	publish(t, a, topic, "m")
	var m map[string]string
	require.NoError(t, json.Unmarshal([]byte(*receive(t, a, q)[0].Body), &m))
	require.NoError(t, verify(a.HTTPClient(), a.SigningRoots(), m))
	require.Equal(t, "2", m["SignatureVersion"])
}
