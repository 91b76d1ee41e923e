package enginetest

import (
	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

// engineOptions are the options that put a topic on e, none if e is nil.
func engineOptions(e engine.Engine) ([]fanout.TopicOption, error) {
	if e == nil {
		return nil, nil
	}
	var without []engine.Feature
	for _, f := range []engine.Feature{engine.Bounded, engine.AllOrNone} {
		if !e.Capabilities()[f].Kept {
			without = append(without, f)
		}
	}
	return []fanout.TopicOption{fanout.WithEngine(e, fanout.Without(without...))}, nil
}
