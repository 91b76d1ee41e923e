package enginetest

import (
	"fmt"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

// engineOptions are the options that put a topic on e, none if e is nil.
func engineOptions(e engine.Engine) ([]fanout.TopicOption, error) {
	if e == nil {
		return nil, nil
	}
	return nil, fmt.Errorf("engine %q: %w", e.Name(), fanout.ErrUnsupported)
}
