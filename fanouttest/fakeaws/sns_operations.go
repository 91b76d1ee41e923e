package fakeaws

import "net/url"

// snsRegion is what one account's SNS has in one region.
type snsRegion struct{}

// An snsOperation runs an operation of SNS. What it returns is encoded as the
// operation's result, see call.answerQuery. An error that is an *apiError is the
// service's answer; any other loses the connection.
type snsOperation func(c *call, form url.Values) (any, error)

// snsOperations are the operations of SNS by name. Those that are not here are
// answered with InvalidAction.
var snsOperations = map[string]snsOperation{}

// serveURL answers requests for the URLs that SNS hands out, such as those to
// confirm a subscription. ok is false if the URL is none of them.
func (c *call) serveURL(r request) (out response, ok bool) {
	return response{}, false
}
