module github.com/gofanout/fanout/internal/bench/kit

go 1.25.0

replace github.com/gofanout/fanout => ../../..

require (
	github.com/ThreeDotsLabs/watermill v1.5.1
	github.com/gofanout/fanout v0.1.0
)

require (
	github.com/google/uuid v1.6.0 // indirect
	github.com/lithammer/shortuuid/v3 v3.0.7 // indirect
	github.com/oklog/ulid v1.3.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	golang.org/x/sync v0.22.0 // indirect
)
