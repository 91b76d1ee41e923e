package main

import (
	"bytes"
	"fmt"
	"runtime"
	"runtime/pprof"
	"time"
	"weak"

	"github.com/gofanout/fanout"
)

// remains are weak pointers to what a round made. An armed timer of the library
// holds its queue or topic, since it calls a method of it, and so does a
// goroutine. So when the round has let go of all, and the garbage collector
// finds that everything can go, no timer and no goroutine is left that could
// ever come back to it.
type remains struct {
	topics []weak.Pointer[fanout.Topic[ticket]]
	queues []weak.Pointer[fanout.Queue[ticket]]
}

func (w *world) remains() *remains {
	r := &remains{}
	for _, a := range w.arenas {
		r.topics = append(r.topics, weak.Make(a.top))
		r.queues = append(r.queues, weak.Make(a.shared))
		for _, b := range a.books {
			if b.q != nil {
				r.queues = append(r.queues, weak.Make(b.q), weak.Make(b.q.DeadLetters()))
			}
		}
	}
	return r
}

// held counts what cannot be collected.
func (r *remains) held() (n int) {
	for _, p := range r.topics {
		if p.Value() != nil {
			n++
		}
	}
	for _, p := range r.queues {
		if p.Value() != nil {
			n++
		}
	}
	return n
}

// patience is for what is on its way: goroutines that have done their last deed
// end a little later, and the runtime forgets stopped timers when it looks at
// its timers next and they are more than a quarter of all.
const patience = 10 * time.Second

// proveNothingRemains compares the number of goroutines with the number before
// the first round, and waits until all topics and queues have been collected.
func (r *remains) proveNothingRemains(before int, patience time.Duration) []violation {
	var held, goroutines int
	for end := time.Now().Add(patience); time.Now().Before(end); wait(5*time.Millisecond, nil) {
		if goroutines = runtime.NumGoroutine(); goroutines > before {
			continue
		}
		runtime.GC()
		if held = r.held(); held == 0 {
			return nil
		}
	}
	if goroutines > before {
		var b bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
		return []violation{{
			promise: "clean end",
			what:    fmt.Sprintf("%d goroutines, %d before the first round", goroutines, before),
			ledger:  b.String(),
		}}
	}
	return []violation{{
		promise: "clean end",
		what: fmt.Sprintf("%d of %d topics and queues are held after their end, by a timer or a goroutine",
			held, len(r.topics)+len(r.queues)),
	}}
}
