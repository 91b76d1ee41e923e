package fanoutnats

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Codes of the JetStream API that package jetstream has no names for.
const (
	codeStoreFailed     jetstream.ErrorCode = 10077
	codeStoreLimit      jetstream.ErrorCode = 10047
	codeNoResources     jetstream.ErrorCode = 10023
	codeMessageTooLarge jetstream.ErrorCode = 10054
	codeHeaderTooLarge  jetstream.ErrorCode = 10097
	codeNotThisStream   jetstream.ErrorCode = 10060
	codeBatchIncomplete jetstream.ErrorCode = 10176
	codeBatchDuplicate  jetstream.ErrorCode = 10201
	codeBatchTooMany    jetstream.ErrorCode = 10210
	codeNotLeader       jetstream.ErrorCode = 10009
	codeNotAvailable    jetstream.ErrorCode = 10008
)

// explain wraps the contract's error into an answer of a server that means it.
func explain(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", engine.ErrTooLarge, err)
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("no JetStream server answers for the stream: %w", err)
	case !errors.As(err, &api):
		return err
	}
	switch {
	case api.ErrorCode == codeMessageTooLarge, api.ErrorCode == codeHeaderTooLarge:
		return fmt.Errorf("%w: %w", engine.ErrTooLarge, err)
	case api.ErrorCode == codeStoreLimit, api.ErrorCode == codeNoResources,
		api.ErrorCode == codeStoreFailed && (strings.Contains(api.Description, "exceeded") || strings.Contains(api.Description, "insufficient")):
		return fmt.Errorf("%w: %w", engine.ErrFull, err)
	}
	return err
}

// mismatch is the error for something that exists with another setting.
func mismatch(what, setting string, has, want any) error {
	return fmt.Errorf("%w: %s has %s %v, want %v", engine.ErrMismatch, what, setting, has, want)
}

// code returns the JetStream code of err, 0 if it has none.
func code(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode
	}
	return 0
}
