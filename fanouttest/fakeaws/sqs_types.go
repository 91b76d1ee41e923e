//lint:file-ignore ST1003 The names are those of the API, which the wire has.

package fakeaws

// The parameters and results of SQS's operations, named as in the API. Pointers
// tell what was given from what was not.

type attributeValue struct {
	BinaryListValues [][]byte `json:",omitempty"`
	BinaryValue      []byte   `json:",omitempty"`
	DataType         *string  `json:",omitempty"`
	StringListValues []string `json:",omitempty"`
	StringValue      *string  `json:",omitempty"`
}

type createQueueInput struct {
	QueueName  *string
	Attributes map[string]string
	Tags       map[string]string `json:"tags"`
}

type queueURLOutput struct {
	QueueUrl string
}

type getQueueURLInput struct {
	QueueName              *string
	QueueOwnerAWSAccountId *string
}

type queueInput struct {
	QueueUrl *string
}

type emptyOutput struct{}

type sendMessageInput struct {
	QueueUrl                *string
	MessageBody             *string
	DelaySeconds            *int32
	MessageAttributes       map[string]attributeValue
	MessageSystemAttributes map[string]attributeValue
	MessageDeduplicationId  *string
	MessageGroupId          *string
}

type sendMessageOutput struct {
	MD5OfMessageAttributes       string `json:",omitempty"`
	MD5OfMessageBody             string
	MD5OfMessageSystemAttributes string `json:",omitempty"`
	MessageId                    string
	SequenceNumber               string `json:",omitempty"`
}

type sendMessageBatchEntry struct {
	Id                      *string
	MessageBody             *string
	DelaySeconds            *int32
	MessageAttributes       map[string]attributeValue
	MessageSystemAttributes map[string]attributeValue
	MessageDeduplicationId  *string
	MessageGroupId          *string
}

type sendMessageBatchInput struct {
	QueueUrl *string
	Entries  []sendMessageBatchEntry
}

type sendMessageBatchResult struct {
	Id string
	sendMessageOutput
}

type batchFailure struct {
	Code        string
	Id          string
	Message     string `json:",omitempty"`
	SenderFault bool
}

type sendMessageBatchOutput struct {
	Failed     []batchFailure           `json:",omitempty"`
	Successful []sendMessageBatchResult `json:",omitempty"`
}

type receiveMessageInput struct {
	QueueUrl                    *string
	AttributeNames              []string
	MaxNumberOfMessages         *int32
	MessageAttributeNames       []string
	MessageSystemAttributeNames []string
	ReceiveRequestAttemptId     *string
	VisibilityTimeout           *int32
	WaitTimeSeconds             *int32
}

type receivedMessage struct {
	Attributes             map[string]string         `json:",omitempty"`
	Body                   string                    `json:",omitempty"`
	MD5OfBody              string                    `json:",omitempty"`
	MD5OfMessageAttributes string                    `json:",omitempty"`
	MessageAttributes      map[string]attributeValue `json:",omitempty"`
	MessageId              string                    `json:",omitempty"`
	ReceiptHandle          string                    `json:",omitempty"`
}

type receiveMessageOutput struct {
	Messages []receivedMessage `json:",omitempty"`
}

type deleteMessageInput struct {
	QueueUrl      *string
	ReceiptHandle *string
}

type deleteMessageBatchEntry struct {
	Id            *string
	ReceiptHandle *string
}

type deleteMessageBatchInput struct {
	QueueUrl *string
	Entries  []deleteMessageBatchEntry
}

type changeMessageVisibilityInput struct {
	QueueUrl          *string
	ReceiptHandle     *string
	VisibilityTimeout *int32
}

type changeMessageVisibilityBatchEntry struct {
	Id                *string
	ReceiptHandle     *string
	VisibilityTimeout *int32
}

type changeMessageVisibilityBatchInput struct {
	QueueUrl *string
	Entries  []changeMessageVisibilityBatchEntry
}

type batchResult struct {
	Id string
}

type batchOutput struct {
	Failed     []batchFailure `json:",omitempty"`
	Successful []batchResult  `json:",omitempty"`
}

type setQueueAttributesInput struct {
	QueueUrl   *string
	Attributes map[string]string
}

type getQueueAttributesInput struct {
	QueueUrl       *string
	AttributeNames []string
}

type getQueueAttributesOutput struct {
	Attributes map[string]string `json:",omitempty"`
}

type listQueuesInput struct {
	MaxResults      *int32
	NextToken       *string
	QueueNamePrefix *string
}

type listQueuesOutput struct {
	NextToken string   `json:",omitempty"`
	QueueUrls []string `json:",omitempty"`
}

type listDeadLetterSourceQueuesInput struct {
	QueueUrl   *string
	MaxResults *int32
	NextToken  *string
}

type listDeadLetterSourceQueuesOutput struct {
	NextToken string   `json:",omitempty"`
	QueueUrls []string `json:"queueUrls"`
}

type tagQueueInput struct {
	QueueUrl *string
	Tags     map[string]string
}

type untagQueueInput struct {
	QueueUrl *string
	TagKeys  []string
}

type listQueueTagsOutput struct {
	Tags map[string]string `json:",omitempty"`
}

type addPermissionInput struct {
	QueueUrl      *string
	AWSAccountIds []string
	Actions       []string
	Label         *string
}

type removePermissionInput struct {
	QueueUrl *string
	Label    *string
}

type startMessageMoveTaskInput struct {
	SourceArn                    *string
	DestinationArn               *string
	MaxNumberOfMessagesPerSecond *int32
}

type startMessageMoveTaskOutput struct {
	TaskHandle string
}

type listMessageMoveTasksInput struct {
	SourceArn  *string
	MaxResults *int32
}

type messageMoveTask struct {
	ApproximateNumberOfMessagesMoved  int64
	ApproximateNumberOfMessagesToMove *int64 `json:",omitempty"`
	DestinationArn                    string `json:",omitempty"`
	FailureReason                     string `json:",omitempty"`
	MaxNumberOfMessagesPerSecond      *int32 `json:",omitempty"`
	SourceArn                         string `json:",omitempty"`
	StartedTimestamp                  int64
	Status                            string `json:",omitempty"`
	TaskHandle                        string `json:",omitempty"`
}

type listMessageMoveTasksOutput struct {
	Results []messageMoveTask `json:",omitempty"`
}

type cancelMessageMoveTaskInput struct {
	TaskHandle *string
}

type cancelMessageMoveTaskOutput struct {
	ApproximateNumberOfMessagesMoved int64
}
