package onengine

import (
	"fmt"
	"reflect"

	"github.com/gofanout/fanout/internal/jsontype"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// checkJSON returns an error if the JSON of an engine's messages can't bring values of
// type t back: it would be noticed when they are received, one by one, on their way to the
// dead letters. The error names t and the field, and says what to do.
func (r *Topic) checkJSON(t reflect.Type) error {
	if _, ok := r.Codec.(settings.JSON); !ok {
		return nil
	}
	path, why := jsontype.Unreadable(t)
	if why == "" {
		return nil
	}
	return fmt.Errorf("%w: a topic of %v on engine %q: JSON can't bring %s back, %s: give NewTopic a codec (fanout.WithCodec), "+
		"use another type, or give that type MarshalJSON and UnmarshalJSON; a field that needs not travel is left out by the tag json:\"-\"",
		message.ErrUnsupported, t, r.Engine.Name(), path, why)
}
