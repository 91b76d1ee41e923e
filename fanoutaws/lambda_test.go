package fanoutaws

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

// wired stands for fanout: it works on the engine's queue by itself, and gives
// the function a topic to close.
func wired(handle func(ctx context.Context, r engine.Received) string) func(context.Context, engine.Engine) (*fanout.Topic[string], error) {
	return func(ctx context.Context, e engine.Engine) (*fanout.Topic[string], error) {
		t, err := e.OpenTopic(ctx, engine.TopicSpec{Name: "payments"})
		if err != nil {
			return nil, err
		}
		q, err := t.OpenQueue(ctx, engine.QueueSpec{Name: "inventory"})
		if err != nil {
			return nil, err
		}
		if _, err := t.OpenQueue(ctx, engine.QueueSpec{Name: "other"}); err == nil {
			return nil, errors.New("two queues")
		}
		if t.Publish(ctx, nil) == nil {
			return nil, errors.New("it published")
		}
		go work(ctx, q.(*invocation), 3, func(r engine.Received) string { return handle(ctx, r) })
		return fanout.NewTopic[string]("payments")
	}
}

func TestAFunctionAnswersEachEvent(t *testing.T) {
	f := newSQSFake()
	_, queues := clientsOf("http://aws.invalid", &f.fake)
	function := LambdaHandler(queues, wired(func(_ context.Context, r engine.Received) string {
		if r.ID == "id2" {
			return "return"
		}
		return "ack"
	}))
	for range 3 { // the queue is looked up once
		r, err := function(t.Context(), numbered(event(t, "standard.json"), 3))
		require.NoError(t, err)
		require.Equal(t, []string{"id2"}, failures(r))
	}
	require.Equal(t, 2, f.count("GetQueueUrl"), "the queue's and its dead-letter queue's")
	r, err := function(t.Context(), SQSEvent{})
	require.NoError(t, err)
	require.NotNil(t, r.BatchItemFailures)
	require.Empty(t, r.BatchItemFailures)
}

func TestAFunctionThatRunsOutOfTimeSaysWhatIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSQSFake()
		_, queues := clientsOf("http://aws.invalid", &f.fake)
		late := make(chan error, 1)
		function := LambdaHandler(queues, func(ctx context.Context, e engine.Engine) (*fanout.Topic[string], error) {
			q := e.(*invocation)
			go func() {
				rs, _ := q.Receive(ctx, 3, 0)
				_ = q.Ack(ctx, rs[0].Receipt)
				<-ctx.Done()
				time.Sleep(time.Millisecond) // the answer is on its way
				late <- q.Ack(context.WithoutCancel(ctx), rs[1].Receipt)
			}()
			return fanout.NewTopic[string]("payments")
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		begun := time.Now()
		r, err := function(ctx, numbered(event(t, "standard.json"), 3))
		require.NoError(t, err)
		require.Equal(t, 29*time.Second, time.Since(begun))
		require.Equal(t, []string{"id2", "id3"}, failures(r))
		require.ErrorIs(t, <-late, engine.ErrClosed, "Lambda has been told otherwise")
	})
}

func TestAFunctionFailsAsAWholeIfItCannotBegin(t *testing.T) {
	f := newSQSFake()
	_, queues := clientsOf("http://aws.invalid", &f.fake)
	e := event(t, "standard.json")
	bad := errors.New("bad wiring")
	_, err := LambdaHandler(queues, func(context.Context, engine.Engine) (*fanout.Topic[string], error) { return nil, bad })(t.Context(), e)
	require.ErrorIs(t, err, bad)
	_, err = LambdaHandler(queues, func(context.Context, engine.Engine) (*fanout.Topic[string], error) { return nil, nil })(t.Context(), e)
	require.ErrorContains(t, err, "no topic")
	f.fail = "GetQueueUrl"
	_, err = LambdaHandler(queues, wired(nil))(t.Context(), e)
	require.ErrorContains(t, err, "my-queue")
	require.ErrorContains(t, err, "not you")
}
