package shop

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// ErrUnavailable is what a call to the outside fails with. Trying again helps.
var ErrUnavailable = errors.New("503 service unavailable")

// A World is what the services call out to: warehouses and carriers that take
// their time and that fail now and then. Chance decides, but only by the seed,
// the order and the attempt, so that it does not matter which worker gets what.
type World struct {
	seed    uint64
	failure float64
	speed   float64
	calm    atomic.Bool
}

// Instant is the speed of a world in which calls take no time.
var Instant = math.Inf(1)

// NewWorld returns a world in which the given share of calls fails, 0 to 1, and
// which is speed times as fast as the real one.
func NewWorld(seed uint64, failure, speed float64) *World {
	return &World{seed: seed, failure: failure, speed: speed}
}

// Calm ends all trouble: from now on calls succeed.
func (w *World) Calm() { w.calm.Store(true) }

// Scale returns how long something takes in this world.
func (w *World) Scale(d time.Duration) time.Duration {
	return time.Duration(float64(d) / w.speed)
}

// A callee is one kind of service outside, with luck of its own.
type callee uint64

const (
	warehouse callee = iota + 1
	carrier
)

// call is one call to the outside on behalf of an order. It takes between half
// of typical and half as much again.
func (w *World) call(ctx context.Context, to callee, orderID, attempt int, typical time.Duration) error {
	chance := rand.New(rand.NewPCG(w.seed+uint64(to)<<56, uint64(orderID)<<16+uint64(attempt)))
	failed := chance.Float64() < w.failure && !w.calm.Load()
	if err := sleep(ctx, w.Scale(typical/2+time.Duration(chance.Int64N(int64(typical))))); err != nil {
		return err
	}
	if failed {
		return ErrUnavailable
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
