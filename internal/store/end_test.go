package store

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

func TestWhatBecomesOfAMessage(t *testing.T) {
	const limit = message.MostPasses
	for _, row := range []struct {
		name    string
		v       message.Verdict
		most    int
		letters bool
		expired bool
		spent   uint32
		passes  uint16

		then      Fate
		spentNow  uint32
		passesNow uint16
	}{
		{name: "a failure spends an attempt", v: message.Verdict{Cause: message.Failed}, most: 3, spent: 1, then: Retries, spentNow: 2},
		{name: "the last attempt", v: message.Verdict{Cause: message.Failed}, most: 3, spent: 2, then: Dies, spentNow: 3},
		{name: "more than the last", v: message.Verdict{Cause: message.TimedOut}, most: 3, spent: 7, then: Dies, spentNow: 8},
		{name: "without a limit", v: message.Verdict{Cause: message.Failed}, most: message.Unlimited, spent: math.MaxUint32 - 1, then: Retries, spentNow: math.MaxUint32},
		{name: "permanent", v: message.Verdict{Cause: message.PermanentlyFailed}, most: message.Unlimited, then: Dies, spentNow: 1},
		{name: "a snooze spends none", v: message.Verdict{Cause: message.Snoozed, Wait: time.Second}, most: 1, then: Retries, passesNow: 1},
		{name: "a snooze too often", v: message.Verdict{Cause: message.Snoozed, Wait: 1}, most: 9, passes: limit - 1, then: Dies, passesNow: limit},
		{name: "passes don't overflow", v: message.Verdict{Cause: message.Released, Wait: 1}, most: 9, passes: limit, then: Dies, passesNow: limit},
		{name: "a release without a wait does not count", v: message.Verdict{Cause: message.Released}, most: 9, passes: limit - 1, then: Retries, passesNow: limit - 1},
		{name: "one that has expired", v: message.Verdict{Cause: message.Failed}, most: 3, expired: true, then: Expires, spentNow: 1},
		{name: "dead before it is expired", v: message.Verdict{Cause: message.Failed}, most: 1, expired: true, then: Dies, spentNow: 1},
		{name: "a letter never dies", v: message.Verdict{Cause: message.PermanentlyFailed}, most: 1, letters: true, expired: true, then: Retries, spentNow: 1},
		{name: "nor by snoozes", v: message.Verdict{Cause: message.Snoozed, Wait: 1}, most: 1, letters: true, passes: limit, then: Retries, passesNow: limit},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &Store[int]{Set: &settings.Limits{MaxAttempts: row.most}, Letters: row.letters}
			then, spent, passes := s.Judge(row.v, row.spent, row.passes, row.expired)
			require.Equal(t, row.then, then)
			require.Equal(t, row.spentNow, spent)
			require.Equal(t, row.passesNow, passes)
		})
	}
}
