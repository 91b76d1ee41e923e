package fakeaws

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
)

// moduleDirectory returns where a module is in the module cache.
func moduleDirectory(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// snapshots returns the snapshots of a module by name: what the SDK's own tests
// hold against its encoding and decoding.
func snapshots(t *testing.T, module, directory, suffix string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(moduleDirectory(t, module), directory, "*"+suffix))
	require.NoError(t, err)
	found := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		found[strings.TrimSuffix(filepath.Base(f), suffix)] = string(text)
	}
	return found
}

const sqsModule = "github.com/aws/aws-sdk-go-v2/service/sqs"

// fill sets every field to the value that snapshots have for it.
func fill(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), name)
	case reflect.Struct:
		for k := range v.NumField() {
			f := v.Type().Field(k)
			switch {
			case f.Anonymous && f.IsExported() || f.Name == "sendMessageOutput":
				fill(v.Field(k), "")
			case f.IsExported() && f.Name != "ResultMetadata":
				fill(v.Field(k), f.Name)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte("blob"))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for k := range 2 {
			fill(v.Index(k), "Member")
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e, "Value")
		v.SetMapIndex(reflect.ValueOf("key0").Convert(v.Type().Key()), e)
	case reflect.String:
		if strings.HasSuffix(v.Type().Name(), "AttributeName") {
			v.SetString("All")
			return
		}
		if v.Type().Name() == "LanguageCodeString" {
			v.SetString("en-US")
			return
		}
		v.SetString("__" + name + "__")
	case reflect.Bool:
		v.SetBool(true)
	default:
		v.SetInt(1)
	}
}

// capture is a client's transport that keeps the request and answers with what
// it is given.
type capture struct {
	body   []byte
	header http.Header
	answer response
}

func (c *capture) Do(r *http.Request) (*http.Response, error) {
	c.body, _ = io.ReadAll(r.Body)
	c.header = r.Header
	return &http.Response{StatusCode: c.answer.status, Header: c.answer.header, Body: io.NopCloser(bytes.NewReader(c.answer.body)), Request: r}, nil
}

// callSDK calls an operation of the SDK's client by its name.
func callSDK(ctx context.Context, client any, operation string, in any) (any, error) {
	out := reflect.ValueOf(client).MethodByName(operation).Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(in)})
	err, _ := out[1].Interface().(error)
	return out[0].Interface(), err
}

// inputOf returns the SDK's parameters of an operation, filled.
func inputOf(client any, operation string) any {
	in := reflect.New(reflect.ValueOf(client).MethodByName(operation).Type().In(1).Elem())
	fill(in.Elem(), "")
	return in.Interface()
}

// same compares values of two types field by field, by name: those of the SDK
// and those of the fake, in which pointers are in other places.
func same(t *testing.T, path string, want, got reflect.Value) {
	t.Helper()
	for want.Kind() == reflect.Pointer {
		want = want.Elem()
	}
	for got.Kind() == reflect.Pointer {
		require.False(t, got.IsNil(), path)
		got = got.Elem()
	}
	switch want.Kind() {
	case reflect.Struct:
		for k := range want.NumField() {
			f := want.Type().Field(k)
			if !f.IsExported() || f.Name == "ResultMetadata" {
				continue
			}
			member := got.FieldByName(f.Name)
			require.True(t, member.IsValid(), "%s has no %s", path, f.Name)
			same(t, path+"."+f.Name, want.Field(k), member)
		}
	case reflect.Slice:
		require.Equal(t, want.Len(), got.Len(), path)
		for k := range want.Len() {
			same(t, path+"."+strconv.Itoa(k), want.Index(k), got.Index(k))
		}
	case reflect.Map:
		require.Equal(t, want.Len(), got.Len(), path)
		for _, key := range want.MapKeys() {
			member := got.MapIndex(reflect.ValueOf(key.String()))
			require.True(t, member.IsValid(), "%s has no key %s", path, key)
			same(t, path+"["+key.String()+"]", want.MapIndex(key), member)
		}
	default:
		require.True(t, want.CanConvert(got.Type()), path)
		require.Equal(t, want.Convert(got.Type()).Interface(), got.Interface(), path)
	}
}

