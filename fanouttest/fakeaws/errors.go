package fakeaws

import (
	"fmt"
	"net/http"
)

// An apiError is an answer of SQS or SNS that says no. It is encoded for the
// protocol of the request.
type apiError struct {
	// shape is the error's name in the service's model, with its namespace if
	// that is not the service's own.
	shape string
	// code is the code in the query protocol, if it differs from the shape.
	code    string
	status  int // 400 if it is 0
	message string
	// receiver says that the service is to blame, not the caller.
	receiver bool
}

// Error implements error.
func (e *apiError) Error() string { return e.queryCode() + ": " + e.message }

// queryCode is the code that users see.
func (e *apiError) queryCode() string {
	if e.code != "" {
		return e.code
	}
	return e.shape
}

func (e *apiError) httpStatus() int {
	if e.status != 0 {
		return e.status
	}
	return http.StatusBadRequest
}

func (e *apiError) fault() string {
	if e.receiver {
		return "Receiver"
	}
	return "Sender"
}

// with returns the error with another message.
func (e apiError) with(format string, args ...any) *apiError {
	e.message = fmt.Sprintf(format, args...)
	return &e
}

// coral is the namespace of the errors that all services share.
const coral = "com.amazon.coral.service#"

// Errors that both services have. The shapes are those of JSON.
var (
	errInvalidParameterValue = apiError{shape: coral + "InvalidParameterValueException", code: "InvalidParameterValue"}
	errMissingParameter      = apiError{shape: coral + "MissingRequiredParameterException", code: "MissingParameter"}
	errAccessDenied          = apiError{shape: coral + "AccessDeniedException", code: "AccessDenied", status: http.StatusForbidden}
	errUnknownOperation      = apiError{shape: coral + "UnknownOperationException", code: "InvalidAction"}
	errSerialization         = apiError{shape: coral + "SerializationException", code: "MalformedInput"}
	errInternal              = apiError{shape: coral + "InternalFailure", code: "InternalFailure", status: http.StatusInternalServerError, receiver: true}
)
