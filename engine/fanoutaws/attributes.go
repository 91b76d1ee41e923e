package fanoutaws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"golang.org/x/sync/errgroup"

	"github.com/gofanout/fanout/engine"
)

// userMost is how many attributes a message has beside the pack.
const userMost = attributeMost - 1

// The attributes of W3C Trace Context. Consumers that don't use fanout read them too.
const (
	traceParent = "traceparent"
	traceState  = "tracestate"
)

// overflow returns those of a message's attributes that travel in the pack, as SNS and SQS
// take ten in all. What filters compare stays outside, since SNS looks nowhere else; then
// the trace's context; then names in their order.
func overflow(attributes map[string]string, filtered map[string]bool) (packed map[string]string, err error) {
	if len(attributes) <= userMost {
		return nil, nil
	}
	rank := func(name string) int {
		switch {
		case filtered[name]:
			return 0
		case name == traceParent:
			return 1
		case name == traceState:
			return 2
		}
		return 3
	}
	names := slices.SortedFunc(maps.Keys(attributes), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	if filtered[names[userMost]] {
		return nil, fmt.Errorf("%w: filter policies of the topic's subscriptions compare more than nine attributes of it: SQS takes ten, and fanout needs one of them",
			engine.ErrInvalid)
	}
	packed = make(map[string]string, len(names)-userMost)
	for _, name := range names[userMost:] {
		packed[name] = attributes[name]
	}
	return packed, nil
}

// filtersFor is how long the filter policies of a topic are remembered. A change of one
// takes SNS up to 15 minutes.
const filtersFor = time.Minute

// A filters knows which attributes the filter policies of a topic's subscriptions compare.
// It asks SNS when a message is published that has more attributes than SNS takes, and else
// never.
type filters struct {
	asking chan struct{} // whoever asks SNS has put one in; room for one

	mu    sync.Mutex // guards the fields below
	names map[string]bool
	until time.Time // zero: not known
	reset int       // how often forget was called
}

func newFilters() filters { return filters{asking: make(chan struct{}, 1)} }

// forget has the next call of filtered ask again.
func (f *filters) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = time.Time{}
	f.reset++
}

func (f *filters) known() (names map[string]bool, ok bool, reset int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names, time.Now().Before(f.until), f.reset
}

// filtered returns the attributes that filter policies compare, as they were at most a
// minute ago.
func (t *topic) filtered(ctx context.Context) (map[string]bool, error) {
	if names, ok, _ := t.filters.known(); ok {
		return names, nil
	}
	select {
	case t.filters.asking <- struct{}{}:
		defer func() { <-t.filters.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	names, ok, reset := t.filters.known() // somebody may have asked meanwhile
	if ok {
		return names, nil
	}
	asked := time.Now()
	names, err := t.askFiltered(ctx)
	if err != nil {
		return nil, fmt.Errorf("which attributes filter policies compare has to be known for a message with more than nine: %w", err)
	}
	t.filters.mu.Lock()
	defer t.filters.mu.Unlock()
	if t.filters.reset == reset {
		t.filters.names, t.filters.until = names, asked.Add(filtersFor)
	}
	return names, nil
}

func (t *topic) askFiltered(ctx context.Context) (map[string]bool, error) {
	var mu sync.Mutex // guards names
	names := make(map[string]bool)
	looks, ctx := errgroup.WithContext(ctx)
	looks.SetLimit(listedAtOnce)
	pages := sns.NewListSubscriptionsByTopicPaginator(t.e.sns, &sns.ListSubscriptionsByTopicInput{TopicArn: aws.String(t.arn)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, errors.Join(err, looks.Wait())
		}
		for _, s := range page.Subscriptions {
			if aws.ToString(s.SubscriptionArn) == pending {
				continue // it gets nothing yet
			}
			looks.Go(func() error {
				policy, err := t.policyOf(ctx, aws.ToString(s.SubscriptionArn))
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				addNames(names, policy)
				return nil
			})
		}
	}
	return names, looks.Wait()
}

// policyOf is the filter policy of a subscription, if that is for attributes. One that has
// ended has none.
func (t *topic) policyOf(ctx context.Context, subscriptionARN string) (map[string]any, error) {
	out, err := t.e.sns.GetSubscriptionAttributes(ctx, &sns.GetSubscriptionAttributesInput{SubscriptionArn: aws.String(subscriptionARN)})
	var gone *snstypes.NotFoundException
	if errors.As(err, &gone) {
		return nil, nil
	}
	if err != nil || out.Attributes["FilterPolicyScope"] == "MessageBody" {
		return nil, err
	}
	policy, err := readPolicy(out.Attributes["FilterPolicy"])
	if err != nil {
		return nil, fmt.Errorf("filter policy of %s: %w", subscriptionARN, err)
	}
	return policy, nil
}

// addNames adds the names that a filter policy compares.
func addNames(names map[string]bool, policy map[string]any) {
	for name, conditions := range policy {
		if name != "$or" {
			names[name] = true
			continue
		}
		list, _ := conditions.([]any)
		for _, c := range list {
			if object, ok := c.(map[string]any); ok {
				addNames(names, object)
			}
		}
	}
}
