// Package proof holds the checks of the library that need more than the core
// may require: a module of its own.
//
// TestModel runs random programs on the library and on the reference model of
// internal/model, in virtual time, with the plain seeded generator. In CI:
//
//	go test -run 'TestModel$' -duration 90s
//
// The long run, ten million operations:
//
//	go test -run 'TestModel$' -timeout 4h -operations 10000000
//
// It prints how far it is, and at the end the seed and the total. -seed S and
// -first K repeat program K of seed S, exactly but for the order in which the
// scheduler runs the library's goroutines. What fails is shrunk by leaving out
// steps.
//
// TestModelShrinks is the same as a property of pgregory.net/rapid, which also
// shrinks the choices within a step; -rapid.checks says how many programs.
//
// TestHistoriesAreLinearizable checks histories of real goroutines in real time
// with github.com/anishathalye/porcupine; -histories says how many of each kind.
package proof
