package queue

import (
	"github.com/gofanout/fanout/engine"
)

// Unknown stands for a number that only an engine knows, or that it can't tell.
const Unknown = engine.Unknown
