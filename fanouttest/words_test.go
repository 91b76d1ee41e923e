package fanouttest_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

func TestAFaultWithoutAnActionFailsTheTest(t *testing.T) {
	for want, begin := range map[string]func(orders *fanouttest.Topic[order]){
		`Handling("q").Nth(1): says when, not what`:                func(orders *fanouttest.Topic[order]) { orders.Handling("q").Nth(1) },
		`Handling("q"): says when, not what`:                       func(orders *fanouttest.Topic[order]) { orders.Handling("q") },
		`Publishing().First(2): says when, not what`:               func(orders *fanouttest.Topic[order]) { orders.Publishing().First(2) },
		`Handling("q").Message("m").First(3): says when, not what`: func(orders *fanouttest.Topic[order]) { orders.Handling("q").First(3).Message("m") },
	} {
		t.Run(want, func(t *testing.T) {
			_, failed := failures(func(tb *fakeTB) { begin(fanouttest.NewTopic[order](fanouttest.New(tb), "orders")) })
			requireFailure(t, failed, want)
			require.NotContains(t, failed[0], "\n    Handling(\"q\"): says when\n", "the fault is named once, as far as it was said")
		})
	}
}

func TestAFaultOfWhichSeveralAreMadeSaysSomething(t *testing.T) {
	_, failed := failures(func(tb *fakeTB) {
		k := fanouttest.New(tb)
		orders := fanouttest.NewTopic[order](k, "orders")
		subscribe(tb, orders, "q", func(context.Context, fanout.Delivery[order]) error { return nil })
		at := orders.Handling("q")
		at.Nth(1).Delay(0)
		at.Nth(2).Delay(0)
		publish(tb, orders, order{"a", 1}, order{"b", 2})
		k.Settle(context.Background())
	})
	require.Empty(t, failed)
}

func TestAnUnknownQueueIsNamedBeforeCountsAreCompared(t *testing.T) {
	for name, assert := range map[string]func(l *fanouttest.List[order]) bool{
		"count":     func(l *fanouttest.List[order]) bool { return l.WantCount(1) },
		"want":      func(l *fanouttest.List[order]) bool { return l.Want(order{"a", 1}) },
		"any order": func(l *fanouttest.List[order]) bool { return l.WantInAnyOrder(order{"a", 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			_, failed := failures(func(tb *fakeTB) {
				orders := fanouttest.NewTopic[order](fanouttest.New(tb), "orders")
				require.False(t, assert(orders.Acked("biling")))
			})
			require.Equal(t, []string{`fanouttest: acknowledged in queue "biling": the topic has no queue "biling", and nothing has happened in one`}, failed)
		})
	}
}

func TestEqualCountsSayWhatDiffers(t *testing.T) {
	_, failed := failures(func(tb *fakeTB) {
		orders := fanouttest.NewTopic[order](fanouttest.New(tb), "orders")
		publish(tb, orders, order{"a", 1}, order{"b", 2})
		orders.Published().Want(order{"b", 2}, order{"a", 1})
		orders.Published().Want(order{"a", 1}, order{"c", 3})
		orders.Published().WantInAnyOrder(order{"c", 3}, order{"a", 1})
		orders.Published().Want(order{"a", 1})
	})
	require.Len(t, failed, 4)
	require.Contains(t, failed[0], `published to topic "orders": what is wanted, in another order:`)
	require.Contains(t, failed[1], `published to topic "orders": as many as wanted, 1 of 2 different:`)
	require.Contains(t, failed[2], `published to topic "orders": as many as wanted, 1 of 2 different, in any order:`)
	require.Contains(t, failed[3], `published to topic "orders": 2, want 1:`)
}

func TestAPausedQueueIsCalledPaused(t *testing.T) {
	_, failed := failures(func(tb *fakeTB) {
		k := fanouttest.New(tb)
		orders := fanouttest.NewTopic[order](k, "orders")
		q := subscribe(tb, orders, "q", func(context.Context, fanout.Delivery[order]) error { return nil })
		require.NoError(t, q.Pause(context.Background()))
		publish(tb, orders, order{"a", 1})
		k.Settle(context.Background())
	})
	requireFailure(t, failed, `topic "orders" ends with messages that are not settled:`, `not delivered yet, the queue is paused: {"ID":"a","Cents":1}`)
}

func TestWhatWasNotSettledForWantOfSettleSaysSo(t *testing.T) {
	for want, settles := range map[string]int{
		"ends with messages that are not settled (Settle was not called):":                        0,
		"ends with messages that are not settled (Settle was not called after the last publish):": 1,
		"ends with messages that are not settled:":                                                2,
	} {
		t.Run(want, func(t *testing.T) {
			_, failed := failures(func(tb *fakeTB) {
				k := fanouttest.New(tb)
				orders := fanouttest.NewTopic[order](k, "orders")
				_, err := orders.OpenQueue(context.Background(), "q", fanout.WithDelay(time.Hour))
				require.NoError(t, err)
				if settles == 1 {
					k.Settle(context.Background())
				}
				publish(tb, orders, order{"a", 1})
				if settles == 2 {
					k.Settle(context.Background())
				}
			})
			requireFailure(t, failed, want)
		})
	}
}

// leaver is set in the process that runs TestLeavesSomething to be looked at.
const leaver = "FANOUTTEST_LEAVES_SOMETHING"

func TestLeavesSomething(t *testing.T) {
	if os.Getenv(leaver) == "" {
		return // run by TestLeftoversAreReportedAtTheTestsOwnLine
	}
	_, _, line, _ := runtime.Caller(0)
	t.Logf("made in line %d", line+2)
	orders := fanouttest.NewTopic[order](fanouttest.New(t), "orders")
	_, err := orders.OpenQueue(context.Background(), "q")
	require.NoError(t, err)
	require.NoError(t, orders.Publish(context.Background(), order{"a", 1}))
}

func TestLeftoversAreReportedAtTheTestsOwnLine(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestLeavesSomething$", "-test.v")
	cmd.Env = append(os.Environ(), leaver+"=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err, "it fails")
	made := regexp.MustCompile(`made in line (\d+)`).FindStringSubmatch(string(out))
	require.NotNil(t, made, "%s", out)
	require.Contains(t, string(out), "words_test.go:"+made[1]+`: fanouttest: topic "orders" ends with messages that are not settled`)
}
