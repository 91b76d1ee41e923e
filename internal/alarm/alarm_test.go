package alarm

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A bell notes when it is called, at instants that count from its making.
type bell struct {
	began time.Time
	mu    sync.Mutex
	alarm Alarm
	rings []time.Duration
	next  time.Duration // what tick arms the alarm for; 0: nothing
}

func (b *bell) now() int64 { return int64(time.Since(b.began)) + 1 }

func (b *bell) Tick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alarm.Begin()
	b.rings = append(b.rings, time.Since(b.began))
	if b.next > 0 {
		b.alarm.Arm(b.now(), int64(b.next)+1, b)
		b.next = 0
	}
	b.alarm.Rest()
	b.alarm.End()
}

func (b *bell) do(f func(a *Alarm)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.alarm)
}

func (b *bell) arm(at time.Duration) { b.do(func(a *Alarm) { a.Arm(b.now(), int64(at)+1, b) }) }
func (b *bell) brief(at time.Duration) {
	b.do(func(a *Alarm) { a.ArmBriefly(b.now(), int64(at)+1, b) })
}
func (b *bell) check(at time.Duration) {
	b.do(func(a *Alarm) {
		a.CheckBy(int64(at) + 1)
		a.ArmCheck(b.now(), b)
	})
}
func (b *bell) stop() { b.do((*Alarm).Stop) }

func TestTheAlarmComesAtItsInstant(t *testing.T) {
	const s = time.Second
	for _, row := range []struct {
		name  string
		do    func(b *bell)
		rings []time.Duration
	}{
		{"once", func(b *bell) { b.arm(3 * s) }, []time.Duration{3 * s}},
		{"the earlier of two", func(b *bell) { b.arm(3 * s); b.arm(2 * s) }, []time.Duration{2 * s}},
		{"it is not armed for later", func(b *bell) { b.arm(2 * s); b.arm(3 * s) }, []time.Duration{2 * s}},
		{"at once, if that has passed", func(b *bell) { time.Sleep(s); b.arm(s / 2) }, []time.Duration{s}},
		{"never, once stopped", func(b *bell) { b.arm(s); b.stop(); b.stop() }, nil},
		{"again, after it was stopped", func(b *bell) { b.arm(s); b.stop(); b.arm(2 * s) }, []time.Duration{2 * s}},
		{"again, by tick", func(b *bell) { b.next = 5 * s; b.arm(s) }, []time.Duration{s, 5 * s}},
		{"again, after it has come", func(b *bell) { b.arm(s); time.Sleep(2 * s); b.arm(3 * s) }, []time.Duration{s, 3 * s}},
		{"a brief one comes soon", func(b *bell) { b.brief(3 * s) }, []time.Duration{CheckAge}},
		{"but not late", func(b *bell) { b.brief(CheckAge / 2) }, []time.Duration{CheckAge / 2}},
		{"a brief one waits for one that comes before", func(b *bell) { b.arm(CheckAge / 2); b.brief(s) }, []time.Duration{CheckAge / 2}},
		{"a check comes when memory is no longer spared", func(b *bell) { b.check(SpareAge) }, []time.Duration{SpareAge}},
		{"a check comes before what is later", func(b *bell) { b.arm(s); b.check(SpareAge) }, []time.Duration{SpareAge}},
		{"a check waits for one that comes before", func(b *bell) { b.brief(s); b.check(SpareAge) }, []time.Duration{CheckAge}},
		{"at once, if the check has passed", func(b *bell) { time.Sleep(s); b.check(SpareAge) }, []time.Duration{s}},
		{"at the end of time", func(b *bell) { b.do(func(a *Alarm) { a.ArmBriefly(b.now(), math.MaxInt64, b) }) }, []time.Duration{CheckAge}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bell{began: time.Now()}
				row.do(b)
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, row.rings, b.rings)
				b.do(func(a *Alarm) {
					require.True(t, a.Quiet())
					require.Nil(t, a.Timer, "a timer that has fired is not kept")
				})
			})
		})
	}
}

func TestABriefAlarmIsTouchedOnceAMillisecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{began: time.Now()}
		b.brief(time.Hour)
		b.do(func(a *Alarm) {
			timer, at := a.Timer, a.At
			require.True(t, a.Brief)
			for range 100 {
				a.ArmBriefly(b.now(), int64(time.Hour), b)
			}
			require.Same(t, timer, a.Timer)
			require.Equal(t, at, a.At)
			require.False(t, a.Quiet())
		})
		b.arm(CheckAge / 4)
		b.do(func(a *Alarm) { require.False(t, a.Brief) })
		b.check(CheckAge / 8)
		b.do(func(a *Alarm) { require.True(t, a.Brief, "a check is one") })
		b.stop()
	})
}

// A timer that is about to run can't be stopped: it runs, and tick looks what to do.
func TestATimerThatIsAboutToRunIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{began: time.Now()}
		b.arm(time.Second)
		b.mu.Lock()
		time.Sleep(time.Second) // tick waits for the lock
		b.alarm.Stop()
		require.True(t, b.alarm.Armed)
		b.alarm.Arm(b.now(), b.now()-5, b)
		require.True(t, b.alarm.Armed)
		require.False(t, b.alarm.Quiet())
		b.mu.Unlock()
		synctest.Wait()
		require.Equal(t, []time.Duration{time.Second}, b.rings)
		require.True(t, b.alarm.Quiet())
	})
}

func TestTheEarliestCheckCounts(t *testing.T) {
	var a Alarm
	require.True(t, a.CheckBy(10))
	require.False(t, a.CheckBy(10))
	require.False(t, a.CheckBy(11))
	require.True(t, a.CheckBy(9))
	require.EqualValues(t, 9, a.CheckAt)
}