// Each request of the SDK's snapshots is read as what it was made from, and
// answered as AWS's limits demand: the values are placeholders.
func TestSQSRequestSnapshots(t *testing.T) {
	found := snapshots(t, sqsModule, "request_snapshot", ".request.snap")
	require.Len(t, found, 23)
	require.Len(t, sqsOperations, 23)
	answers := map[string]string{ // others: there is no queue __QueueUrl__
		"CreateQueue":           "InvalidAttributeName",
		"ListQueues":            "InvalidParameterValue", // the token is none
		"GetQueueUrl":           "InvalidParameterValue", // the account is none
		"StartMessageMoveTask":  "InvalidParameterValue",
		"ListMessageMoveTasks":  "InvalidParameterValue",
		"CancelMessageMoveTask": "InvalidParameterValue",
	}
	for operation, text := range found {
		t.Run(operation, func(t *testing.T) {
			head, body, ok := strings.Cut(text, "\n\n{")
			require.True(t, ok)
			body = "{" + body
			require.Contains(t, head, "X-Amz-Target: "+sqsTarget+operation)

			// The snapshot was made from this input.
			c := &capture{answer: response{status: 200, body: []byte("{}")}}
			client := sqs.New(sqs.Options{Region: "us-east-1", HTTPClient: c, Credentials: credentials(DefaultAccount)})
			input := inputOf(client, operation)
			_, _ = callSDK(t.Context(), client, operation, input) // the answer is empty, which some check
			require.JSONEq(t, body, string(c.body))

			op, ok := sqsOperations[operation]
			require.True(t, ok)
			got := op.input()
			require.Nil(t, decodeJSON(operation, []byte(body), got))
			same(t, operation, reflect.ValueOf(input), reflect.ValueOf(got))

			a := New(t)
			_, err := callSDK(t.Context(), a.SQS(), operation, input)
			var e smithy.APIError
			require.ErrorAs(t, err, &e)
			want := answers[operation]
			if want == "" {
				want = "AWS.SimpleQueueService.NonExistentQueue"
			}
			require.Equal(t, want, e.ErrorCode(), "%v", err)
		})
	}
}

// parseAnswer takes a snapshot of an answer apart.
func parseAnswer(t *testing.T, text string) response {
	t.Helper()
	r := bufio.NewReader(strings.NewReader(text))
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	a := response{header: http.Header{}}
	a.status, err = strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	for {
		line, err = r.ReadString('\n')
		require.NoError(t, err)
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			break
		}
		a.header.Set(name, value)
	}
	a.body, err = io.ReadAll(r)
	require.NoError(t, err)
	return a
}

// Each answer of the SDK's snapshots is what the fake encodes from the same
// result, and the SDK's client reads the fake's as it.
func TestSQSResponseSnapshots(t *testing.T) {
	found := snapshots(t, sqsModule, "response_snapshot", ".response.snap")
	require.Len(t, found, 20)
	for operation, text := range found {
		t.Run(operation, func(t *testing.T) {
			want := parseAnswer(t, text)
			out := sqsOperations[operation].output()
			fill(reflect.ValueOf(out).Elem(), "")
			c := &call{cloud: &cloud{}}
			got := c.answerJSON(out, nil, true)
			require.Equal(t, want.status, got.status)
			require.JSONEq(t, string(want.body), string(got.body))
			require.Equal(t, want.header.Get("Content-Type"), got.header.Get("Content-Type"))

			client := sqs.New(sqs.Options{Region: "us-east-1", HTTPClient: &capture{answer: got}, Credentials: credentials(DefaultAccount)})
			read, err := callSDK(t.Context(), client, operation, inputOf(client, operation))
			require.NoError(t, err)
			expected := reflect.New(reflect.TypeOf(read).Elem())
			fill(expected.Elem(), "")
			same(t, operation, expected, reflect.ValueOf(read))
		})
	}
}

// Each error of the SDK's snapshots is what the fake encodes from the same
// error, but for the namespace, which AWS sends and the snapshots lack.
func TestSQSErrorSnapshots(t *testing.T) {
	found := snapshots(t, sqsModule, "response_snapshot", ".error.snap")
	require.Len(t, found, 19)
	for name, text := range found {
		t.Run(name, func(t *testing.T) {
			want := parseAnswer(t, text)
			var e *apiError
			for _, known := range sqsErrors {
				if known.shape == name {
					e = &known
				}
			}
			require.NotNil(t, e)
			if bytes.Contains(want.body, []byte(`"message"`)) {
				e = e.with("__Message__")
			}
			c := &call{cloud: &cloud{}}
			got := c.answerJSON(nil, e, true)
			require.Equal(t, want.status, got.status)
			require.JSONEq(t, string(want.body), strings.Replace(string(got.body), "com.amazonaws.sqs#", "", 1))

			client := sqs.New(sqs.Options{Region: "us-east-1", HTTPClient: &capture{answer: got}, Credentials: credentials(DefaultAccount), Retryer: aws.NopRetryer{}})
			operation := strings.TrimPrefix(want.header.Get("X-Amz-Target"), sqsTarget)
			_, err := callSDK(t.Context(), client, operation, inputOf(client, operation))
			var read smithy.APIError
			require.ErrorAs(t, err, &read)
			require.Equal(t, e.queryCode(), read.ErrorCode())
			require.Equal(t, e.message, read.ErrorMessage())
			require.Equal(t, name, reflect.TypeOf(errorOfModel(err)).Elem().Name(), "the error has its type")
		})
	}
}

