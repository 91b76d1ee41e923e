package topic

// knownFaults are tests that state the right value and do not find it yet. Each is
// run and must fail: one that passes breaks the build until it is taken off.
var knownFaults = []string{
	// A message that is left alone in its lease has a place in the table for itself: of
	// 10,000 of which one in 200 is kept each pins 372 bytes, not 306.
	"TestAKeptMessagePinsLittleMoreThanItself/8_bytes/leased",
	// A lease with messages that are taken one by one has a part more.
	"TestAKeptMessagePinsLittleMoreThanItself/8_bytes/alone",
}
