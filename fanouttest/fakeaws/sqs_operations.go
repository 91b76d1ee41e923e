package fakeaws

import "errors"

// An sqsOperation runs an operation of SQS.
type sqsOperation struct {
	input  func() any // a pointer to the parameters
	output func() any // a pointer to a result
	run    func(c *call, in any) (any, error)
}

// sqsOperationOf makes an operation of a function. An error that is an
// *apiError is the service's answer; any other loses the connection.
func sqsOperationOf[In, Out any](f func(*call, *In) (*Out, error)) sqsOperation {
	return sqsOperation{
		input:  func() any { return new(In) },
		output: func() any { return new(Out) },
		run: func(c *call, in any) (any, error) {
			out, err := f(c, in.(*In))
			if err != nil {
				return nil, err
			}
			return out, nil
		},
	}
}

// sqsOperations are the operations of SQS by name.
var sqsOperations map[string]sqsOperation

func init() {
	sqsOperations = map[string]sqsOperation{
		"AddPermission":                sqsOperationOf((*call).addPermission),
		"CancelMessageMoveTask":        sqsOperationOf((*call).cancelMessageMoveTask),
		"ChangeMessageVisibility":      sqsOperationOf((*call).changeMessageVisibility),
		"ChangeMessageVisibilityBatch": sqsOperationOf((*call).changeMessageVisibilityBatch),
		"CreateQueue":                  sqsOperationOf((*call).createQueue),
		"DeleteMessage":                sqsOperationOf((*call).deleteMessage),
		"DeleteMessageBatch":           sqsOperationOf((*call).deleteMessageBatch),
		"DeleteQueue":                  sqsOperationOf((*call).deleteQueue),
		"GetQueueAttributes":           sqsOperationOf((*call).getQueueAttributes),
		"GetQueueUrl":                  sqsOperationOf((*call).getQueueURL),
		"ListDeadLetterSourceQueues":   sqsOperationOf((*call).listDeadLetterSourceQueues),
		"ListMessageMoveTasks":         sqsOperationOf((*call).listMessageMoveTasks),
		"ListQueueTags":                sqsOperationOf((*call).listQueueTags),
		"ListQueues":                   sqsOperationOf((*call).listQueues),
		"PurgeQueue":                   sqsOperationOf((*call).purgeQueue),
		"ReceiveMessage":               sqsOperationOf((*call).receiveMessage),
		"RemovePermission":             sqsOperationOf((*call).removePermission),
		"SendMessage":                  sqsOperationOf((*call).sendMessage),
		"SendMessageBatch":             sqsOperationOf((*call).sendMessageBatch),
		"SetQueueAttributes":           sqsOperationOf((*call).setQueueAttributes),
		"StartMessageMoveTask":         sqsOperationOf((*call).startMessageMoveTask),
		"TagQueue":                     sqsOperationOf((*call).tagQueue),
		"UntagQueue":                   sqsOperationOf((*call).untagQueue),
	}
}

// asAPIError returns the service's answer that err is, if it is one.
func asAPIError(err error) (*apiError, bool) {
	var e *apiError
	ok := errors.As(err, &e)
	return e, ok
}
