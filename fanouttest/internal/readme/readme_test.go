package billing_test

import (
	"os"
	"strings"
	"testing"
)

// TestTheREADMEShowsThisTest, that of billing_test.go.
func TestTheREADMEShowsThisTest(t *testing.T) {
	test, err := os.ReadFile("billing_test.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(test)+"```\n") {
		t.Fatal("fanouttest/README.md shows another test than billing_test.go")
	}
}
