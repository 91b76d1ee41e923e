package fanout

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/jsontype"
)

// A Codec turns a message's body into bytes and back, for engines. The memory
// engine has none: there a body is passed on as it is.
//
// Its methods are called concurrently. Decode is given a pointer to the topic's
// type. An error or a panic of Encode makes the publish fail; what Decode refuses
// goes to the dead-letter queue at once. If Decode panics or calls
// [runtime.Goexit], that is a failed attempt at the message. A dead-letter queue delivers
// what can't be decoded with the zero Body, see [Delivery.Encoded].
type Codec interface {
	Encode(body any) ([]byte, error)
	Decode(data []byte, body any) error
	// ContentType names the encoding, as in HTTP.
	ContentType() string
}

// JSON is the codec that engines use unless [WithCodec] says otherwise: that of
// package encoding/json. On an engine NewTopic refuses a T of which it can't bring values
// back, with [ErrUnsupported]: an interface with methods, a func, a chan or a complex
// number, as T or in an exported field however deep, and a struct without exported fields.
// A type with JSON or text methods of its own is taken, and so are any and struct{}. For an
// interface write a codec that says which type a value has.
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) Encode(body any) ([]byte, error)    { return json.Marshal(body) }
func (jsonCodec) Decode(data []byte, body any) error { return json.Unmarshal(data, body) }
func (jsonCodec) ContentType() string                { return "application/json" }

// WithCodec sets how bodies are encoded for an engine. The default is [JSON]. A topic
// without [WithEngine] doesn't use it: nothing is encoded there. A nil codec is
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

// WithEngine has the topic's queues kept by an engine instead of the memory of
// the process: NATS JetStream, Amazon SNS + SQS, or one of your own, see package
// engine. Handlers, options, retries, histories and hooks are the same, but that of the
// errors in a history an engine keeps the texts alone, see [Delivery.History].
//
// Two promises an engine may be unable to keep: that queues are bounded
// ([engine.Bounded]) and that a publish is all or none ([engine.AllOrNone]).
// [Without] names those that you do without; one that the engine doesn't keep and
// that isn't named makes NewTopic fail with [ErrUnsupported], and the error has
// the call to write. Whatever else is asked for and can't be kept is refused
// where it is asked for, with the engine, the option and what would work instead
// in the error.
func WithEngine(e engine.Engine, options ...EngineOption) TopicOption {
	return topicOption(func(s *topicSettings) error {
		if e == nil {
			return invalid("WithEngine", nil, "an engine")
		}
		s.engine, s.without = e, nil
		return applyAll(options, func(o EngineOption) error { return o.applyEngine(s) })
	})
}

// Without says that the topic does without promises which its engine may be
// unable to keep: [engine.Bounded], [engine.AllOrNone] or both. Another feature
// is [ErrInvalidOption]. A promise that the engine keeps is kept even if it is
// named here. The default is none.
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

// A PublishError is returned by PublishMessages on an engine that published some
// of a batch and not the others. It unwraps to their errors.
type PublishError struct {
	Topic string
	// Failed has an error for the index of each message that was not published.
	Failed map[int]error
	err    error
}

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
