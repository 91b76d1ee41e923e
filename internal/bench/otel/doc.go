// Package otel states what OpenTelemetry costs a message, published and handled once, beside
// what it costs in gocloud.dev's and Google Pub/Sub's own instrumentation, in the same run:
//
//	go test -run '^$' -tags peers -bench Message -cpu 1 -benchtime 2000x .
//
// Each system is measured without it, with spans that are never sampled, and with spans that
// are. What it costs is the difference within a system: the systems themselves are not
// comparable, as gocloud's is its memory driver and Google's talks gRPC to a fake server.
// What gocloud and Google record of a message is less: see the tables in OpenTelemetry's
// conventions. On a busy machine cpu-ns/op says more than ns/op.
//
// The clients of the others take minutes to compile, so the tests have a tag, and are not
// part of all tests.
package otel
