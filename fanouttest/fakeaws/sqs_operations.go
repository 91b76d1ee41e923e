package fakeaws

import "errors"

// An sqsOperation runs an operation of SQS.
type sqsOperation struct {
	input func() any // a pointer to the parameters
	run   func(c *call, in any) (any, error)
}

// sqsOperationOf makes an operation of a function. An error that is an
// *apiError is the service's answer; any other loses the connection.
func sqsOperationOf[In, Out any](f func(*call, *In) (*Out, error)) sqsOperation {
	return sqsOperation{
		input: func() any { return new(In) },
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
var sqsOperations = map[string]sqsOperation{
	"CreateQueue":    sqsOperationOf((*call).createQueue),
	"DeleteMessage":  sqsOperationOf((*call).deleteMessage),
	"ReceiveMessage": sqsOperationOf((*call).receiveMessage),
	"SendMessage":    sqsOperationOf((*call).sendMessage),
}

// asAPIError returns the service's answer that err is, if it is one.
func asAPIError(err error) (*apiError, bool) {
	var e *apiError
	ok := errors.As(err, &e)
	return e, ok
}
