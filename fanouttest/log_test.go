package fanouttest_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

func TestWhatTheLibraryLogsIsInTheTestsLog(t *testing.T) {
	both(t, func(t *testing.T) {
		body := func(tb *fakeTB, options ...fanout.TopicOption) {
			k := fanouttest.New(tb)
			orders := fanouttest.NewTopic[order](k, "orders", append(options, fanouttest.AllowDeadLetters(), fanouttest.AllowUnsettled())...)
			audit, err := orders.OpenQueue(context.Background(), "audit")
			require.NoError(t, err)
			publish(tb, orders, order{"left", 1})
			require.NoError(t, audit.Close())
			subscribe(tb, orders, "billing", func(context.Context, fanout.Delivery[order]) error { panic("out of memory") }, fanout.WithMaxAttempts(1))
			publish(tb, orders, order{"dead", 1})
			k.Settle(context.Background())
			err = orders.PublishMessages(context.Background(), fanout.Message[order]{Delay: 1 << 40})
			// It is left, in the kit's queue too; the kit closes both.
			require.NoError(t, err)
		}
		tb, failed := failures(func(tb *fakeTB) { body(tb) })
		require.Empty(t, failed)
		require.Len(t, tb.logs, 4, "%s", strings.Join(tb.logs, "\n"))
		require.Regexp(t, `^msg="fanout: messages dropped" topic=orders queue=audit count=1 reason=close$`, tb.logs[0])
		require.Regexp(t, `^msg="fanout: attempts ended in a panic" topic=orders queue=billing count=1 .* error="panic: out of memory"$`, tb.logs[1])
		require.Regexp(t, `^\ngoroutine \d+ \[running.*\]:\n`, tb.logs[2], "the stack, as it is")
		require.Contains(t, tb.logs[2], "log_test.go:")
		require.Regexp(t, `^msg="fanout: messages went to the dead-letter queue" topic=orders queue=billing count=1 `, tb.logs[3])

		var out bytes.Buffer
		tb, failed = failures(func(tb *fakeTB) { body(tb, fanout.WithLogger(slog.New(slog.NewTextHandler(&out, nil)))) })
		require.Empty(t, failed)
		require.Empty(t, tb.logs, "a logger of the test's own has it all")
		require.Contains(t, out.String(), "attempts ended in a panic")
	})
}

// A test that has ended panics when it is told something.
func TestALogLineAfterTheTestIsNobodys(t *testing.T) {
	tb := &fakeTB{}
	k := fanouttest.New(over{tb})
	orders := fanouttest.NewTopic[order](k, "orders", fanouttest.AllowDeadLetters())
	q, err := orders.OpenQueue(t.Context(), "billing")
	require.NoError(t, err)
	publish(tb, orders, order{"dead", 1})
	d, err := q.Receive(t.Context())
	require.NoError(t, err)
	require.NoError(t, d.Settle(t.Context(), fanout.Permanent(errDown)))
	require.Equal(t, 1, q.Stats().Dead)
	require.NoError(t, orders.Close())
}

type over struct{ *fakeTB }

func (over) Logf(string, ...any) { panic("Log in goroutine after the test has completed") }
