package lease

import (
	"math/rand/v2"
	"testing"

	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/message"
)

// One iteration of each is 64 messages.

func BenchmarkInStep(b *testing.B) {
	f, items, now := newFixture[*int](b), make([]message.Item[*int], 64), int64(0)
	b.ReportAllocs()
	for b.Loop() {
		now++
		l := f.inStepOf(items, 1000, now)
		for p, ok := l.Word.Step(l.Word.Place()); ok; p, ok = l.Word.Step(p) {
		}
		f.Ack(f.First(l).Next(63))
		f.End(l, now)
	}
}

func BenchmarkWhole(b *testing.B) {
	f, items, now := newFixture[*int](b), make([]message.Item[*int], 64), int64(0)
	b.ReportAllocs()
	for b.Loop() {
		now++
		l := f.whole(items, 1000, now)
		f.AckWhole(l)
		f.End(l, now)
	}
}

func BenchmarkFillAndAckInOrder(b *testing.B) { benchmarkFill(b, 64) }

func BenchmarkFillAndAckAtRandom(b *testing.B) { benchmarkFill(b, 64_000) }

func benchmarkFill(b *testing.B, held int) {
	f, items, now := newFixture[*int](b), make([]message.Item[*int], 64), int64(0)
	refs := make([]message.Ref, 0, held)
	rng := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		now++
		l := f.Fill(64, 1<<40)
		from := l.Len()
		n := f.Add(l, items, now)
		r := f.Run(l, from)
		for k := range n {
			if len(refs) < held {
				refs = append(refs, r.First.Next(k))
				continue
			}
			j := rng.IntN(held)
			f.Ack(refs[j])
			refs[j] = r.First.Next(k)
		}
		if held == 64 {
			for _, r := range refs {
				f.Ack(r)
			}
			refs = refs[:0]
		}
	}
}

func BenchmarkTimeOutAndTakeAgain(b *testing.B) {
	f, now := newFixture[*int](b), int64(0)
	f.receive(64, 1000, 0)
	b.ReportAllocs()
	for b.Loop() {
		now += 1000
		if e, _ := f.TimeOut(now, due.Never, 1<<30); !e.Several { // it has a history of its own by now
			for _, r := range f.InFlight() {
				f.Ack(r)
			}
			f.receive(64, 1000, now)
			continue
		}
		for _, ok := f.TakeTimedOut(64, 1000, now); ok; _, ok = f.TakeTimedOut(64, 1000, now) {
		}
	}
}
