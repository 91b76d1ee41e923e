package proof

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/gofanout/fanout"
)

var histories = flag.Int("histories", 400, "how many concurrent histories each linearizability test checks")

// Concurrent histories, made by real goroutines on a real topic, are checked for
// linearizability: there must be one order of the calls, which keeps those apart
// that did not overlap, in which a small sequential topic returns the same.
// Settlements are told apart by tokens, one for each delivery.

type verb uint8

const (
	publish verb = iota
	receive
	ack
	nack
	extend
	purge
	closeAll
)

func (v verb) String() string {
	return [...]string{"publish", "receive", "ack", "nack", "extend", "purge", "close"}[v]
}

type input struct {
	verb  verb
	queue int
	body  int // published
	token int // settled
}

type output struct {
	body  int // received, 0: none
	token int // of the delivery
	n     int // purged
	err   error
}

// A copyState is where one message is in one queue.
type copyState struct {
	body    int
	token   int  // of the delivery that owns it, 0: ready
	waiting bool // given back; ready again at some time
}

// A queueState is a queue of the sequential topic: its messages in the order of
// publication, and how deliveries ended.
type queueState struct {
	messages []copyState
	endings  map[int]error // by token
}

type topicState struct {
	queues []queueState
	closed bool
}

func (s topicState) clone() topicState {
	s.queues = slices.Clone(s.queues)
	for k, q := range s.queues {
		endings := make(map[int]error, len(q.endings))
		for token, err := range q.endings {
			endings[token] = err
		}
		s.queues[k] = queueState{slices.Clone(q.messages), endings}
	}
	return s
}

