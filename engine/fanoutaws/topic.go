package fanoutaws

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"

	"github.com/gofanout/fanout/engine"
)

// A topic is an SNS topic.
type topic struct {
	e    *Engine
	name string // as the user calls it
	arn  string
	fifo bool
	size int // bytes that it takes in a message and in a request

	opened sync.Map       // what the user calls queues that were opened here, by their ARNs
	home   sync.WaitGroup // of queues that were closed
	closed atomic.Bool
	queues atomic.Int64 // the smallest limit of a queue that was opened here; 0 is none

	filters filters
}

// letterRoom is how much larger a message may be as a letter, or redriven, than it was
// published: by its shortest state, in base64, and by what the pack says of its way.
var letterRoom = base64.StdEncoding.EncodedLen(engine.MinState) + len(`,"moved":"redriven","state":""`)

// limit has what is published fit into a queue, and become a letter there.
func (t *topic) limit(source place) {
	for most := int64(source.most()); ; {
		have := t.queues.Load()
		if have > 0 && have <= most || t.queues.CompareAndSwap(have, most) {
			return
		}
	}
}

// check returns an error for a message that the topic would not take, or that could not
// die in a queue that is known here.
func (t *topic) check(w wire, delay time.Duration) error {
	queues := int(t.queues.Load())
	switch {
	case w.size() > t.size:
		return fmt.Errorf("%w: %d bytes with its attributes, and the topic's limit is %d", engine.ErrTooLarge, w.size(), t.size)
	case queues > 0 && w.size()+letterRoom > queues:
		return fmt.Errorf("%w: %d bytes with its attributes, %d as a dead letter, and a queue's limit is %d",
			engine.ErrTooLarge, w.size(), w.size()+letterRoom, queues)
	case delay > delayMost:
		return fmt.Errorf("a delay of %v: the most is %v", delay, delayMost)
	}
	return nil
}

// Publish checks all messages first, so that one that SNS would not take
// refuses the batch while nothing is published.
func (t *topic) Publish(ctx context.Context, ms []engine.Message) error {
	if t.closed.Load() {
		return engine.ErrClosed
	}
	wires := make([]wire, len(ms))
	for k, m := range ms {
		var filtered map[string]bool
		if len(m.Attributes) > userMost {
			var err error
			if filtered, err = t.filtered(ctx); err != nil {
				return fmt.Errorf("fanoutaws: topic %q: message %d: %w", t.name, k, err)
			}
		}
		w, err := encode(m, pack{}, t.e.numbers, filtered)
		if err == nil {
			err = t.check(w, m.Delay)
		}
		if err != nil {
			return fmt.Errorf("fanoutaws: topic %q: message %d: %w", t.name, k, err)
		}
		wires[k] = w
	}
	failed := make(map[int]error)
	for first := 0; first < len(ms); {
		end := chunk(wires, first, t.size)
		err := t.send(ctx, ms, wires, first, end, failed)
		if err != nil && first == 0 {
			return fmt.Errorf("fanoutaws: topic %q: %w", t.name, err)
		}
		if err != nil {
			for k := first; k < end; k++ {
				failed[k] = err
			}
		}
		// What comes after a failure would come before it, once it is published
		// again; and a request that failed as a whole tells of the next ones.
		if first = end; first < len(ms) && (err != nil || t.fifo && len(failed) > 0) {
			for k := first; k < len(ms); k++ {
				failed[k] = errNotTried
			}
			break
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("fanoutaws: topic %q: %w", t.name, &engine.PartialError{Failed: failed})
	}
	return nil
}

var errNotTried = errors.New("not tried, as a message before it failed")

// chunk returns where the request that begins with wires[first] ends: after ten
// messages, or before the one that makes it too large.
func chunk(wires []wire, first, most int) (end int) {
	size := 0
	for end = first; end < len(wires) && end-first < batchMost; end++ {
		if size += wires[end].size(); size > most && end > first {
			break
		}
	}
	return end
}

// send publishes ms[first:end] in one request, and enters into failed what SNS
// has not taken.
func (t *topic) send(ctx context.Context, ms []engine.Message, wires []wire, first, end int, failed map[int]error) error {
	in := &sns.PublishBatchInput{TopicArn: aws.String(t.arn)}
	for k := first; k < end; k++ {
		entry := snstypes.PublishBatchRequestEntry{
			Id:                aws.String(strconv.Itoa(k)),
			Message:           aws.String(wires[k].body),
			MessageAttributes: make(map[string]snstypes.MessageAttributeValue, len(wires[k].attributes)),
		}
		for name, a := range wires[k].attributes {
			entry.MessageAttributes[name] = snstypes.MessageAttributeValue{DataType: aws.String(a.typ), StringValue: aws.String(a.value)}
		}
		if t.fifo {
			entry.MessageGroupId = aws.String(groupID(ms[k].OrderingKey))
			entry.MessageDeduplicationId = aws.String(dedupID(ms[k].DeduplicationID))
		}
		in.PublishBatchRequestEntries = append(in.PublishBatchRequestEntries, entry)
	}
	out, err := t.e.sns.PublishBatch(ctx, in)
	if err != nil {
		return err
	}
	// An entry that neither list has is not known to be published.
	answered := make(map[string]bool, end-first)
	for _, s := range out.Successful {
		answered[aws.ToString(s.Id)] = true
	}
	for k := first; k < end; k++ {
		if !answered[strconv.Itoa(k)] {
			failed[k] = errNoAnswer
		}
	}
	for _, f := range out.Failed {
		if k, err := strconv.Atoi(aws.ToString(f.Id)); err == nil && first <= k && k < end {
			failed[k] = snsEntryError(f)
		}
	}
	return nil
}

// Close refuses what comes after it, and waits for the polls of queues that were closed,
// for closeMost at most.
func (t *topic) Close() error {
	t.closed.Store(true)
	t.home.Wait()
	return nil
}

// groupID is the message group of an ordering key. A message without a key
// is a group of its own: nothing waits for it.
func groupID(key string) string {
	if key == "" {
		return "-" + rand.Text()
	}
	return identifier(key)
}

// dedupID is the deduplication ID of one that a user gave. A FIFO topic wants
// one of each message, so those without get one that nobody else has.
func dedupID(id string) string {
	if id == "" {
		return "-" + rand.Text()
	}
	return identifier(id)
}

// identifier returns s if it can be a message group or a deduplication ID, and
// else its hash. A hyphen in front is for IDs made here.
func identifier(s string) string {
	fits := len(s) <= 128 && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
	if fits {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return "-sha256-" + hex.EncodeToString(sum[:])
}
