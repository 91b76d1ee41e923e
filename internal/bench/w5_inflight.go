package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"
)

var inFlight = workload{
	key: "W5", title: "Many in flight: N received one by one from one queue, none acknowledged",
	note: "stored: bytes of a message that waits; bytes: more of one that is in flight; held: both. receive, ack (in random order), redeliver: ns each; -cpu: the same in processor time; expire: ns of processor time each, when all time out at once. " +
		"fanout-into64: ReceiveInto 64 and AckBatch of 64, in random order; fanout-own: received with a visibility timeout that is not the queue's, and AckBatch in the order received. -old: the library that -old was built with.",
	cells: func(o options) (cells []cell) {
		for _, n := range []int{10_000, 100_000, 1_000_000} {
			for _, k := range keepers {
				if k.most > 0 && n > k.most || k.slow && o.quick && n > 10_000 {
					continue
				}
				cells = append(cells, cell{at: place{setting: fmt.Sprintf("n%d", n), system: k.name}, once: o.quick && n > 100_000,
					measure: func() ([]value, error) { return keep(k, n) }})
			}
		}
		for _, system := range []string{pull, into64, own} {
			if o.old == "" {
				break
			}
			setting := "n1000000"
			cells = append(cells, cell{at: place{setting: setting, system: system + old}, once: o.quick,
				measure: func() ([]value, error) { return measureOld(o.old, "W5", setting, system) }})
		}
		return cells
	},
}

// A keeper is a system from which deliveries can be taken and kept.
type keeper struct {
	name string
	most int  // in flight that it is measured with; 0 is any
	slow bool // a message takes microseconds
	// open starts it for n messages whose deliveries time out after timeout.
	open func(n int, timeout time.Duration) (held, error)
}

var keepers = []keeper{oursKept, oursInto, oursOwn, mapHeap, mapTimers, jetStreamKept, gocloudKept}

// Held is a queue whose consumer keeps deliveries.
type held interface {
	publish(ms []*payload) error
	// receive takes one more delivery, which gets the next number, and returns
	// the word of its message.
	receive() (word uint64, err error)
	// arrange puts the deliveries, which are all received, in another order: from
	// then on k is what was order[k]. So each is acknowledged from compact memory
	// that is read forwards, and what is measured is the system's own.
	arrange(order []int)
	// ack acknowledges a delivery by its number.
	ack(k int) error
	// flush returns when acknowledgements have taken effect.
	flush() error
	// expired is how many deliveries have timed out; ok is false if that can't be
	// asked.
	expired() (n int, ok bool)
	stop() error
}

// keep measures the life of n messages twice: acknowledged, and timed out.
func keep(k keeper, n int) ([]value, error) {
	vs, err := keepAndAck(k, n)
	if err != nil {
		return nil, err
	}
	// Long enough that the first has not timed out when the last is received.
	timeout := 100*time.Millisecond + 4*time.Duration(vs[0].v*float64(n))
	more, err := keepAndExpire(k, n, timeout)
	for tries := 1; errors.Is(err, errTooSlow) && tries < 5; tries++ { // the machine was busy with something else
		timeout *= 2
		more, err = keepAndExpire(k, n, timeout)
	}
	return append(vs, more...), err
}

func keepAndAck(k keeper, n int) (_ []value, err error) {
	order := rand.New(rand.NewPCG(3, 4)).Perm(n)
	h, err := k.open(n, time.Hour)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	empty := settled() // what a keeper reserves for the deliveries it keeps is not the system's
	if err := publishTo(h, n); err != nil {
		return nil, err
	}
	stored := settled()
	cpu := cpuTime()
	receiving, err := receiveAll(h, n)
	if err != nil {
		return nil, err
	}
	receivingCPU := cpuTime() - cpu
	h.arrange(order)
	taken := settled()
	runtime.KeepAlive(order) // it was there before
	began := time.Now()
	cpu = cpuTime()
	for k := range order {
		if err := h.ack(k); err != nil {
			return nil, err
		}
	}
	if err := h.flush(); err != nil {
		return nil, err
	}
	acking, ackingCPU := time.Since(began), cpuTime()-cpu
	per := func(v int64) float64 { return float64(v) / float64(n) }
	return []value{
		{"receive", "ns", per(int64(receiving))},
		{"stored", "B", per(stored.minus(empty).bytes)},
		{"bytes", "B", per(taken.minus(stored).bytes)},
		{"held", "B", per(taken.minus(empty).bytes)},
		{"ack", "ns", per(int64(acking))},
		{"receive-cpu", "ns", per(int64(receivingCPU))},
		{"ack-cpu", "ns", per(int64(ackingCPU))},
	}, nil
}

var errTooSlow = errors.New("not all could be received before the first timed out")

func keepAndExpire(k keeper, n int, timeout time.Duration) (_ []value, err error) {
	h, err := k.open(n, timeout)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	if _, ok := h.expired(); !ok {
		return nil, nil
	}
	if err := publishTo(h, n); err != nil {
		return nil, err
	}
	began := time.Now()
	_, err = receiveAll(h, n)
	last := time.Now().Add(timeout)
	if time.Since(began) >= timeout {
		return nil, errTooSlow // what timed out meanwhile may have been received twice
	}
	if err != nil {
		return nil, err
	}
	// Deadlines are spread as the receives were, so the wall time says nothing. The
	// process does nothing else, once the garbage of what came before is gone: its
	// processor time is what expiry costs. Nobody asks meanwhile how far it is, which
	// can cost more.
	runtime.GC()
	cpu := cpuTime()
	if got, _ := h.expired(); got > 0 && time.Since(began) < timeout {
		return nil, fmt.Errorf("%d deliveries timed out too early", got)
	}
	time.Sleep(time.Until(last.Add(20 * time.Millisecond)))
	var expiring time.Duration
	for giveUp := time.Now().Add(time.Minute); ; {
		time.Sleep(5 * time.Millisecond)
		expiring = cpuTime() - cpu
		if got, _ := h.expired(); got == n {
			break
		} else if time.Now().After(giveUp) {
			return nil, fmt.Errorf("only %d of %d deliveries timed out", got, n)
		}
	}
	cpu = cpuTime()
	redelivering, err := receiveAll(h, n)
	if err != nil {
		return nil, fmt.Errorf("redelivery: %w", err)
	}
	per := func(d time.Duration) float64 { return float64(d) / float64(n) }
	return []value{{"expire", "ns", per(expiring)}, {"redeliver", "ns", per(redelivering)}, {"redeliver-cpu", "ns", per(cpuTime() - cpu)}}, nil
}

// arrange puts what vs holds into the given order, in its own place.
func arrange[T any](vs []T, order []int) {
	before := slices.Clone(vs)
	for k, d := range order {
		vs[k] = before[d]
	}
}

func publishTo(h held, n int) error {
	for k := 0; k < n; k += chunk {
		if err := h.publish(ring[k%ringSize:][:min(chunk, n-k)]); err != nil {
			return err
		}
	}
	return nil
}

// receiveAll receives n messages, and checks that it was each of them.
func receiveAll(h held, n int) (time.Duration, error) {
	began := time.Now()
	var sum uint64
	for range n {
		word, err := h.receive()
		if err != nil {
			return 0, err
		}
		sum += word
	}
	took := time.Since(began)
	if sum != sumOf(n) {
		return 0, fmt.Errorf("%w: wrong messages were received", errLost)
	}
	return took, nil
}
