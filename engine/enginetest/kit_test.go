package enginetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// A leakyEngine leaves a goroutine for each topic until the test ends.
type leakyEngine struct {
	*fakeengine.Engine
	end <-chan struct{}
}

func (e leakyEngine) OpenTopic(ctx context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	go awaitEnd(e.end)
	return e.Engine.OpenTopic(ctx, spec)
}

//go:noinline
func awaitEnd(end <-chan struct{}) { <-end }

func TestALeftGoroutineIsFoundInRealTime(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	o := settingsOf([]Option{Pace(50 * time.Millisecond), Patience(300 * time.Millisecond)})
	// The goroutine's stack names this package, which the kit takes for its own.
	o.foreign = []string{"testing.", "synctest", "(*fixture)", "(*recorder)", "(*body)", "(*waiter)"}
	k := &kit{suite: "contract", o: o, make: func(testing.TB) engine.Engine { return leakyEngine{fakeengine.New(fakeengine.Config{}), end} }}
	j := &job{kit: k, check: topicChecks()[0]}
	j.do(t)
	require.True(t, j.seen.Failed())
	require.Contains(t, j.seen.text(), "awaitEnd")
	require.Contains(t, j.seen.text(), j.check.rule)
}

func TestAFailureSaysTheSentenceAndWhatWasSeen(t *testing.T) {
	f := faults["forgets deliveries"]
	k := &kit{suite: "contract", o: settingsOf([]Option{Pace(20 * time.Millisecond)}),
		make: func(testing.TB) engine.Engine { return brokenEngine{fakeengine.New(small), f} }}
	for _, c := range settleChecks() {
		if c.name != "return at once" {
			continue
		}
		j := &job{kit: k, check: c}
		j.do(t)
		require.Equal(t, "check_settle.go", strings.Split(j.seen.text(), ":")[0])
		require.Contains(t, j.seen.text(), "must hold: Return makes the message available again after wait, which may be 0.")
		require.Contains(t, j.seen.text(), "was seen:  Deliveries of delivery 2: got 1, not 2")
	}
}

func TestWhatIsWaivedIsCountedAndExplained(t *testing.T) {
	f := faults["loses on return"]
	options := []Option{InVirtualTime(), Only("ack", "fan-out", "return at once"), Waive("return at once", "the server loses what is returned"),
		Waive("ack", "for the same reason")}
	r := Contract(t, func(testing.TB) engine.Engine { return brokenEngine{fakeengine.New(small), f} }, options...)
	require.Equal(t, 1, r.Passed())
	require.Zero(t, r.Failed())
	require.Equal(t, len(contractChecks())-1-r.NotApplicable(), r.Waived())
	require.Contains(t, r.String(), "waived: return at once: the server loses what is returned")
	require.Contains(t, r.Markdown(), "| fake | contract | 1 |")
	require.Equal(t, strings.Count(r.Markdown(), "|"), strings.Count(strings.Split(r.MarkdownHeader(), "\n")[1], "|"))
}

func TestAnEngineThatDeclaresWhatCannotBeCheckedFails(t *testing.T) {
	o := settingsOf([]Option{InVirtualTime()})
	found, said := runBroken(t, &kit{suite: "contract", o: o, checks: append(reopenChecks(), siblingChecks()...), make: fake(small)})
	require.Len(t, found, len(reopenChecks())+len(siblingChecks()))
	require.Contains(t, said, "the option Reopen or Sibling must say")
}

func TestACheckThatPanicsFailsAndCleansUp(t *testing.T) {
	r := newRecorder(t)
	cleaned := 0
	r.run(func() {
		r.Cleanup(func() { cleaned++ })
		r.Cleanup(func() { cleaned++; r.FailNow() })
		panic("out of order")
	})
	require.True(t, r.Failed())
	require.Equal(t, 2, cleaned)
	require.Contains(t, r.text(), "panic: out of order")
	require.Error(t, r.Context().Err())
}

func TestACheckThatCouldNotTellIsRunAgain(t *testing.T) {
	runs := 0
	k := &kit{o: settingsOf(nil), make: fake(small)}
	j := &job{kit: k, check: check{name: "slow", rule: "none", run: func(x *fixture) {
		if runs++; runs < 3 {
			x.tooSlow(time.Now().Add(-time.Second), time.Second)
		}
	}}}
	j.do(t)
	require.Equal(t, 3, runs)
	require.False(t, j.seen.Failed())
	k.o.pace, runs = time.Second, -100
	j.do(t)
	require.True(t, j.seen.Failed(), "five times too slow is a failure")
}

// TestAReceiveThatIsLateBlamesNobody: when both messages are ready nothing is known of
// their order, so the check is run again.
func TestAReceiveThatIsLateBlamesNobody(t *testing.T) {
	runs := 0
	r := Contract(t, func(testing.TB) engine.Engine {
		e := fakeengine.New(small)
		if runs++; runs <= 2 { // the first is asked what it keeps
			e.Inject(fakeengine.Fault{Op: fakeengine.Return, Nth: 2, Latency: time.Second})
		}
		return e
	}, Pace(100*time.Millisecond), Only("return after a wait"))
	require.Zero(t, r.Failed(), r.String())
	require.Equal(t, 1, r.Passed())
	require.Greater(t, runs, 2)
}
