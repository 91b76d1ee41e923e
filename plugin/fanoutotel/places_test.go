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

// What is near is found without the map, and no more than a few are.
func TestSpotsNearbyAreFoundWithoutTheMap(t *testing.T) {
	i, err := New()
	if err != nil {
		t.Fatal(err)
	}
	near := nearby{i: i}
	names := make([]string, 2*mostNearby)
	for k := range names {
		names[k] = fmt.Sprint("q", k)
	}
	for range 2 {
		for k, name := range names {
			for _, topic := range []string{"payments", "orders"} { // an option may be given to several
				if s := near.spot(topic, name); s != i.spot(topic, name) || s.topic != topic || s.queue != name {
					t.Fatalf("queue %d of %s has another's spot", k, topic)
				}
			}
		}
	}
	if n := len(*near.spots.Load()); n != mostNearby {
		t.Errorf("%d spots are near: want %d", n, mostNearby)
	}
	first := near.spot("payments", "q0")
	i.places = places{}
	if near.spot("payments", "q0") != first || i.places.all != nil {
		t.Error("the map was asked for what is near")
	}
	if each := testing.AllocsPerRun(100, func() { near.spot("payments", "q0") }); each != 0 {
		t.Errorf("%v allocations to find it", each)
	}
}
