package fanout

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/jsontype"
)

// A Codec turns bodies into bytes and back, for engines. In memory there is no codec: bodies
// are passed on as they are.
//
// Its methods are called concurrently. Decode gets a pointer to the topic's type. If Encode
// returns an error or panics, the publish fails. If Decode returns an error, the message
// goes to the dead-letter queue at once, which delivers it with the zero Body, see
// [Delivery.Encoded]. If Decode panics or calls [runtime.Goexit], that is a failed attempt
// at the message.
type Codec interface {
	Encode(body any) ([]byte, error)
	Decode(data []byte, body any) error
	// ContentType names the encoding, as in HTTP.
	ContentType() string
}

// JSON is the codec of engines unless [WithCodec] sets another: that of package
// encoding/json. On an engine NewTopic refuses a T with [ErrUnsupported] if JSON can't
// decode it: an interface with methods, a func, a chan or a complex number, as T itself or
// in an exported field at any depth, and a struct without exported fields. It accepts any,
// struct{}, and types that have JSON or text methods of their own. For an interface write a
// codec that says which type a value has.
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) Encode(body any) ([]byte, error)    { return json.Marshal(body) }
func (jsonCodec) Decode(data []byte, body any) error { return json.Unmarshal(data, body) }
func (jsonCodec) ContentType() string                { return "application/json" }

// WithCodec sets how bodies are encoded for an engine. The default is [JSON]. Without
// [WithEngine] nothing is encoded, and the codec is not used. A nil codec is
// [ErrInvalidOption].
func WithCodec(c Codec) TopicOption {
	return topicOption(func(s *topicSettings) error {
		if c == nil {
			return invalid("WithCodec", nil, "a codec")
		}
		s.codec = c
		return nil
	})
}

// WithEngine has an engine keep the topic's queues, and not the memory of the process: NATS
// JetStream, Amazon SNS + SQS, or one of your own, see package engine. Handlers, options,
// retries, histories and hooks stay the same, except that the errors in a history are their
// texts, see [Delivery.History].
//
// Two promises are not supported by every engine: that queues are bounded ([engine.Bounded])
// and that a publish is all or none ([engine.AllOrNone]). [Without] names those that you
// give up. If the engine does not support one and you have not named it, NewTopic fails with
// [ErrUnsupported], and the error shows the call to write. Any other option that the engine
// does not support is refused where it is given; the error names the engine and the option,
// and says what would work instead.
func WithEngine(e engine.Engine, options ...EngineOption) TopicOption {
	return topicOption(func(s *topicSettings) error {
		if e == nil {
			return invalid("WithEngine", nil, "an engine")
		}
		s.engine, s.without = e, nil
		return applyAll(options, func(o EngineOption) error { return o.applyEngine(s) })
	})
}

// Without names the promises that the topic gives up because its engine does not support
// them: [engine.Bounded], [engine.AllOrNone] or both. Any other feature is
// [ErrInvalidOption]. If the engine supports a promise that is named here, it holds all the
// same. The default is none.
func Without(features ...engine.Feature) EngineOption {
	features = slices.Clone(features)
	return engineOption(func(s *topicSettings) error {
		for _, f := range features {
			if _, ok := dispensable[f]; !ok {
				return invalid("Without", f, "engine.Bounded or engine.AllOrNone")
			}
		}
		s.without = append(s.without, features...)
		return nil
	})
}

// dispensable are the features that a topic can do without, with their names in Go.
var dispensable = map[engine.Feature]string{engine.Bounded: "engine.Bounded", engine.AllOrNone: "engine.AllOrNone"}

// A PublishError is returned by PublishMessages on an engine that published some messages of
// a batch and not the others. It unwraps to the errors of those.
type PublishError struct {
	Topic string
	// Failed has an error for the index of each message that was not published.
	Failed map[int]error
	err    error
}

// Error says how many messages were not published, and why.
func (e *PublishError) Error() string { return e.err.Error() }

// Unwrap returns what the engine said.
func (e *PublishError) Unwrap() error { return e.err }

// checkJSON returns an error if the JSON of an engine's messages can't bring values of
// type t back: it would be noticed when they are received, one by one, on their way to the
// dead letters. The error names t and the field, and says what to do.
func (r *remoteTopic) checkJSON(t reflect.Type) error {
	if _, ok := r.codec.(jsonCodec); !ok {
		return nil
	}
	path, why := jsontype.Unreadable(t)
	if why == "" {
		return nil
	}
	return fmt.Errorf("%w: a topic of %v on engine %q: JSON can't bring %s back, %s: give NewTopic a codec (fanout.WithCodec), "+
		"use another type, or give that type MarshalJSON and UnmarshalJSON; a field that needs not travel is left out by the tag json:\"-\"",
		ErrUnsupported, t, r.engine.Name(), path, why)
}
