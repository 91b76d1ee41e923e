module github.com/gofanout/fanout/internal/proof

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/gofanout/fanout v0.1.0
	golang.org/x/sync v0.24.0
	pgregory.net/rapid v1.3.0
)

require github.com/google/uuid v1.6.0 // indirect

replace github.com/gofanout/fanout => ../..
