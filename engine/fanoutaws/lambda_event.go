package fanoutaws

// An SQSEvent is what Lambda gives to a function whose event source is an SQS
// queue. It is read from the same JSON as events.SQSEvent of aws-lambda-go,
// which this module doesn't need for it.
type SQSEvent struct {
	Records []SQSRecord `json:"Records"`
}

// An SQSRecord is a message in an [SQSEvent].
type SQSRecord struct {
	MessageID      string `json:"messageId"`
	ReceiptHandle  string `json:"receiptHandle"`
	Body           string `json:"body"`
	EventSourceARN string `json:"eventSourceARN"`
	// Attributes are SQS's: ApproximateReceiveCount, SentTimestamp and so on.
	Attributes        map[string]string       `json:"attributes"`
	MessageAttributes map[string]SQSAttribute `json:"messageAttributes"`
}

// An SQSAttribute is a message attribute in an [SQSRecord].
type SQSAttribute struct {
	StringValue *string `json:"stringValue,omitempty"`
	BinaryValue []byte  `json:"binaryValue,omitempty"`
	DataType    string  `json:"dataType"`
}

// An SQSResponse says which messages of an [SQSEvent] were not done with:
// Lambda deletes the others. The event source mapping must have
// ReportBatchItemFailures among its FunctionResponseTypes, else Lambda doesn't
// look at it and deletes all.
type SQSResponse struct {
	BatchItemFailures []SQSItemFailure `json:"batchItemFailures"`
}

// An SQSItemFailure names a message in an [SQSResponse].
type SQSItemFailure struct {
	ItemIdentifier string `json:"itemIdentifier"`
}
