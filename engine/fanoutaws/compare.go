package fanoutaws

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout/engine"
)

// compare sees if a queue that exists does what spec asks for. What it lacks
// is added unless the engine only uses what exists; what differs is
// [engine.ErrMismatch]. VisibilityTimeout isn't compared: each receive asks for
// its own.
func (t *topic) compare(ctx context.Context, source, dead place, spec engine.QueueSpec) error {
	set := make(map[string]string)
	for _, part := range []func(place, place, engine.QueueSpec, map[string]string) error{
		t.compareDelay, t.compareRetention, t.compareRedrive, t.comparePolicy,
	} {
		if err := part(source, dead, spec, set); err != nil {
			return err
		}
	}
	if len(set) == 0 {
		return nil
	}
	_, err := t.e.sqs.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: aws.String(source.url), Attributes: set})
	return err
}

// compareDelay takes a queue that SQS delays by no more than asked: the rest is
// done here.
func (t *topic) compareDelay(source, _ place, spec engine.QueueSpec, _ map[string]string) error {
	have, _ := strconv.Atoi(source.attributes["DelaySeconds"]) // "" is none
	if time.Duration(have)*time.Second > spec.Delay {
		return mismatch("queue "+source.arn, "DelaySeconds", have, fmt.Sprintf("no more than the queue's delay, %v", spec.Delay))
	}
	return nil
}

func (t *topic) compareRetention(source, _ place, _ engine.QueueSpec, set map[string]string) error {
	if t.e.retention == 0 {
		return nil
	}
	have, err := strconv.Atoi(source.attributes["MessageRetentionPeriod"])
	switch longer := time.Duration(have)*time.Second > t.e.retention; {
	case err != nil:
		return fmt.Errorf("MessageRetentionPeriod of queue %s: %w", source.arn, err)
	case longer, t.e.existing && wholeSeconds(t.e.retention) != strconv.Itoa(have):
		return mismatch("queue "+source.arn, "MessageRetentionPeriod", have, wholeSeconds(t.e.retention))
	case wholeSeconds(t.e.retention) != strconv.Itoa(have):
		set["MessageRetentionPeriod"] = wholeSeconds(t.e.retention)
	}
	return nil
}

const redriveAttribute = "RedrivePolicy"

// A redrive is a redrive policy. SQS has been seen to write the count as a
// number and as a string.
type redrive struct {
	Target string
	Count  int
}

func parseRedrive(text string) (redrive, error) {
	if text == "" {
		return redrive{}, nil
	}
	var r struct {
		Target string `json:"deadLetterTargetArn"`
		Count  any    `json:"maxReceiveCount"`
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return redrive{}, fmt.Errorf("redrive policy %s: %w", text, err)
	}
	n, err := strconv.Atoi(fmt.Sprint(r.Count))
	if err != nil && r.Target != "" {
		return redrive{}, fmt.Errorf("redrive policy %s: maxReceiveCount: %w", text, err)
	}
	return redrive{r.Target, n}, nil
}

func newRedrive(deadARN string) string {
	return fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, deadARN, receivesMost)
}

// needsNet reports if SQS's own redrive policy can stand well above the
// attempts that fanout allows.
func needsNet(spec engine.QueueSpec) bool {
	return 0 < spec.MaxAttempts && spec.MaxAttempts < receivesMost
}

func (t *topic) compareRedrive(source, dead place, spec engine.QueueSpec, set map[string]string) error {
	have, err := parseRedrive(source.attributes[redriveAttribute])
	what := "queue " + source.arn
	switch {
	case err != nil:
		return err
	case have.Target == "":
		if needsNet(spec) && !t.e.existing {
			set[redriveAttribute] = newRedrive(dead.arn)
		}
	case have.Target != dead.arn:
		return mismatch(what, "the dead-letter queue", have.Target, dead.arn)
	case spec.MaxAttempts == 0:
		return mismatch(what, "maxReceiveCount", have.Count, "unset, as attempts are unlimited")
	case have.Count < spec.MaxAttempts:
		return mismatch(what, "maxReceiveCount", have.Count, fmt.Sprintf("at least the %d attempts that fanout makes", spec.MaxAttempts))
	}
	return nil
}

