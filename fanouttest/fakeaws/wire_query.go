package fakeaws

import (
	"bytes"
	"encoding/xml"
	"net/http"
	"net/url"
	"strings"
)

// snsNamespace is that of SNS's answers.
const snsNamespace = "http://sns.amazonaws.com/doc/2010-03-31/"

// serveQuery answers a request to SNS in AWS's Query protocol.
func (c *call) serveQuery(form url.Values) (response, error) {
	c.operation = form.Get("Action")
	op := snsOperations[c.operation]
	if op == nil {
		return c.answerQuery(nil, errUnknownOperation.with("The action %s is not valid for this endpoint.", c.operation)), nil
	}
	arn := form.Get("TopicArn")
	err := c.begin(arn[strings.LastIndex(arn, ":")+1:])
	var out any
	if err == nil {
		out, err = op(c, form)
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

// answerQuery encodes an answer in AWS's Query protocol. out is encoded by
// encoding/xml as <OperationResult>; nil stands for an operation that returns
// nothing. A nil *apiError is not an error.
func (c *call) answerQuery(out any, e *apiError) response {
	var b bytes.Buffer
	if e != nil {
		c.failed = e
		b.WriteString(`<ErrorResponse xmlns="` + snsNamespace + `"><Error><Type>` + e.fault() + `</Type><Code>` + escapeXML(e.queryCode()) +
			`</Code><Message>` + escapeXML(e.message) + `</Message></Error><RequestId>` + c.requestID + `</RequestId></ErrorResponse>`)
		return response{status: e.httpStatus(), header: c.header("text/xml"), body: b.Bytes()}
	}
	b.WriteString(`<` + c.operation + `Response xmlns="` + snsNamespace + `">`)
	if out != nil {
		if err := xml.NewEncoder(&b).EncodeElement(out, xml.StartElement{Name: xml.Name{Local: c.operation + "Result"}}); err != nil {
			return c.answerQuery(nil, errInternal.with("fakeaws cannot encode the answer: %v.", err))
		}
	}
	b.WriteString(`<ResponseMetadata><RequestId>` + c.requestID + `</RequestId></ResponseMetadata></` + c.operation + `Response>`)
	return response{status: http.StatusOK, header: c.header("text/xml"), body: b.Bytes()}
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
