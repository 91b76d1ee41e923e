package settings

import (
	"encoding/json"

	"github.com/gofanout/fanout/engine"
)

// A Codec turns bodies into bytes and back, for engines.
type Codec interface {
	Encode(body any) ([]byte, error)
	Decode(data []byte, body any) error
	ContentType() string
}

// JSON is the codec of encoding/json.
type JSON struct{}

// Encode returns body as JSON.
func (JSON) Encode(body any) ([]byte, error) { return json.Marshal(body) }

// Decode sets body to what data holds.
func (JSON) Decode(data []byte, body any) error { return json.Unmarshal(data, body) }

// ContentType names the encoding.
func (JSON) ContentType() string { return "application/json" }

// Dispensable are the features that a topic can do without, with their names in Go.
var Dispensable = map[engine.Feature]string{engine.Bounded: "engine.Bounded", engine.AllOrNone: "engine.AllOrNone"}