// errorOfModel returns the innermost error.
func errorOfModel(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// Digests that AWS was recorded to give, in public test suites.
func TestDigestsOfAttributes(t *testing.T) {
	text := func(s string) attributeValue { return attributeValue{DataType: aws.String("String"), StringValue: &s} }
	require.Equal(t, "4c360f3fdafd970e05fae2f149d997f5", md5OfAttributes(map[string]attributeValue{"Hello": text("There"), "General": text("Kenobi"), "Help.Me": text("Me")}))
	require.Equal(t, "adb59cd4678ea5a855436b949cd07ab6", md5OfAttributes(map[string]attributeValue{"MyAttribute": text("foobar")}))
}

// SendMessage, SendMessageBatch and ReceiveMessage have no snapshot of their
// answers: these are exact.
func TestAnswersWithoutSnapshot(t *testing.T) {
	a := New(t)
	_, err := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q.fifo"), Attributes: map[string]string{"FifoQueue": "true"}})
	require.NoError(t, err)
	post := func(operation, body string) map[string]any {
		r, _ := http.NewRequest("POST", "https://sqs.us-east-1.amazonaws.com/", strings.NewReader(body))
		r.Header.Set("X-Amz-Target", sqsTarget+operation)
		out, err := a.HTTPClient().Do(r)
		require.NoError(t, err)
		require.Equal(t, 200, out.StatusCode)
		require.Equal(t, "application/x-amz-json-1.0", out.Header.Get("Content-Type"))
		require.NotEmpty(t, out.Header.Get("X-Amzn-Requestid"))
		text, err := io.ReadAll(out.Body)
		require.NoError(t, err)
		answer := map[string]any{}
		require.NoError(t, json.Unmarshal(text, &answer))
		return answer
	}
	attributes := `"MessageAttributes":{"MyAttribute":{"DataType":"String","StringValue":"foobar"}},"MessageSystemAttributes":{"AWSTraceHeader":{"DataType":"String","StringValue":"r"}}`
	sent := post("SendMessage", `{"QueueUrl":"q.fifo","MessageBody":"<&>","MessageGroupId":"g","MessageDeduplicationId":"1",`+attributes+`}`)
	id, sequence := sent["MessageId"], sent["SequenceNumber"]
	require.Equal(t, map[string]any{"MD5OfMessageBody": md5Of("<&>"), "MD5OfMessageAttributes": "adb59cd4678ea5a855436b949cd07ab6",
		"MD5OfMessageSystemAttributes": sent["MD5OfMessageSystemAttributes"], "MessageId": id, "SequenceNumber": sequence}, sent)
	require.Regexp(t, `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, id)
	require.Regexp(t, `^[0-9]{20}$`, sequence)
	received := post("ReceiveMessage", `{"QueueUrl":"q.fifo","MessageAttributeNames":["All"],"MessageSystemAttributeNames":["All"]}`)
	m := received["Messages"].([]any)[0].(map[string]any)
	times := m["Attributes"].(map[string]any)
	require.Equal(t, map[string]any{"Messages": []any{map[string]any{"Body": "<&>", "MD5OfBody": md5Of("<&>"), "MD5OfMessageAttributes": "adb59cd4678ea5a855436b949cd07ab6",
		"MessageAttributes": map[string]any{"MyAttribute": map[string]any{"DataType": "String", "StringValue": "foobar"}}, "MessageId": id, "ReceiptHandle": m["ReceiptHandle"],
		"Attributes": map[string]any{"SenderId": senderID(DefaultAccount), "SentTimestamp": times["SentTimestamp"], "ApproximateReceiveCount": "1",
			"ApproximateFirstReceiveTimestamp": times["ApproximateFirstReceiveTimestamp"], "MessageGroupId": "g", "MessageDeduplicationId": "1",
			"SequenceNumber": sequence, "AWSTraceHeader": "r"}}}}, received)
	require.Equal(t, map[string]any{}, post("ReceiveMessage", `{"QueueUrl":"q.fifo"}`), "nothing is an empty object")
	batch := post("SendMessageBatch", `{"QueueUrl":"q.fifo","Entries":[{"Id":"a","MessageBody":"m","MessageGroupId":"g","MessageDeduplicationId":"2"},
		{"Id":"b","MessageBody":"\u0001","MessageGroupId":"g","MessageDeduplicationId":"3"}]}`)
	good := batch["Successful"].([]any)[0].(map[string]any)
	require.Equal(t, map[string]any{"Id": "a", "MD5OfMessageBody": md5Of("m"), "MessageId": good["MessageId"], "SequenceNumber": good["SequenceNumber"]}, good)
	require.Equal(t, []any{map[string]any{"Id": "b", "Code": "InvalidMessageContents", "SenderFault": true, "Message": batch["Failed"].([]any)[0].(map[string]any)["Message"]}}, batch["Failed"])
	require.Len(t, batch, 2)
}