// A queuePolicy is a queue's access policy, as far as it concerns us.
type queuePolicy struct {
	Version   string      `json:"Version,omitempty"`
	ID        string      `json:"Id,omitempty"`
	Statement []statement `json:"Statement"`
}

type statement map[string]any

const policySid = "FanoutTopicSends"

func topicStatement(queueARN, topicARN string) statement {
	return statement{
		"Sid": policySid, "Effect": "Allow", "Principal": map[string]any{"Service": "sns.amazonaws.com"},
		"Action": "sqs:SendMessage", "Resource": queueARN,
		"Condition": map[string]any{"ArnEquals": map[string]any{"aws:SourceArn": topicARN}},
	}
}

func newQueuePolicy(queueARN, topicARN string) string {
	return queuePolicy{Version: "2012-10-17", Statement: []statement{topicStatement(queueARN, topicARN)}}.String()
}

func (p queuePolicy) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic("fanoutaws: bug: " + err.Error()) // it is made of JSON
	}
	return string(b)
}

// comparePolicy looks for a statement that lets the topic send. One of ours for
// another topic means that two queues have the same name.
func (t *topic) comparePolicy(source, _ place, _ engine.QueueSpec, set map[string]string) error {
	text := source.attributes["Policy"]
	if text == "" && !t.e.existing {
		set["Policy"] = newQueuePolicy(source.arn, t.arn)
		return nil
	}
	p, err := parsePolicy(text)
	if err != nil {
		return fmt.Errorf("policy of queue %s: %w", source.arn, err)
	}
	sources := make([]string, 0, len(p.Statement))
	for _, s := range p.Statement {
		from := s.sources()
		if s.allowsSending() && (s["Condition"] == nil || slices.ContainsFunc(from, func(pattern string) bool { return arnLike(t.arn, pattern) })) {
			return nil
		}
		if s["Sid"] == policySid || t.e.existing {
			sources = append(sources, from...)
		}
	}
	if t.e.existing || len(sources) > 0 {
		return mismatch("queue "+source.arn, "the topic that its policy lets send", strings.Join(sources, " and "), t.arn)
	}
	p.Statement = append(p.Statement, topicStatement(source.arn, t.arn))
	set["Policy"] = p.String()
	return nil
}

func parsePolicy(text string) (queuePolicy, error) {
	var p queuePolicy
	if text == "" {
		return p, nil
	}
	err := json.Unmarshal([]byte(text), &p)
	if err != nil {
		// A single statement may stand without a list around it.
		var one struct {
			Version   string
			ID        string `json:"Id"`
			Statement statement
		}
		if json.Unmarshal([]byte(text), &one) == nil {
			return queuePolicy{one.Version, one.ID, []statement{one.Statement}}, nil
		}
	}
	return p, err
}

func (s statement) allowsSending() bool {
	return s["Effect"] == "Allow" && slices.ContainsFunc(texts(s["Action"]), func(a string) bool {
		a = strings.ToLower(a)
		return a == "*" || a == "sqs:*" || a == "sqs:sendmessage" || a == "sqs:send*"
	})
}

// sources are the ARNs of the statement's condition on aws:SourceArn.
func (s statement) sources() (arns []string) {
	condition, _ := s["Condition"].(map[string]any)
	for _, keys := range condition {
		keys, _ := keys.(map[string]any)
		for key, value := range keys {
			if strings.EqualFold(key, "aws:SourceArn") {
				arns = append(arns, texts(value)...)
			}
		}
	}
	return arns
}

// texts reads what may be a string or a list of them.
func texts(v any) (ss []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			if s, ok := e.(string); ok {
				ss = append(ss, s)
			}
		}
	}
	return ss
}

// arnLike reports if s matches pattern, in which * stands for anything.
func arnLike(s, pattern string) bool {
	head, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return s == pattern
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	for s = s[len(head):]; ; s = s[1:] {
		if arnLike(s, rest) {
			return true
		}
		if s == "" {
			return false
		}
	}
}
