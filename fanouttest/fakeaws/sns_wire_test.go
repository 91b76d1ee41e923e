package fakeaws

import (
	"encoding/xml"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
)

const snsModule = "github.com/aws/aws-sdk-go-v2/service/sns"

// Each request of the SDK's snapshots whose operation the fake has is read as
// what it was made from, and answered as SNS's limits demand: the values are
// placeholders. The others are refused.
func TestSNSRequestSnapshots(t *testing.T) {
	found := snapshots(t, snsModule, "request_snapshot", ".request.snap")
	require.Len(t, found, 42)
	answers := map[string]string{
		"ListTopics": "InvalidParameter", "ListSubscriptions": "InvalidParameter", // the token is none
		"CreateTopic": "InvalidParameter",
	}
	known := 0
	for operation, text := range found {
		t.Run(operation, func(t *testing.T) {
			k := strings.LastIndex(text, "\n\n")
			require.Contains(t, text[:k], "application/x-www-form-urlencoded")
			form, err := url.ParseQuery(text[k+2:])
			require.NoError(t, err)

			// The snapshot was made from this input.
			c := &capture{answer: response{status: 400, body: []byte("<ErrorResponse/>")}}
			client := sns.New(sns.Options{Region: "us-east-1", HTTPClient: c, Credentials: credentials(DefaultAccount), Retryer: aws.NopRetryer{}})
			input := inputOf(client, operation)
			_, _ = callSDK(t.Context(), client, operation, input) // the answer is not what this is about
			captured, err := url.ParseQuery(string(c.body))
			require.NoError(t, err)
			require.Equal(t, form, captured)

			op, ok := snsOperations[operation]
			a := New(t)
			_, err = callSDK(t.Context(), a.SNS(), operation, input)
			var e smithy.APIError
			require.ErrorAs(t, err, &e)
			if !ok {
				require.Equal(t, "InvalidAction", e.ErrorCode())
				return
			}
			known++
			got := op.input()
			require.Nil(t, decodeForm(operation, form, got))
			same(t, operation, reflect.ValueOf(input), reflect.ValueOf(got))
			want := answers[operation]
			if want == "" {
				want = "InvalidParameter" // __TopicArn__ is no ARN
			}
			require.Equal(t, want, e.ErrorCode(), "%v", err)
		})
	}
	require.Equal(t, len(snsOperations), known)
}

// xmlTree is a document for comparison: names, texts, and what is below in an
// order that does not count.
func xmlTree(t *testing.T, text string) any {
	t.Helper()
	type node struct {
		XMLName xml.Name
		Text    string `xml:",chardata"`
		Nodes   []struct {
			Inner   string `xml:",innerxml"`
			XMLName xml.Name
		} `xml:",any"`
	}
	var n node
	require.NoError(t, xml.Unmarshal([]byte(text), &n), text)
	if len(n.Nodes) == 0 {
		return strings.TrimSpace(n.Text)
	}
	tree := map[string][]any{}
	for _, child := range n.Nodes {
		name := child.XMLName.Local
		if name == "ResponseMetadata" || name == "RequestId" || name == "Type" && n.XMLName.Local == "Error" {
			continue // the snapshots lack them; SNS sends them
		}
		tree[name] = append(tree[name], xmlTree(t, "<x>"+child.Inner+"</x>"))
	}
	return tree
}

// Each answer of the SDK's snapshots is what the fake encodes from the same
// result, and the SDK's client reads the fake's as it. The older of the two
// generations of the SDK has none.
func TestSNSResponseSnapshots(t *testing.T) {
	found := snapshots(t, snsModule, "response_snapshot", ".response.snap")
	if len(found) == 0 {
		require.Contains(t, moduleDirectory(t, snsModule), "@v1.47.", "only the older generation has none")
	}
	for operation, op := range snsOperations {
		t.Run(operation, func(t *testing.T) {
			out := op.output()
			fill(reflect.ValueOf(out).Elem(), "")
			c := &call{cloud: &cloud{}, operation: operation}
			got := c.answerQuery(out, nil)
			if text, ok := found[operation]; ok {
				want := parseAnswer(t, text)
				require.Equal(t, want.status, got.status)
				require.Equal(t, xmlTree(t, string(want.body)), xmlTree(t, string(got.body)))
			} else {
				require.Empty(t, found)
			}
			client := sns.New(sns.Options{Region: "us-east-1", HTTPClient: &capture{answer: got}, Credentials: credentials(DefaultAccount)})
			read, err := callSDK(t.Context(), client, operation, inputOf(client, operation))
			require.NoError(t, err)
			expected := reflect.New(reflect.TypeOf(read).Elem())
			fill(expected.Elem(), "")
			same(t, operation, expected, reflect.ValueOf(read))
		})
	}
}

// Each error that the fake gives is one of the SDK's snapshots, with its status,
// and the SDK's client reads it as its type.
func TestSNSErrorSnapshots(t *testing.T) {
	found := snapshots(t, snsModule, "response_snapshot", ".error.snap")
	known := map[string]response{}
	for _, text := range found {
		a := parseAnswer(t, text)
		var document struct {
			Code string `xml:"Error>Code"`
		}
		require.NoError(t, xml.Unmarshal(a.body, &document))
		known[document.Code] = a
	}
	for _, e := range snsErrors {
		t.Run(e.shape, func(t *testing.T) {
			c := &call{cloud: &cloud{}, operation: "PublishBatch"}
			got := c.answerQuery(nil, e.with("__Message__"))
			if a, ok := known[e.shape]; ok {
				require.Equal(t, a.status, got.status)
			} else {
				require.Empty(t, found, "the SDK has no error %s", e.shape)
			}
			client := sns.New(sns.Options{Region: "us-east-1", HTTPClient: &capture{answer: got}, Credentials: credentials(DefaultAccount), Retryer: aws.NopRetryer{}})
			_, err := client.PublishBatch(t.Context(), inputOf(client, "PublishBatch").(*sns.PublishBatchInput))
			var read smithy.APIError
			require.ErrorAs(t, err, &read)
			require.Equal(t, e.shape, read.ErrorCode())
			require.Equal(t, "__Message__", read.ErrorMessage())
		})
	}
}
