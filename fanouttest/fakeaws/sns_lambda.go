package fakeaws

import "strings"

// checkFunction checks the endpoint of a subscription of the protocol lambda. As
// in SNS, the function need not exist. It returns the function's account.
func (s *subscription) checkFunction() (owner string, err error) {
	a, ok := parseARN(s.endpoint)
	switch {
	case !ok || a.service != "lambda" || !strings.HasPrefix(a.resource, "function:"):
		return "", invalidParameter("Lambda endpoint ARN")
	case s.topic.fifo:
		return "", invalidParameter("Invalid parameter: Endpoint Reason: Please use FIFO SQS queue")
	case a.account != s.owner:
		return "", invalidParameter("Endpoint Reason: fakeaws has a function subscribed by its own account only")
	}
	return a.account, nil
}

// invokeFunctionLocked hands a message to a subscription's function. Lambda takes it at
// once and runs the function later. SNS does not try again if there is no such
// function: that is the client's fault.
func (c *call) invokeFunctionLocked(s *subscription, n *notification, told *TopicDelivery) {
	told.Attempts = 1
	f := c.functionByARNLocked(s.endpoint)
	if f == nil {
		c.failLocked(s, s.contentOf(c, n), "ResourceNotFoundException", "there is no function "+s.endpoint, told)
		return
	}
	told.Outcome = Delivered
	e := s.envelopeOf(c, n)
	if c.signedEnvelopes {
		e.sign(s.topic.signatureVersion(), c.snsURL(s.topic))
	}
	r := snsRecord{EventSource: "aws:sns", EventVersion: "1.0", EventSubscriptionARN: s.arn, SNS: snsEntity{Type: e.Type, MessageID: e.MessageID,
		TopicARN: e.TopicArn, Message: e.Message, Timestamp: e.Timestamp,
		SignatureVersion: e.SignatureVersion, Signature: e.Signature, SigningCertURL: e.SigningCertURL, UnsubscribeURL: e.UnsubscribeURL, MessageAttributes: e.MessageAttributes}}
	if e.Subject != "" {
		r.SNS.Subject = &e.Subject
	}
	if r.SNS.MessageAttributes == nil {
		r.SNS.MessageAttributes = map[string]envelopeAttribute{}
	}
	payload, _ := encodeJSON(snsEvent{[]snsRecord{r}}) // strings do not fail
	f.invokeLocked(s.topic.arn, payload)
}
