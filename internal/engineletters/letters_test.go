package engineletters

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

func TestWhichLettersARedriveTakesForNew(t *testing.T) {
	began := time.Unix(100, 0)
	died := func(at time.Duration) *message.History {
		return message.Restored([]message.Kept{{Attempt: message.Attempt{Start: began.Add(at - time.Second), Elapsed: time.Second}}})
	}
	for _, row := range []struct {
		hist  *message.History
		moved bool
		want  bool
	}{
		{died(-1), false, false}, {died(-1), true, false},
		{died(0), false, false}, {died(0), true, true}, // a clock that stands still
		{died(1), false, true}, {died(1), true, true},
		{nil, false, false}, {nil, true, true},
	} {
		require.Equal(t, row.want, diedAfter(began, row.hist, row.moved), "%+v", row)
	}
}