// sequential is the model of a topic with queues that reject what they have no
// room for.
func sequential(capacities ...int) porcupine.Model {
	return porcupine.Model{
		Init:  func() any { return topicState{queues: make([]queueState, len(capacities))} },
		Equal: func(a, b any) bool { return reflect.DeepEqual(a, b) },
		Step: func(state, in, out any) (bool, any) {
			s := state.(topicState).clone()
			ok := s.step(in.(input), out.(output), capacities)
			return ok, s
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %+v", in, out) },
	}
}

// step does one call, and reports whether it can have returned out.
func (s *topicState) step(in input, out output, capacities []int) bool {
	switch {
	case in.verb == closeAll:
		s.closed = true
		return out.err == nil
	case s.closed:
		return errors.Is(out.err, fanout.ErrClosed)
	case in.verb == publish:
		return s.publish(in.body, out, capacities)
	}
	q := &s.queues[in.queue]
	switch in.verb {
	case receive:
		return q.receive(out)
	case purge:
		n := len(q.messages)
		for _, c := range q.messages {
			if c.token != 0 {
				q.endings[c.token] = fanout.ErrStale
			}
		}
		q.messages = nil
		return out.err == nil && out.n == n
	}
	return q.settle(in, out)
}

// publish adds a message to all queues or to none.
func (s *topicState) publish(body int, out output, capacities []int) bool {
	for k, q := range s.queues {
		if len(q.messages) == capacities[k] {
			return out.err == fanout.ErrQueueFull
		}
	}
	for k := range s.queues {
		s.queues[k].messages = append(s.queues[k].messages, copyState{body: body})
	}
	return out.err == nil
}

// receive takes the first message that is ready. What was given back goes before
// it once it is ready again, which may be at any time.
func (q *queueState) receive(out output) bool {
	first := true
	for k, c := range q.messages {
		switch {
		case c.token != 0:
		case c.waiting && c.body == out.body, !c.waiting && first && c.body == out.body:
			q.messages[k] = copyState{body: c.body, token: out.token}
			return out.err == nil
		case !c.waiting:
			first = false
		}
	}
	return out.err == nil && out.body == 0 && first
}

// settle ends a delivery, or extends it.
func (q *queueState) settle(in input, out output) bool {
	k := slices.IndexFunc(q.messages, func(c copyState) bool { return c.token == in.token })
	if k < 0 {
		return out.err == q.endings[in.token]
	}
	switch in.verb {
	case ack:
		q.messages = slices.Delete(q.messages, k, k+1)
		q.endings[in.token] = fanout.ErrSettled
	case nack:
		q.messages[k] = copyState{body: q.messages[k].body, waiting: true}
		q.endings[in.token] = fanout.ErrSettled
	}
	return out.err == nil
}

// A token is a delivery that any goroutine may settle.
type token struct {
	n, queue int
	fanout.Delivery[int]
}

// A recorder makes one history.
type recorder struct {
	top    *fanout.Topic[int]
	queues []*fanout.Queue[int]
	mix    []verb
	calls  int // of each goroutine
	seed   uint64

	clock, bodies, tokens atomic.Int64

	mu      sync.Mutex // guards the fields below
	held    []token
	history []porcupine.Operation
}

func newRecorder(t *testing.T, seed uint64, calls int, mix []verb, capacities ...int) *recorder {
	r := &recorder{mix: mix, calls: calls, seed: seed}
	var err error
	r.top, err = fanout.NewTopic[int]("history", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	for k, capacity := range capacities {
		q, err := r.top.OpenQueue(t.Context(), fmt.Sprint("q", k), fanout.WithCapacity(capacity), fanout.WithOverflow(fanout.Reject),
			fanout.WithVisibilityTimeout(time.Hour), fanout.WithMaxAttempts(fanout.Unlimited), fanout.WithBackoff(fanout.Constant(time.Millisecond)))
		if err != nil {
			t.Fatal(err)
		}
		r.queues = append(r.queues, q)
	}
	return r
}

// record has n goroutines call the topic, and returns what they saw.
func (r *recorder) record(t *testing.T, n int) []porcupine.Operation {
	var wg sync.WaitGroup
	for client := range n {
		wg.Go(func() { r.work(t.Context(), client) })
	}
	wg.Wait()
	_ = r.top.Close()
	return r.history
}

// work is one goroutine of a history.
func (r *recorder) work(ctx context.Context, client int) {
	rnd := rand.New(rand.NewPCG(r.seed, uint64(client)))
	for range r.calls {
		in := input{verb: r.mix[rnd.IntN(len(r.mix))], queue: rnd.IntN(len(r.queues))}
		var held token
		switch in.verb {
		case publish:
			in.body = int(r.bodies.Add(1))
		case ack, nack, extend:
			r.mu.Lock()
			if len(r.held) > 0 {
				held = r.held[max(len(r.held)-1-rnd.IntN(4), 0)] // the latest: others settle them too
			}
			r.mu.Unlock()
			if held.n == 0 {
				continue
			}
			in.queue, in.token = held.queue, held.n
		}
		op := porcupine.Operation{ClientId: client, Input: in, Call: r.clock.Add(1)}
		out := r.call(ctx, in, held)
		op.Return, op.Output = r.clock.Add(1), out
		r.mu.Lock()
		r.history = append(r.history, op)
		r.mu.Unlock()
	}
}

// call makes one call.
func (r *recorder) call(ctx context.Context, in input, held token) (out output) {
	q := r.queues[in.queue]
	var err error
	switch in.verb {
	case publish:
		err = r.top.TryPublish(ctx, in.body)
	case receive:
		var d fanout.Delivery[int]
		var ok bool
		if d, ok, err = q.TryReceive(ctx); ok {
			out.body, out.token = d.Body, int(r.tokens.Add(1))
			r.mu.Lock()
			r.held = append(r.held, token{out.token, in.queue, d})
			r.mu.Unlock()
		}
	case ack:
		err = held.Ack(ctx)
	case nack:
		err = held.Nack(ctx)
	case extend:
		err = held.Extend(ctx, time.Hour)
	case purge:
		out.n, err = q.Purge(ctx)
	case closeAll:
		err = r.top.Close()
	}
	for _, e := range []error{fanout.ErrClosed, fanout.ErrQueueFull, fanout.ErrStale, fanout.ErrSettled} {
		if errors.Is(err, e) {
			err = e
		}
	}
	out.err = err
	return out
}

// mixes are the histories that are made. A verb that stands there twice is
// called twice as often.
var mixes = []struct {
	name       string
	goroutines int
	calls      int
	capacities []int
	mix        []verb
}{
	{"one queue", 4, 10, []int{3}, []verb{publish, publish, receive, receive, ack, nack}},
	{"one queue that is closed", 4, 8, []int{3}, []verb{publish, publish, publish, receive, receive, receive, ack, ack, nack, closeAll}},
	{"all or none", 4, 10, []int{2, 3}, []verb{publish, publish, receive, receive, receive, ack, ack}},
	{"settlements that race", 5, 8, []int{2}, []verb{publish, receive, ack, ack, nack, extend, purge}},
}

func TestHistoriesAreLinearizable(t *testing.T) {
	seed := rand.Uint64()
	for _, m := range mixes {
		t.Run(m.name, func(t *testing.T) {
			calls := 0
			for k := range *histories {
				h := newRecorder(t, seed+uint64(k), m.calls, m.mix, m.capacities...).record(t, m.goroutines)
				calls += len(h)
				if result, _ := porcupine.CheckOperationsVerbose(sequential(m.capacities...), h, time.Minute); result != porcupine.Ok {
					t.Fatalf("seed %d: %s:\n%s", seed+uint64(k), result, describe(h))
				}
			}
			t.Logf("%d histories, %d calls, seed %d", *histories, calls, seed)
		})
	}
}

func describe(h []porcupine.Operation) (s string) {
	slices.SortFunc(h, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, op := range h {
		s += fmt.Sprintf("%3d to %3d, goroutine %d: %+v: %+v\n", op.Call, op.Return, op.ClientId, op.Input, op.Output)
	}
	return s
}

// In these histories the calls come one after the other, so that only one order
// is possible. The last call returns what can't be; with the right output the
// history is linearizable.
func TestTheCheckerFindsWrongHistories(t *testing.T) {
	type call struct {
		input
		output
	}
	published := call{input{verb: publish, body: 1}, output{}}
	received := call{input{verb: receive}, output{body: 1, token: 1}}
	acked := call{input{verb: ack, token: 1}, output{}}
	nacked := call{input{verb: nack, token: 1}, output{}}
	for _, row := range []struct {
		name         string
		capacities   []int
		before       []call
		in           input
		wrong, right output
	}{
		{"one message is delivered twice", []int{2}, []call{published, received}, input{verb: receive}, output{body: 1, token: 2}, output{}},
		{"a message is lost", []int{2}, []call{published}, input{verb: receive}, output{}, output{body: 1, token: 1}},
		{"a message is there before it was published", []int{2}, nil, input{verb: receive}, output{body: 1, token: 1}, output{}},
		{"two acks are accepted", []int{2}, []call{published, received, acked}, input{verb: ack, token: 1}, output{}, output{err: fanout.ErrSettled}},
		{"an ack after a nack is accepted", []int{2}, []call{published, received, nacked}, input{verb: ack, token: 1}, output{}, output{err: fanout.ErrSettled}},
		{"one more than the capacity", []int{1}, []call{published}, input{verb: publish, body: 2}, output{}, output{err: fanout.ErrQueueFull}},
		{"refused though there is room", []int{1}, []call{published, received, acked}, input{verb: publish, body: 2}, output{err: fanout.ErrQueueFull}, output{}},
		{"in one queue and not in the other", []int{2, 2}, []call{published, received}, input{verb: receive, queue: 1}, output{}, output{body: 1, token: 2}},
		{"in one queue though the other was full", []int{2, 1}, []call{published, {input{verb: publish, body: 2}, output{err: fanout.ErrQueueFull}}, received},
			input{verb: receive}, output{body: 2, token: 2}, output{}},
		{"out of order", []int{2}, []call{published, {input{verb: publish, body: 2}, output{}}}, input{verb: receive}, output{body: 2, token: 1}, output{body: 1, token: 1}},
		{"an ack after a purge is accepted", []int{2}, []call{published, received, {input{verb: purge}, output{n: 1}}}, input{verb: ack, token: 1}, output{}, output{err: fanout.ErrStale}},
		{"published after the close", []int{2}, []call{{input{verb: closeAll}, output{}}}, input{verb: publish, body: 1}, output{}, output{err: fanout.ErrClosed}},
	} {
		t.Run(row.name, func(t *testing.T) {
			for out, want := range map[output]bool{row.wrong: false, row.right: true} {
				var h []porcupine.Operation
				for k, c := range append(slices.Clone(row.before), call{row.in, out}) {
					h = append(h, porcupine.Operation{Input: c.input, Output: c.output, Call: int64(2 * k), Return: int64(2*k + 1)})
				}
				if got := porcupine.CheckOperations(sequential(row.capacities...), h); got != want {
					t.Errorf("linearizable: %t, want %t:\n%s", got, want, describe(h))
				}
			}
		})
	}
}

// A model that is wrong by one in the capacity does not explain what the topic
// does.
func TestTheCheckerFindsAWrongModel(t *testing.T) {
	m := mixes[0]
	for k := range uint64(1000) {
		h := newRecorder(t, k, m.calls, m.mix, m.capacities...).record(t, m.goroutines)
		if !porcupine.CheckOperations(sequential(m.capacities[0]+1), h) {
			return
		}
	}
	t.Error("a queue of one more message explains all histories")
}
