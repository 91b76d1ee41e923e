package fanoutotel

import (
	"fmt"
	"testing"
)

// What is prepared is found again without an allocation, and does not pile up.
func TestWhatIsPreparedIsFoundAgainAndForgotten(t *testing.T) {
	i, err := New()
	if err != nil {
		t.Fatal(err)
	}
	copies := 0
	var last *map[spotKey]*spot
	for k := range 2*mostPlaces + 10 {
		s := i.spot("payments", fmt.Sprint("q", k))
		if s.process == nil || s != i.spot("payments", fmt.Sprint("q", k)) {
			t.Fatalf("spot %d is not found again", k)
		}
		if known := i.places.known.Load(); known != last {
			last = known
			copies++
		}
		if n := len(i.places.all); n > mostPlaces {
			t.Fatalf("%d spots are kept", n)
		}
	}
	if copies > 100 {
		t.Errorf("%d copies were made of the spots", copies)
	}
	first := i.spot("payments", "")
	if first.publish == nil || first.create == nil || first.producing == nil || first.process != nil {
		t.Errorf("a topic has %v", first)
	}
	for range mostPlaces { // it becomes known
		i.spot("payments", "")
	}
	if each := testing.AllocsPerRun(100, func() { i.spot("payments", "") }); each != 0 {
		t.Errorf("%v allocations to find it", each)
	}
	if i.spot("payments", "") != first {
		t.Error("it is another one")
	}
}
