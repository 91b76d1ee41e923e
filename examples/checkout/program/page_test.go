package program

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAShopWithAPageGoesOnUntilItIsInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := Run(ctx, Where{}, []string{"-http", "127.0.0.1:0", "-speed", "50"}, in)
		ended <- err
		in.Close()
	}()
	said := bufio.NewScanner(out)
	var all strings.Builder
	for said.Scan() {
		all.WriteString(said.Text() + "\n")
		_, address, found := strings.Cut(said.Text(), "the queues are at ")
		if !found {
			continue
		}
		answer, err := http.Get(strings.TrimSpace(address))
		require.NoError(t, err)
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Contains(t, string(text), "inventory")
		interrupt()
	}
	require.NoError(t, <-ended, all.String())
	require.Contains(t, all.String(), "balanced")
}

func TestAnAddressThatCanNotBeServedIsSaid(t *testing.T) {
	err := Run(t.Context(), Where{}, []string{"-http", "nowhere"}, io.Discard)
	require.ErrorContains(t, err, "nowhere")
	var usage *usageError
	require.ErrorAs(t, Run(t.Context(), Where{}, []string{"-http", "127.0.0.1:0", "-flood", "10"}, io.Discard), &usage)
}
