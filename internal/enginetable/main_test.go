package main

import (
	"os"
	"testing"
)

func TestThePageHasTheTableOfToday(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want, err := withTable(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Fatal("the page is out of date: go run -C internal/enginetable .")
	}
}
