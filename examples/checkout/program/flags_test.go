package program

import (
	"bytes"
	"flag"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFlagsThatCannotBeAreNamedWithTheirValue(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"x"}, `unexpected argument "x"`},
		{[]string{"-nope"}, "flag provided but not defined: -nope"},
		{[]string{"-workers", "many"}, `invalid value "many" for flag -workers: parse error`},
		{[]string{"-workers", "0"}, "-workers 0: want 1 to 10000"},
		{[]string{"-capacity", "0"}, "-capacity 0: want 1 to 1000000"},
		{[]string{"-failure", "1.5"}, "-failure 1.5: want 0 to 1"},
		{[]string{"-failure", "NaN"}, "-failure NaN: want 0 to 1"},
		{[]string{"-speed", "0"}, "-speed 0: want 0.01 to 1000"},
		{[]string{"-grace", "-1s"}, "-grace -1s: want a duration that is not negative"},
		{[]string{"-flood", "0"}, "-flood 0: want 1 to 100000000"},
		{[]string{"-flood", "5", "-orders", "x"}, "-orders and -flood exclude each other"},
		{[]string{"-flood", "5", "-speed", "2"}, "-speed and -flood exclude each other: in a flood nothing takes any time"},
		{[]string{"-orders", ""}, "-orders: want a directory"},
	} {
		_, err := parseFlags(Where{}, tt.args, io.Discard)
		require.EqualError(t, err, tt.want)
		var usage *usageError
		require.ErrorAs(t, err, &usage)
	}
}

func TestDefaultsDependOnWhatIsToBeDone(t *testing.T) {
	for _, tt := range []struct {
		args     []string
		speed    float64
		capacity int
	}{
		{nil, 1, 32},
		{[]string{"-orders", "x"}, 10, 32},
		{[]string{"-orders", "x", "-speed", "1"}, 1, 32},
		{[]string{"-flood", "10"}, 1, 256},
		{[]string{"-flood", "10", "-capacity", "3"}, 1, 3},
	} {
		c, err := parseFlags(Where{}, tt.args, io.Discard)
		require.NoError(t, err)
		require.Equal(t, tt.speed, c.speed, tt.args)
		require.Equal(t, tt.capacity, c.capacity, tt.args)
		require.Equal(t, 3*time.Second, c.grace)
	}
}

func TestHelpIsWrittenOnceAndIsNoUsageError(t *testing.T) {
	var out bytes.Buffer
	err := Run(t.Context(), Where{}, []string{"-h"}, &out)
	require.ErrorIs(t, err, flag.ErrHelp)
	require.Contains(t, out.String(), "-flood n")
}
