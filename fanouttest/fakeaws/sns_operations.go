package fakeaws

import "net/url"

// An snsOperation runs an operation of SNS.
type snsOperation struct {
	input  func() any // a pointer to the parameters
	output func() any // a pointer to a result
	run    func(c *call, in any) (any, error)
}

// snsOperationOf makes an operation of a function. An error that is an
// *apiError is the service's answer; any other loses the connection.
func snsOperationOf[In, Out any](f func(*call, *In) (*Out, error)) snsOperation {
	return snsOperation(sqsOperationOf(f))
}

// snsOperations are the operations of SNS by name. Those that are not here are
// answered with InvalidAction.
var snsOperations map[string]snsOperation

func init() {
	snsOperations = map[string]snsOperation{
		"AddPermission":             snsOperationOf((*call).addTopicPermission),
		"ConfirmSubscription":       snsOperationOf((*call).confirmSubscription),
		"CreateTopic":               snsOperationOf((*call).createTopic),
		"DeleteTopic":               snsOperationOf((*call).deleteTopic),
		"GetSubscriptionAttributes": snsOperationOf((*call).getSubscriptionAttributes),
		"GetTopicAttributes":        snsOperationOf((*call).getTopicAttributes),
		"ListSubscriptions":         snsOperationOf((*call).listSubscriptions),
		"ListSubscriptionsByTopic":  snsOperationOf((*call).listSubscriptionsByTopic),
		"ListTagsForResource":       snsOperationOf((*call).listTagsForResource),
		"ListTopics":                snsOperationOf((*call).listTopics),
		"Publish":                   snsOperationOf((*call).publish),
		"PublishBatch":              snsOperationOf((*call).publishBatch),
		"RemovePermission":          snsOperationOf((*call).removeTopicPermission),
		"SetSubscriptionAttributes": snsOperationOf((*call).setSubscriptionAttributes),
		"SetTopicAttributes":        snsOperationOf((*call).setTopicAttributes),
		"Subscribe":                 snsOperationOf((*call).subscribe),
		"TagResource":               snsOperationOf((*call).tagResource),
		"Unsubscribe":               snsOperationOf((*call).unsubscribe),
		"UntagResource":             snsOperationOf((*call).untagResource),
	}
}

// topicOf returns the name of the topic that a request is about, empty if there
// is none.
func topicOf(form url.Values) string {
	for _, parameter := range []string{"TopicArn", "TargetArn", "SubscriptionArn", "ResourceArn"} {
		if a, ok := parseARN(form.Get(parameter)); ok {
			name, _, _ := cutLast(a.resource)
			return name
		}
	}
	return form.Get("Name")
}
