package fakeaws

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"reflect"
	"strings"
)

// snsNamespace is that of SNS's answers.
const snsNamespace = "http://sns.amazonaws.com/doc/2010-03-31/"

// serveQuery answers a request to SNS in AWS's Query protocol.
func (c *call) serveQuery(form url.Values) (response, error) {
	c.operation = form.Get("Action")
	op, ok := snsOperations[c.operation]
	if !ok {
		return c.answerQuery(nil, errUnknownOperation.with("The action %s is not valid for this endpoint.", c.operation)), nil
	}
	in := op.input()
	if e := decodeForm(c.operation, form, in); e != nil {
		return c.answerQuery(nil, e), nil
	}
	err := c.begin(topicOf(form))
	var out any
	if err == nil {
		out, err = op.run(c, in)
		err = c.end(err)
	}
	if e, ok := asAPIError(err); ok {
		return c.answerQuery(nil, e), nil
	}
	if err != nil {
		return response{}, err
	}
	return c.answerQuery(out, nil), nil
}

// answerQuery encodes an answer in AWS's Query protocol: out as
// <OperationResult>. A nil *apiError is not an error.
func (c *call) answerQuery(out any, e *apiError) response {
	var b strings.Builder
	if e != nil {
		c.failed = e
		b.WriteString(`<ErrorResponse xmlns="` + snsNamespace + `"><Error><Type>` + e.fault() + `</Type><Code>` + escapeXML(e.queryCode()) +
			`</Code><Message>` + escapeXML(e.message) + `</Message></Error><RequestId>` + c.requestID + `</RequestId></ErrorResponse>`)
		return response{status: e.httpStatus(), header: c.header("text/xml"), body: []byte(b.String())}
	}
	b.WriteString(`<` + c.operation + `Response xmlns="` + snsNamespace + `"><` + c.operation + `Result>`)
	encodeXML(&b, reflect.ValueOf(out))
	b.WriteString(`</` + c.operation + `Result><ResponseMetadata><RequestId>` + c.requestID + `</RequestId></ResponseMetadata></` + c.operation + `Response>`)
	return response{status: http.StatusOK, header: c.header("text/xml"), body: []byte(b.String())}
}

// header returns the header that every answer has.
func (c *call) header(contentType string) http.Header {
	return http.Header{
		"Content-Type":     {contentType},
		"X-Amzn-Requestid": {c.requestID},
		"Date":             {c.now.UTC().Format(http.TimeFormat)},
	}
}

func escapeXML(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}
