package fakeaws

// What functions get, as JSON: package events of aws-lambda-go reads it.

// An sqsEvent is a batch of messages of a queue.
type sqsEvent struct{ Records []sqsRecord }

type sqsRecord struct {
	MessageID              string                        `json:"messageId"`
	ReceiptHandle          string                        `json:"receiptHandle"`
	Body                   string                        `json:"body"`
	Attributes             map[string]string             `json:"attributes"`
	MessageAttributes      map[string]sqsRecordAttribute `json:"messageAttributes"`
	MD5OfMessageAttributes string                        `json:"md5OfMessageAttributes,omitempty"`
	MD5OfBody              string                        `json:"md5OfBody"`
	EventSource            string                        `json:"eventSource"`
	EventSourceARN         string                        `json:"eventSourceARN"`
	AWSRegion              string                        `json:"awsRegion"`
}

type sqsRecordAttribute struct {
	StringValue      *string  `json:"stringValue,omitempty"`
	BinaryValue      []byte   `json:"binaryValue,omitempty"`
	StringListValues []string `json:"stringListValues"`
	BinaryListValues [][]byte `json:"binaryListValues"`
	DataType         string   `json:"dataType"`
}

// recordOf returns the record of a message.
func (m *Mapping) recordOf(d *delivery) sqsRecord {
	q := m.queue
	r := sqsRecord{MessageID: d.id, ReceiptHandle: d.handle, Body: d.body, Attributes: (&call{cloud: q.cloud}).systemAttributes(d),
		MessageAttributes: map[string]sqsRecordAttribute{}, MD5OfMessageAttributes: d.attributesMD5, MD5OfBody: d.bodyMD5,
		EventSource: "aws:sqs", EventSourceARN: q.arn, AWSRegion: q.region.region}
	for name, a := range d.attributes {
		r.MessageAttributes[name] = sqsRecordAttribute{StringValue: a.StringValue, BinaryValue: a.BinaryValue,
			StringListValues: []string{}, BinaryListValues: [][]byte{}, DataType: deref(a.DataType)}
	}
	return r
}

// An snsEvent is a message of a topic.
type snsEvent struct{ Records []snsRecord }

type snsRecord struct {
	EventSource          string
	EventVersion         string
	EventSubscriptionARN string    `json:"EventSubscriptionArn"`
	SNS                  snsEntity `json:"Sns"`
}

type snsEntity struct {
	Type              string
	MessageID         string `json:"MessageId"`
	TopicARN          string `json:"TopicArn"`
	Subject           *string
	Message           string
	Timestamp         string
	SignatureVersion  string `json:",omitempty"`
	Signature         string `json:",omitempty"`
	SigningCertURL    string `json:"SigningCertUrl,omitempty"`
	UnsubscribeURL    string `json:"UnsubscribeUrl"`
	MessageAttributes map[string]envelopeAttribute
}
