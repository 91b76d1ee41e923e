package ending

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A story is what topics were asked, in that order.
type story struct {
	mu    sync.Mutex
	lines []string
}

func (s *story) tell(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, what)
}

// before requires that every line of one is told before every line of the other.
func (s *story) before(t *testing.T, first, second string) {
	t.Helper()
	is := func(what string) func(string) bool { return func(l string) bool { return l[2:] == what } }
	f, l := slices.IndexFunc(s.lines, is(second)), len(s.lines)-1
	require.NotEqual(t, -1, f, "%q is told", second)
	for l >= 0 && !is(first)(s.lines[l]) {
		l--
	}
	require.NotEqual(t, -1, l, "%q is told", first)
	require.Less(t, l, f, "%q before %q in %q", first, second, s.lines)
}

func (s *story) count(what string) (n int) {
	for _, l := range s.lines {
		if l == what {
			n++
		}
	}
	return n
}

// A fake is a topic that does as it was told.
type fake struct {
	*story
	name     string
	engine   bool
	with     map[any]bool
	accepted uint64
	busy     int // looks until it is drained
	late     int // looks of the others until it has accepted one more
	await    func(ctx context.Context) error
	finish   func()
	left     *ShutdownError
}

func (f *fake) Identity() any { return f }

func (f *fake) BeginShutdown(with map[any]bool) Ending {
	f.with = with
	f.tell(f.name + " begins")
	return f
}

func (f *fake) Published() uint64 { return f.accepted }

func (f *fake) Await(ctx context.Context) error {
	f.tell(f.name + " waits")
	if f.await != nil {
		return f.await(ctx)
	}
	return nil
}

func (f *fake) IsDrained() bool {
	f.tell(f.name + " is looked at")
	if f.late > 0 { // another's handler publishes to this one, which was looked at before
		f.late--
		defer func() { f.accepted++ }()
	}
	if f.busy > 0 {
		f.busy--
		return false
	}
	return true
}

func (f *fake) DrainDead()     { f.tell(f.name + " drains letters") }
func (f *fake) OnEngine() bool { return f.engine }
func (f *fake) AskLeft()       { f.tell(f.name + " asks") }

func (f *fake) CloseNow(why error) func() {
	if why != nil {
		f.tell(f.name + " closes early")
	} else {
		f.tell(f.name + " closes")
	}
	return func() {
		f.tell(f.name + " tells")
		if f.finish != nil {
			f.finish()
		}
	}
}

func (f *fake) AwaitDone(context.Context) { f.tell(f.name + " is done") }
func (f *fake) Result() *ShutdownError    { return f.left }

func TestAllAreDrainedBeforeOneIsClosed(t *testing.T) {
	s := &story{}
	a, b := &fake{story: s, name: "a"}, &fake{story: s, name: "b", left: &ShutdownError{Topic: "b"}}
	left := End(context.Background(), a, b)
	require.Equal(t, []*ShutdownError{b.left}, left)
	require.Equal(t, map[any]bool{a: true, b: true}, a.with)
	require.Equal(t, a.with, b.with)
	for _, two := range [][2]string{
		{"begins", "waits"}, {"begins", "is looked at"}, {"waits", "closes"}, {"is looked at", "closes"},
		{"drains letters", "closes"}, {"closes", "tells"}, {"tells", "is done"},
	} {
		s.before(t, two[0], two[1])
	}
	require.Equal(t, 2, s.count("a waits"), "for messages, and for letters")
	require.Equal(t, 2, s.count("b is looked at"))
}

func TestATopicThatIsNamedTwiceCountsOnce(t *testing.T) {
	s := &story{}
	a, b := &fake{story: s, name: "a", left: &ShutdownError{Topic: "a"}}, &fake{story: s, name: "b", left: &ShutdownError{Topic: "b"}}
	require.Equal(t, []*ShutdownError{a.left, b.left}, End(context.Background(), a, b, a))
	require.Equal(t, 1, s.count("a begins"))
	require.Equal(t, 1, s.count("a closes"))
}

func TestWhatATopicTakesWhileOthersAreLookedAtHasAllLookedAtAgain(t *testing.T) {
	s := &story{}
	a, b := &fake{story: s, name: "a", late: 1}, &fake{story: s, name: "b"}
	require.Empty(t, End(context.Background(), a, b))
	require.Equal(t, 3, s.count("a waits"), "twice for messages, once for letters")
	require.Equal(t, 3, s.count("b is looked at"))
}

func TestATopicThatIsNotDrainedAnyMoreIsWaitedForAgain(t *testing.T) {
	s := &story{}
	a, b := &fake{story: s, name: "a"}, &fake{story: s, name: "b", busy: 2}
	require.Empty(t, End(context.Background(), a, b))
	require.Equal(t, 4, s.count("a waits"))
	require.Equal(t, 1, s.count("b drains letters"))
	s.before(t, "drains letters", "closes")
}

func TestOneThatIsNotDrainedInTimeClosesAll(t *testing.T) {
	s := &story{}
	late := errors.New("late")
	a := &fake{story: s, name: "a", engine: true}
	b := &fake{story: s, name: "b", await: func(context.Context) error { return late }}
	c := &fake{story: s, name: "c", engine: true}
	require.Empty(t, End(context.Background(), a, b, c))
	require.Zero(t, s.count("a drains letters"))
	require.Zero(t, s.count("b closes"), "it is told why it was not waited for")
	require.Equal(t, 1, s.count("b closes early"))
	for _, name := range []string{"a", "c"} { // what an engine holds is asked for once, when the others are closed
		require.Equal(t, 1, s.count(name+" asks"))
		require.Less(t, slices.Index(s.lines, "b closes early"), slices.Index(s.lines, name+" asks"))
		require.Less(t, slices.Index(s.lines, name+" asks"), slices.Index(s.lines, "a closes early"))
	}
	require.Zero(t, s.count("b asks"))
	require.Zero(t, s.count("a is done"), "time is up")
}

func TestAnErrorOfOneTopicEndsNoOthersWait(t *testing.T) {
	s := &story{}
	release := make(chan struct{})
	waited := false
	a := &fake{story: s, name: "a", await: func(context.Context) error { close(release); return context.Canceled }}
	b := &fake{story: s, name: "b", await: func(ctx context.Context) error {
		<-release
		waited = true
		return ctx.Err()
	}}
	require.Empty(t, End(context.Background(), a, b))
	require.True(t, waited)
}

func TestAHookThatEndsTheGoroutineKeepsNobodyFromBeingTold(t *testing.T) {
	s := &story{}
	exit := func() { panic("a hook") }
	a, b := &fake{story: s, name: "a", finish: exit}, &fake{story: s, name: "b", finish: exit}
	require.Panics(t, func() { End(context.Background(), a, b) })
	require.Equal(t, 1, s.count("a tells"))
	require.Equal(t, 1, s.count("b tells"))
	require.Less(t, slices.Index(s.lines, "a tells"), slices.Index(s.lines, "b tells"), "in the order of the topics")
}

func TestWhatIsLeftCountsNoHandlers(t *testing.T) {
	left := Left{Ready: 1, Retrying: 2, Delayed: 3, InFlight: 4, Parked: 5, Released: 6, Running: 7}
	require.Equal(t, 1+2+3+4+5+6, left.Messages(), "handlers are no messages")
}
