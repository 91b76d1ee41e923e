package fakeaws

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
)

// sqsTarget begins the X-Amz-Target of SQS's operations.
const sqsTarget = "AmazonSQS."

// serveJSON answers a request to SQS in AWS's JSON protocol.
func (c *call) serveJSON(operation string, r request) (response, error) {
	c.operation = operation
	compatible := r.header.Get("X-Amzn-Query-Mode") == "true"
	op, ok := sqsOperations[operation]
	if !ok {
		return c.answerJSON(nil, errUnknownOperation.with("The action %s is not valid for this endpoint.", operation), compatible), nil
	}
	in := op.input()
	if e := decodeJSON(operation, r.body, in); e != nil {
		return c.answerJSON(nil, e, compatible), nil
	}
	err := c.begin(resourceOf(in))
	var out any
	if err == nil {
		out, err = op.run(c, in)
		err = c.end(err)
	}
	if e, ok := asAPIError(err); ok {
		return c.answerJSON(nil, e, compatible), nil
	}
	if err != nil {
		return response{}, err
	}
	return c.answerJSON(out, nil, compatible), nil
}

// resourceOf returns the name of the queue that the parameters of an operation
// are about, empty if there is none.
func resourceOf(in any) string {
	v := reflect.ValueOf(in).Elem()
	for _, name := range []string{"QueueUrl", "QueueName", "SourceArn"} {
		if f := v.FieldByName(name); f.IsValid() && !f.IsNil() {
			s := f.Elem().String()
			return s[strings.LastIndexAny(s, "/:")+1:]
		}
	}
	return ""
}

// answerJSON encodes an answer in AWS's JSON protocol, version 1.0. compatible
// says that the client asked for the codes of the Query protocol, which go into
// a header of their own.
func (c *call) answerJSON(out any, e *apiError, compatible bool) response {
	h := c.header("application/x-amz-json-1.0")
	if e == nil {
		body, err := encodeJSON(out)
		if err == nil {
			return response{status: http.StatusOK, header: h, body: body}
		}
		e = errInternal.with("fakeaws cannot encode the answer: %v.", err)
	}
	c.failed = e
	shape := e.shape
	if !strings.Contains(shape, "#") {
		shape = "com.amazonaws.sqs#" + shape
	}
	if compatible {
		h["X-Amzn-Query-Error"] = []string{e.queryCode() + ";" + e.fault()}
	}
	body, _ := encodeJSON(struct {
		Type    string `json:"__type"`
		Message string `json:"message,omitempty"`
	}{shape, e.message}) // two strings do not fail
	return response{status: e.httpStatus(), header: h, body: body}
}

// encodeJSON encodes without the escapes that are for HTML alone.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decodeJSON reads the parameters of an operation into in, a pointer to a
// struct. Unlike encoding/json it takes names only as they are written, and
// refuses those that it does not know, in structures within too.
func decodeJSON(operation string, body []byte, in any) *apiError {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := decodeValue(operation, "", body, reflect.ValueOf(in).Elem()); err != nil {
		return errSerialization.with("%v", err)
	}
	return nil
}

// decodeValue reads one value. path is where it is, for errors.
func decodeValue(operation, path string, data json.RawMessage, v reflect.Value) error {
	if string(data) == "null" {
		return nil
	}
	switch {
	case v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct, v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Map:
		v.Set(reflect.New(v.Type().Elem()))
		return decodeValue(operation, path, data, v.Elem())
	case v.Kind() == reflect.Struct:
		var members map[string]json.RawMessage
		if err := json.Unmarshal(data, &members); err != nil {
			return wrongType(path, data)
		}
		for name, member := range members {
			k, ok := memberOf(v.Type(), name)
			if !ok {
				return fmt.Errorf("%s has no parameter %s", operation, join(path, name))
			}
			if err := decodeValue(operation, join(path, name), member, v.Field(k)); err != nil {
				return err
			}
		}
		return nil
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		var members []json.RawMessage
		if err := json.Unmarshal(data, &members); err != nil {
			return wrongType(path, data)
		}
		v.Set(reflect.MakeSlice(v.Type(), len(members), len(members)))
		for k, member := range members {
			if err := decodeValue(operation, fmt.Sprintf("%s.%d", path, k+1), member, v.Index(k)); err != nil {
				return err
			}
		}
		return nil
	case v.Kind() == reflect.Map && v.Type().Elem().Kind() == reflect.Struct:
		var members map[string]json.RawMessage
		if err := json.Unmarshal(data, &members); err != nil {
			return wrongType(path, data)
		}
		v.Set(reflect.MakeMapWithSize(v.Type(), len(members)))
		for name, member := range members {
			value := reflect.New(v.Type().Elem()).Elem()
			if err := decodeValue(operation, join(path, name), member, value); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(name), value)
		}
		return nil
	}
	if err := json.Unmarshal(data, v.Addr().Interface()); err != nil {
		return wrongType(path, data)
	}
	return nil
}

// memberOf returns the index of the field that has a name in the protocol.
func memberOf(t reflect.Type, name string) (index int, ok bool) {
	for k := range t.NumField() {
		f := t.Field(k)
		called, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if called == "" {
			called = f.Name
		}
		if called == name {
			return k, true
		}
	}
	return 0, false
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// wrongType says that a value is not of the type that its parameter has.
func wrongType(path string, data json.RawMessage) error {
	text := string(data)
	if len(text) > 100 {
		text = text[:100] + "..."
	}
	if path == "" {
		return fmt.Errorf("the request is no JSON object: %s", text)
	}
	return fmt.Errorf("the parameter %s has a value of the wrong type: %s", path, text)
}
