package fanoutaws

import (
	"fmt"
	"strings"
)

// Names says how topics and queues are called in AWS. Each function gets the
// names that the user of fanout gave and returns a name without the suffix
// .fifo, which the engine adds where it belongs, or the ARN of what exists.
// They are called concurrently.
type Names struct {
	// Topic names the SNS topic. The default is the topic's name.
	Topic func(topic string) string
	// Queue names the SQS queue. The default is the topic's name, a hyphen, and
	// the queue's.
	Queue func(topic, queue string) string
	// DeadLetters names the dead-letter queue. The default is the queue's default
	// name with "-dlq" behind.
	DeadLetters func(topic, queue string) string
}

func defaultNames() Names {
	return Names{
		Topic:       func(topic string) string { return topic },
		Queue:       func(topic, queue string) string { return topic + "-" + queue },
		DeadLetters: func(topic, queue string) string { return topic + "-" + queue + "-dlq" },
	}
}

const (
	fifoSuffix     = ".fifo"
	nameCharacters = "-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// awsName returns name as SNS or SQS has it, or an error if they can't.
func awsName(what, name string, fifo bool, most int) (string, error) {
	base := strings.TrimSuffix(name, fifoSuffix)
	full := base
	if fifo {
		full += fifoSuffix
	}
	switch {
	case base == "" || !only(base, nameCharacters):
		return "", fmt.Errorf("fanoutaws: %s name %q: AWS takes letters, digits, hyphens and underscores; WithNames can say another", what, name)
	case len(full) > most:
		return "", fmt.Errorf("fanoutaws: %s name %q has %d characters, AWS takes %d; WithNames can say another", what, full, len(full), most)
	case !fifo && base != name:
		return "", fmt.Errorf("fanoutaws: %s name %q ends in .fifo, which is for topics with ordering or deduplication", what, name)
	}
	return full, nil
}

// An arn is an ARN of a topic or a queue, split.
type arn struct{ partition, service, region, account, name string }

func parseARN(s string) (arn, bool) {
	p := strings.SplitN(s, ":", 6)
	if len(p) != 6 || p[0] != "arn" || p[5] == "" {
		return arn{}, false
	}
	return arn{p[1], p[2], p[3], p[4], p[5]}, true
}

func (a arn) String() string {
	return strings.Join([]string{"arn", a.partition, a.service, a.region, a.account, a.name}, ":")
}

// only reports if all characters of s are among those.
func only(s, those string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(those, r) }) < 0
}
