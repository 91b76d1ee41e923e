package callback

import (
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// rude has a text that can't be had.
type rude struct{ exits bool }

func (r rude) String() string {
	if r.exits {
		runtime.Goexit()
	}
	panic("no text")
}

type rudeError struct{}

func (rudeError) Error() string {
	runtime.Goexit()
	return ""
}

func TestAPanicHasAnError(t *testing.T) {
	err := Error(io.EOF)
	require.ErrorIs(t, err, io.EOF)
	require.EqualError(t, err, "panic: EOF")
	require.EqualError(t, Error(7), "panic: 7")
	require.ErrorContains(t, Error(rude{}), "panic: ") // fmt says that its String panics
	require.EqualError(t, Error(rude{exits: true}), "panic: a callback.rude, whose text could not be had")
	require.EqualError(t, Error(rudeError{}), "panic: a callback.rudeError, whose text could not be had")
}
