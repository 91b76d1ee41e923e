//go:build race

package proof

// maxTries: see model_test.go of the core.
const maxTries = 4
