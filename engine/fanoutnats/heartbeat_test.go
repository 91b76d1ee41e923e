package fanoutnats

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// A request whose server says nothing, not even that it has it, is given up soon; one
// whose server does is kept.
func TestAPullRequestLivesByItsHeartbeats(t *testing.T) {
	p := &pull{open: true, want: 1, heard: time.Now().Add(-2 * silence), news: make(chan struct{}, 1)}
	_, wait, err := p.look()
	require.NoError(t, err)
	require.Equal(t, time.Millisecond, wait, "it has been silent for too long")

	beat := nats.NewMsg("inbox")
	beat.Header.Set("Status", "100")
	beat.Header.Set("Description", "Idle Heartbeat")
	p.arrived(beat)
	_, wait, err = p.look()
	require.NoError(t, err)
	require.Greater(t, wait, time.Millisecond)
	require.LessOrEqual(t, wait, silence)
	require.True(t, p.open, "a heartbeat does not end the request")
	require.LessOrEqual(t, silence, 2*time.Second)
	require.LessOrEqual(t, 2*heartbeat, min(silence, pullExpires), "one may get lost; a server takes no more")

	p.refuse(errors.New("refused"))
	_, wait, err = p.look()
	require.Zero(t, wait)
	require.EqualError(t, err, "refused")
}

// In a cluster the word that a request has ended overtakes the messages that it brings: it
// is not taken for the end, nor for a reason to ask again.
func TestTheEndOfARequestMayComeBeforeItsMessages(t *testing.T) {
	for _, end := range []*nats.Msg{status("404", "No Messages"), status("409", "Batch Completed")} {
		p := &pull{open: true, want: 1, heard: time.Now(), taken: true, news: make(chan struct{}, 1)}
		p.arrived(end)
		some, wait, err := p.look()
		require.NoError(t, err)
		require.False(t, some)
		require.Equal(t, rest, wait, "its message is waited for")
		p.arrived(&nats.Msg{Subject: "inbox", Reply: "$JS.ACK"})
		some, wait, err = p.look()
		require.NoError(t, err)
		require.True(t, some)
		require.Zero(t, wait)
		require.False(t, p.bringing)
	}
	p := &pull{open: true, want: 0, heard: time.Now(), taken: true, news: make(chan struct{}, 1)}
	p.arrived(status("409", "Batch Completed"))
	_, wait, _ := p.look()
	require.Zero(t, wait, "all have come")
}
