package fanoutaws

import (
	"context"
	"errors"
	"fmt"
	"strings"

	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/gofanout/fanout/engine"
)

// entryError is the error of one entry of a batch, as the client would have
// made it of a request of its own.
func entryError(code, message *string, senderFault bool) error {
	fault := smithy.FaultServer
	if senderFault {
		fault = smithy.FaultClient
	}
	return &smithy.GenericAPIError{Code: aws.ToString(code), Message: aws.ToString(message), Fault: fault}
}

func snsEntryError(e snstypes.BatchResultErrorEntry) error {
	return entryError(e.Code, e.Message, e.SenderFault)
}

func sqsEntryError(e sqstypes.BatchResultErrorEntry) error {
	return entryError(e.Code, e.Message, e.SenderFault)
}

// errNoAnswer stands for an entry of a batch that the answer doesn't mention.
var errNoAnswer = errors.New("the answer doesn't mention it")

// settleError wraps what SQS says of a lease that has ended. It says so by
// MessageNotInflight or by InvalidParameterValue, which is also its word for
// other faults: those are told by the text. Both have been seen with the
// prefix AWS.SimpleQueueService.
func settleError(err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return err
	}
	code, text := api.ErrorCode(), strings.ToLower(api.ErrorMessage())
	stale := strings.HasSuffix(code, "MessageNotInflight") ||
		strings.HasSuffix(code, "InvalidParameterValue") &&
			(strings.Contains(text, "expired") || strings.Contains(text, "not available for visibility") ||
				strings.Contains(text, "not in flight") || strings.Contains(text, "does not exist"))
	if stale {
		return fmt.Errorf("%w: %w", engine.ErrStale, err)
	}
	return err
}

// passing reports whether what failed may work soon: SQS had no time for it, or did not
// answer.
func passing(err error) bool {
	return busy(err) || errors.Is(err, errNoAnswer) || errors.Is(err, context.DeadlineExceeded)
}

// busy reports whether SQS said that it did not do something, and may do it soon.
func busy(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	return api.ErrorFault() == smithy.FaultServer || strings.Contains(api.ErrorCode(), "Throttl")
}

// isDenied reports whether AWS refuses the request to this caller.
func isDenied(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	code := api.ErrorCode()
	return code == "AuthorizationError" || strings.HasPrefix(code, "AccessDenied")
}

func isMissing(err error) bool {
	var missing *sqstypes.QueueDoesNotExist
	return errors.As(err, &missing)
}

// mismatch is an [engine.ErrMismatch] that names a setting with both values.
func mismatch(what, setting string, have, want any) error {
	return fmt.Errorf("%w: %s of %s is %v, and should be %v", engine.ErrMismatch, setting, what, have, want)
}
