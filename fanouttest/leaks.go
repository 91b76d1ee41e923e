package fanouttest

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"time"
)

// labelKey marks the goroutines of a kit's handlers. Those that handlers start
// inherit the mark, so that what is left of one test is told from what other
// tests run.
const labelKey = "fanouttest"

func (k *Kit) labels(topic string) context.Context {
	return pprof.WithLabels(context.Background(), pprof.Labels(labelKey, fmt.Sprintf("%p", k), "topic", topic))
}

// leaks waits until the closed topics have ended, and lists what doesn't.
func (k *Kit) leaks(members []member) []string {
	timeout := time.NewTimer(patience() / 5)
	defer timeout.Stop()
	for _, m := range members {
		select {
		case <-m.ended():
		case <-timeout.C:
			lines := k.handling()
			if len(lines) == 0 { // a hook, or a subscriber that is not the topic's
				lines = []string{fmt.Sprintf("topic %q: Done is not closed", m.title())}
			}
			return lines
		}
	}
	k.mu.Lock()
	ran := k.ran
	k.mu.Unlock()
	if !ran {
		return nil
	}
	return k.strays()
}

// strays lists goroutines that handlers started and that are still there. One
// that is just ending gets a second for it: nothing tells of a goroutine's end,
// so this looks again, less and less often.
//
// Looking stops the world and costs more than all the rest of a small test. The
// number of goroutines would be cheaper to look at, and was tried, but whatever
// else ends meanwhile hides a leak from it.
func (k *Kit) strays() []string {
	if virtual() {
		return nil // the bubble itself fails for them
	}
	for wait := time.Millisecond; ; wait *= 2 {
		found := k.marked()
		if len(found) == 0 || wait > 512*time.Millisecond {
			return found
		}
		<-time.After(wait)
	}
}

// marked lists the goroutines that have the kit's label.
func (k *Kit) marked() (found []string) {
	var dump bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&dump, 1); err != nil {
		return nil // a bytes.Buffer takes everything
	}
	label := fmt.Sprintf("%q:%q", labelKey, fmt.Sprintf("%p", k))
	for _, stack := range strings.Split(dump.String(), "\n\n") {
		if !strings.Contains(stack, label) {
			continue
		}
		lines := []string{"a goroutine that a handler started:"}
		for _, line := range strings.Split(stack, "\n") {
			if fields := strings.Fields(line); len(fields) >= 3 && fields[0] == "#" && strings.HasPrefix(fields[1], "0x") {
				lines = append(lines, "    "+strings.Join(fields[2:], " "))
			}
		}
		found = append(found, strings.Join(lines, "\n    "))
	}
	return found
}
