package fakeaws

import "net/http"

// Errors of SQS: the shape's name, the code in the Query protocol, and the
// status, as in the service's model.
var (
	errBatchEntryIdsNotDistinct     = apiError{shape: "BatchEntryIdsNotDistinct", code: "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"}
	errBatchRequestTooLong          = apiError{shape: "BatchRequestTooLong", code: "AWS.SimpleQueueService.BatchRequestTooLong"}
	errEmptyBatchRequest            = apiError{shape: "EmptyBatchRequest", code: "AWS.SimpleQueueService.EmptyBatchRequest"}
	errInvalidAddress               = apiError{shape: "InvalidAddress", status: http.StatusNotFound}
	errInvalidAttributeName         = apiError{shape: "InvalidAttributeName"}
	errInvalidAttributeValue        = apiError{shape: "InvalidAttributeValue"}
	errInvalidBatchEntryID          = apiError{shape: "InvalidBatchEntryId", code: "AWS.SimpleQueueService.InvalidBatchEntryId"}
	errInvalidIDFormat              = apiError{shape: "InvalidIdFormat"}
	errInvalidSecurity              = apiError{shape: "InvalidSecurity", status: http.StatusForbidden}
	errRequestThrottled             = apiError{shape: "RequestThrottled", status: http.StatusForbidden}
	errInvalidMessageContents       = apiError{shape: "InvalidMessageContents"}
	errMessageNotInflight           = apiError{shape: "MessageNotInflight", code: "AWS.SimpleQueueService.MessageNotInflight"}
	errOverLimit                    = apiError{shape: "OverLimit", status: http.StatusForbidden}
	errPurgeQueueInProgress         = apiError{shape: "PurgeQueueInProgress", code: "AWS.SimpleQueueService.PurgeQueueInProgress", status: http.StatusForbidden}
	errQueueDeletedRecently         = apiError{shape: "QueueDeletedRecently", code: "AWS.SimpleQueueService.QueueDeletedRecently"}
	errQueueDoesNotExist            = apiError{shape: "QueueDoesNotExist", code: "AWS.SimpleQueueService.NonExistentQueue"}
	errQueueNameExists              = apiError{shape: "QueueNameExists", code: "QueueAlreadyExists"}
	errReceiptHandleIsInvalid       = apiError{shape: "ReceiptHandleIsInvalid", status: http.StatusNotFound}
	errResourceNotFound             = apiError{shape: "ResourceNotFoundException", status: http.StatusNotFound}
	errTooManyEntriesInBatchRequest = apiError{shape: "TooManyEntriesInBatchRequest", code: "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"}
	errUnsupportedOperation         = apiError{shape: "UnsupportedOperation", code: "AWS.SimpleQueueService.UnsupportedOperation"}
)

// sqsErrors are those errors, and what faults are made of.
var sqsErrors = []apiError{errBatchEntryIdsNotDistinct, errBatchRequestTooLong, errEmptyBatchRequest, errInvalidAddress, errInvalidAttributeName, errInvalidAttributeValue, errInvalidBatchEntryID, errInvalidIDFormat, errInvalidSecurity, errRequestThrottled, errInvalidMessageContents, errMessageNotInflight, errOverLimit, errPurgeQueueInProgress, errQueueDeletedRecently, errQueueDoesNotExist, errQueueNameExists, errReceiptHandleIsInvalid, errResourceNotFound, errTooManyEntriesInBatchRequest, errUnsupportedOperation,
	errInvalidParameterValue, errMissingParameter, errAccessDenied, errUnknownOperation, errInternal}
