package fakeaws

import "net/http"

// Errors of SNS: the code, and the status as in the service's model.
var (
	errSNSAuthorization     = apiError{shape: "AuthorizationError", status: http.StatusForbidden}
	errSNSBatchIDs          = apiError{shape: "BatchEntryIdsNotDistinct"}
	errSNSBatchTooLong      = apiError{shape: "BatchRequestTooLong"}
	errSNSEmptyBatch        = apiError{shape: "EmptyBatchRequest"}
	errSNSFilterPolicyLimit = apiError{shape: "FilterPolicyLimitExceeded", status: http.StatusForbidden}
	errSNSInvalidBatchID    = apiError{shape: "InvalidBatchEntryId"}
	errSNSInvalidParameter  = apiError{shape: "InvalidParameter"}
	errSNSNotFound          = apiError{shape: "NotFound", status: http.StatusNotFound}
	errSNSParameterValue    = apiError{shape: "ParameterValueInvalid"}
	errSNSResourceNotFound  = apiError{shape: "ResourceNotFound", status: http.StatusNotFound}
	errSNSTagLimit          = apiError{shape: "TagLimitExceeded"}
	errSNSTooManyEntries    = apiError{shape: "TooManyEntriesInBatchRequest"}
	errValidation           = apiError{shape: "ValidationError"}
)

// snsErrors are the errors of SNS's model among them.
var snsErrors = []apiError{errSNSAuthorization, errSNSBatchIDs, errSNSBatchTooLong, errSNSEmptyBatch, errSNSFilterPolicyLimit, errSNSInvalidBatchID,
	errSNSInvalidParameter, errSNSNotFound, errSNSParameterValue, errSNSResourceNotFound, errSNSTagLimit, errSNSTooManyEntries}

// invalidParameter is the error for a parameter that SNS does not take.
func invalidParameter(format string, args ...any) *apiError {
	return errSNSInvalidParameter.with("Invalid parameter: "+format, args...)
}
