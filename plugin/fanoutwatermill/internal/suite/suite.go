// Package suite runs watermill's own tests of a Pub/Sub, one by one: its TestPubSub
// skips what the declared features leave out, and a test that is skipped says
// nothing of why.
package suite

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"
)

// A Way is a way to make a Pub/Sub, with what it can do.
type Way struct {
	Features tests.Features
	// Open makes a publisher and a subscriber of one group, or of none in the
	// second case. Those of one test have one broker.
	Open func(t *testing.T, group string) (message.Publisher, message.Subscriber)
	// Group is the group of tests that name none.
	Group string
	// Left says why a test is not part of the run.
	Left map[string]string
}

type single = func(*testing.T, tests.TestContext, tests.PubSubConstructor)

// all are watermill's tests that take one constructor.
var all = []single{
	tests.TestPublishSubscribe,
	tests.TestConcurrentSubscribe,
	tests.TestConcurrentSubscribeMultipleTopics,
	tests.TestResendOnError,
	tests.TestNoAck,
	tests.TestContinueAfterSubscribeClose,
	tests.TestConcurrentClose,
	tests.TestContinueAfterErrors,
	tests.TestPublishSubscribeInOrder,
	tests.TestPublisherClose,
	tests.TestTopic,
	tests.TestMessageCtx,
	tests.TestSubscribeCtx,
	tests.TestNewSubscriberReceivesOldMessages,
	tests.TestReconnect,
}

const groups = "TestConsumerGroups"

func nameOf(f any) string {
	name := runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
	return name[strings.LastIndex(name, ".")+1:]
}

// Run runs the tests that w does not leave out. Those that it leaves out are
// logged, with the reason.
func Run(t *testing.T, w Way) {
	known := map[string]bool{groups: true}
	for _, f := range all {
		known[nameOf(f)] = true
	}
	for name := range w.Left {
		require.Contains(t, known, name, "left out, and there is no such test")
	}
	require.ElementsMatch(t, declared(t), keys(known), "watermill has other tests than those that are run here")
	for _, f := range all {
		w.run(t, nameOf(f), func(t *testing.T, c tests.TestContext) {
			f(t, c, func(t *testing.T) (message.Publisher, message.Subscriber) { return w.Open(t, w.Group) })
		})
	}
	w.run(t, groups, func(t *testing.T, c tests.TestContext) { tests.TestConsumerGroups(t, c, w.Open) })
}

func (w Way) run(t *testing.T, name string, test func(*testing.T, tests.TestContext)) {
	if why, left := w.Left[name]; left {
		t.Logf("not part of this run: %s: %s", name, why)
		return
	}
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		test(t, tests.TestContext{TestID: tests.NewTestID(), Features: w.Features})
	})
}

func keys(m map[string]bool) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}

// declared are the names of the tests in watermill's source, so that a later
// version with more of them is noticed.
func declared(t *testing.T) (names []string) {
	file, _ := runtime.FuncForPC(reflect.ValueOf(tests.TestPubSub).Pointer()).FileLine(reflect.ValueOf(tests.TestPubSub).Pointer())
	source, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	for _, d := range source.Decls {
		f, is := d.(*ast.FuncDecl)
		// Those that run others take features; a test takes its context.
		if is && strings.HasPrefix(f.Name.Name, "Test") && len(f.Type.Params.List) == 3 && f.Recv == nil {
			names = append(names, f.Name.Name)
		}
	}
	return names
}
