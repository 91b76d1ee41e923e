//lint:file-ignore ST1003 The names are those of the API, which the wire has.

package fakeaws

// The parameters and results of SNS's operations, named as in the API.

type snsTag struct{ Key, Value string }

type snsAttributeValue struct {
	BinaryValue []byte
	DataType    *string
	StringValue *string
}

type createTopicInput struct {
	Name                 *string
	Attributes           map[string]string
	DataProtectionPolicy *string
	Tags                 []snsTag
}

type topicOutput struct{ TopicArn string }

type topicInput struct{ TopicArn *string }

type listTopicsInput struct{ NextToken *string }

type listTopicsOutput struct {
	NextToken string
	Topics    []topicOutput
}

type snsAttributesOutput struct{ Attributes map[string]string }

type setTopicAttributesInput struct {
	TopicArn       *string
	AttributeName  *string
	AttributeValue *string
}

type subscribeInput struct {
	TopicArn              *string
	Protocol              *string
	Endpoint              *string
	Attributes            map[string]string
	ReturnSubscriptionArn *bool
}

type subscriptionOutput struct{ SubscriptionArn string }

type confirmSubscriptionInput struct {
	TopicArn                  *string
	Token                     *string
	AuthenticateOnUnsubscribe *string
}

type subscriptionInput struct{ SubscriptionArn *string }

type setSubscriptionAttributesInput struct {
	SubscriptionArn *string
	AttributeName   *string
	AttributeValue  *string
}

type listSubscriptionsByTopicInput struct {
	TopicArn  *string
	NextToken *string
}

type snsSubscription struct{ Endpoint, Owner, Protocol, SubscriptionArn, TopicArn string }

type listSubscriptionsOutput struct {
	NextToken     string
	Subscriptions []snsSubscription
}

type publishInput struct {
	TopicArn               *string
	TargetArn              *string
	PhoneNumber            *string
	Message                *string
	Subject                *string
	MessageStructure       *string
	MessageAttributes      map[string]snsAttributeValue
	MessageDeduplicationId *string
	MessageGroupId         *string
}

type publishOutput struct{ MessageId, SequenceNumber string }

type publishBatchEntry struct {
	Id                     *string
	Message                *string
	Subject                *string
	MessageStructure       *string
	MessageAttributes      map[string]snsAttributeValue
	MessageDeduplicationId *string
	MessageGroupId         *string
}

type publishBatchInput struct {
	TopicArn                   *string
	PublishBatchRequestEntries []publishBatchEntry
}

type publishBatchResult struct{ Id, MessageId, SequenceNumber string }

type publishBatchOutput struct {
	Failed     []batchFailure
	Successful []publishBatchResult
}

type addTopicPermissionInput struct {
	TopicArn     *string
	Label        *string
	AWSAccountId []string
	ActionName   []string
}

type removeTopicPermissionInput struct {
	TopicArn *string
	Label    *string
}

type tagResourceInput struct {
	ResourceArn *string
	Tags        []snsTag
}

type untagResourceInput struct {
	ResourceArn *string
	TagKeys     []string
}

type resourceInput struct{ ResourceArn *string }

type listTagsOutput struct{ Tags []snsTag }
