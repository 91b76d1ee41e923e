package fanoutaws

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"golang.org/x/sync/errgroup"

	"github.com/gofanout/fanout/engine"
)

// listedAtOnce is how many queues are looked at at the same time.
const listedAtOnce = 8

// ListQueues returns the queues that are subscribed to the topic: all of them, whoever has
// made them. What a queue is called in fanout is known of those that were opened here, and
// else found by [Names] if a queue's name is a part of what Queue returns; of others SQS's
// own name is given. A queue that the caller may not look at has Unknown numbers.
func (t *topic) ListQueues(ctx context.Context) ([]engine.QueueInfo, error) {
	if t.closed.Load() {
		return nil, engine.ErrClosed
	}
	infos, err := t.listQueues(ctx)
	if err != nil {
		return nil, fmt.Errorf("fanoutaws: topic %q: list its queues: %w", t.name, err)
	}
	return infos, nil
}

func (t *topic) listQueues(ctx context.Context) ([]engine.QueueInfo, error) {
	arns, err := t.subscribedQueues(ctx)
	if err != nil {
		return nil, err
	}
	found := make([]*engine.QueueInfo, len(arns))
	var looks errgroup.Group
	looks.SetLimit(listedAtOnce)
	for k, queueARN := range arns {
		looks.Go(func() (err error) {
			found[k], err = t.infoOf(ctx, queueARN)
			return err
		})
	}
	if err := looks.Wait(); err != nil {
		return nil, err
	}
	infos := make([]engine.QueueInfo, 0, len(found))
	for _, info := range found {
		if info != nil {
			infos = append(infos, *info)
		}
	}
	slices.SortFunc(infos, func(a, b engine.QueueInfo) int { return cmp.Compare(a.Name, b.Name) })
	return infos, nil
}

// subscribedQueues returns the ARNs of the queues that the topic sends to.
func (t *topic) subscribedQueues(ctx context.Context) (arns []string, err error) {
	pages := sns.NewListSubscriptionsByTopicPaginator(t.e.sns, &sns.ListSubscriptionsByTopicInput{TopicArn: aws.String(t.arn)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range page.Subscriptions {
			if aws.ToString(s.Protocol) == "sqs" && aws.ToString(s.SubscriptionArn) != pending {
				arns = append(arns, aws.ToString(s.Endpoint))
			}
		}
	}
	return arns, nil
}

// unknown is what a queue holds that the caller may not look at.
var unknown = engine.Stats{Ready: engine.Unknown, Delayed: engine.Unknown, InFlight: engine.Unknown, OldestAge: engine.Unknown}

// infoOf looks at a queue and its dead-letter queue; nil if the queue is gone, and only its
// subscription is left.
func (t *topic) infoOf(ctx context.Context, queueARN string) (*engine.QueueInfo, error) {
	info := engine.QueueInfo{Name: t.calledHere(queueARN), Letters: unknown}
	p, stats, err := t.e.look(ctx, queueARN)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info.Stats = stats
	dead := ""
	if r, err := parseRedrive(p.attributes[redriveAttribute]); err == nil && r.Target != "" {
		dead = r.Target
	} else if dead, err = t.e.deadName(t.name, info.Name, t.fifo); err != nil {
		return &info, nil // it is none of ours
	}
	_, letters, err := t.e.look(ctx, dead)
	if isMissing(err) {
		letters, err = engine.Stats{OldestAge: engine.Unknown}, nil
	}
	info.Letters = letters
	return &info, err
}

// look returns a queue and what it holds.
func (e *Engine) look(ctx context.Context, called string) (place, engine.Stats, error) {
	p, err := e.findPlace(ctx, called)
	switch {
	case isDenied(err):
		return p, unknown, nil
	case err != nil:
		return p, unknown, err
	}
	s, err := readStats(p.attributes)
	return p, s, err
}

// calledHere returns what the user calls the queue.
func (t *topic) calledHere(queueARN string) string {
	if name, ok := t.opened.Load(queueARN); ok {
		return name.(string)
	}
	a, _ := parseARN(queueARN)
	// Any name shows which part of the result is the queue's.
	const any = "fanout0queue"
	before, after, _ := strings.Cut(strings.TrimSuffix(t.e.names.Queue(t.name, any), fifoSuffix), any)
	for _, full := range []string{a.name, queueARN} {
		name, begins := strings.CutPrefix(strings.TrimSuffix(full, fifoSuffix), before)
		name, ends := strings.CutSuffix(name, after)
		if !begins || !ends || name == "" {
			continue
		}
		if source, err := t.e.sourceName(t.name, name, t.fifo); err == nil && source == full {
			return name
		}
	}
	return a.name
}
