package fanout

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhatBecomesOfAMessage(t *testing.T) {
	const limit = passesLimit
	for _, row := range []struct {
		name    string
		v       verdict
		most    int
		letters bool
		expired bool
		spent   uint32
		passes  uint16

		then      fate
		spentNow  uint32
		passesNow uint16
	}{
		{name: "a failure spends an attempt", v: verdict{cause: Failed}, most: 3, spent: 1, then: retries, spentNow: 2},
		{name: "the last attempt", v: verdict{cause: Failed}, most: 3, spent: 2, then: dies, spentNow: 3},
		{name: "more than the last", v: verdict{cause: TimedOut}, most: 3, spent: 7, then: dies, spentNow: 8},
		{name: "without a limit", v: verdict{cause: Failed}, most: Unlimited, spent: math.MaxUint32 - 1, then: retries, spentNow: math.MaxUint32},
		{name: "permanent", v: verdict{cause: PermanentlyFailed}, most: Unlimited, then: dies, spentNow: 1},
		{name: "a snooze spends none", v: verdict{cause: Snoozed, wait: time.Second}, most: 1, then: retries, passesNow: 1},
		{name: "a snooze too often", v: verdict{cause: Snoozed, wait: 1}, most: 9, passes: limit - 1, then: dies, passesNow: limit},
		{name: "passes don't overflow", v: verdict{cause: Released, wait: 1}, most: 9, passes: limit, then: dies, passesNow: limit},
		{name: "a release without a wait does not count", v: verdict{cause: Released}, most: 9, passes: limit - 1, then: retries, passesNow: limit - 1},
		{name: "one that has expired", v: verdict{cause: Failed}, most: 3, expired: true, then: expires, spentNow: 1},
		{name: "dead before it is expired", v: verdict{cause: Failed}, most: 1, expired: true, then: dies, spentNow: 1},
		{name: "a letter never dies", v: verdict{cause: PermanentlyFailed}, most: 1, letters: true, expired: true, then: retries, spentNow: 1},
		{name: "nor by snoozes", v: verdict{cause: Snoozed, wait: 1}, most: 1, letters: true, passes: limit, then: retries, passesNow: limit},
	} {
		t.Run(row.name, func(t *testing.T) {
			q := &Queue[int]{set: &queueLimits{maxAttempts: row.most}, letters: row.letters}
			then, spent, passes := q.judge(row.v, row.spent, row.passes, row.expired)
			require.Equal(t, row.then, then)
			require.Equal(t, row.spentNow, spent)
			require.Equal(t, row.passesNow, passes)
		})
	}
}
