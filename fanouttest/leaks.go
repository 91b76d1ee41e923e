package fanouttest

import (
	"bytes"
	"context"
	"fmt"
	"runtime/metrics"
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
	if !ran || virtual() { // in virtual time the bubble itself fails for what is left
		return nil
	}
	if k.counted && !k.mayHaveStrays(members) {
		return nil
	}
	return k.strays()
}

// goroutinesCreated is how many goroutines the process has started so far. The
// runtime tells from Go 1.26 on, for 50 ns and exactly: what a goroutine started
// before it was waited for is in the count.
func goroutinesCreated() (n uint64, ok bool) {
	sample := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0, false
	}
	return sample[0].Value.Uint64(), true
}

// mayHaveStrays reports whether the process has started more goroutines since
// the kit was made than the ended topics did. If not, no handler has started
// one. Unlike the number of goroutines that there are, which was tried first,
// this can't be wrong: whatever others end meanwhile, the numbers only grow, and
// whatever others start is a reason to look closer, as are goroutines of the
// topics that are not counted here: of timers, of queues that were closed before their
// topic, of dead-letter queues, of topics that are not the kit's.
func (k *Kit) mayHaveStrays(members []member) bool {
	var known uint64
	for _, m := range members {
		known += m.started()
	}
	now, _ := goroutinesCreated()
	return now-k.created > known
}

// strays lists goroutines that handlers started and that are still there. One
// that is just ending gets a second for it: nothing tells of a goroutine's end,
// so this looks again, less and less often.
//
// Looking stops the world and costs more than all the rest of a small test.
func (k *Kit) strays() []string {
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
