package fanoutnats_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// permitted reads from the README what a role may publish to, for topic "payments" and
// queue "shipping".
func permitted(t *testing.T, role string) (subjects []string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	row := regexp.MustCompile(`(?m)^\| ` + role + ` \|(.*)\|$`).FindSubmatch(text)
	require.NotNil(t, row, role)
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(string(row[1]), -1) {
		subjects = append(subjects, strings.NewReplacer("TOPIC", "payments", "QUEUE", "shipping").Replace(m[1]))
	}
	return subjects
}

func user(name string, subjects ...string) *server.User {
	return &server.User{Username: name, Password: "secret", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: subjects}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	}}
}

// without are the subjects that do not contain text.
func without(subjects []string, text string) (rest []string) {
	for _, s := range subjects {
		if !strings.Contains(s, text) {
			rest = append(rest, s)
		}
	}
	return rest
}

// Each role can do what it is there for with the permissions that the README names.
func TestTheREADMENamesThePermissionsThatAreNeeded(t *testing.T) {
	t.Parallel()
	publisher, consumer, operator := permitted(t, "publisher"), permitted(t, "consumer"), permitted(t, "operator")
	s := startServer(t, user("publisher", publisher...), user("consumer", consumer...),
		user("operator", append(operator, consumer...)...))
	spec := engine.TopicSpec{Name: "payments", Deduplication: time.Minute}
	ctx := t.Context()
	operated := openTopic(t, s.engine(t, "operator"), spec)
	admin := openQueue(t, operated, engine.QueueSpec{Name: "shipping"})

	top := openTopic(t, s.engine(t, "publisher"), spec)
	require.NoError(t, top.Publish(ctx, messages(1)))
	dup := messages(3)
	dup[1].DeduplicationID = "a"
	require.NoError(t, top.Publish(ctx, dup))
	require.NoError(t, top.Publish(ctx, dup))
	requireTotal(t, 6, admin)

	q := openQueue(t, openTopic(t, s.engine(t, "consumer"), spec), engine.QueueSpec{Name: "shipping"})
	rs := receive(t, q, 6, time.Minute)
	require.NoError(t, q.Extend(ctx, rs[0].Receipt, time.Hour))
	require.NoError(t, q.Return(ctx, rs[0].Receipt, 0, []byte("state")))
	again := receiveOne(t, q, 0)
	require.Equal(t, "state", string(again.State))
	require.NoError(t, q.Ack(ctx, again.Receipt))
	require.NoError(t, q.DeadLetter(ctx, rs[1].Receipt, rs[1].Message))
	letter := receiveOne(t, q.DeadLetters(), 0)
	require.NoError(t, q.DeadLetters().Redrive(ctx, letter.Receipt, letter.Message))
	requireTotal(t, 5, q)
	for _, each := range []engine.Queue{admin, admin.DeadLetters()} {
		_, err := each.Purge(ctx)
		require.NoError(t, err)
	}
	require.Zero(t, total(t, q))

	infos, err := operated.(engine.Lister).ListQueues(ctx)
	require.NoError(t, err)
	require.Equal(t, []engine.QueueInfo{{
		Name: "shipping", Stats: engine.Stats{OldestAge: engine.Unknown}, Letters: engine.Stats{OldestAge: engine.Unknown},
	}}, infos)

	// A letter that is made while its queue is deleted is taken back.
	require.NoError(t, top.Publish(ctx, messages(1)))
	r := receiveOne(t, q, time.Minute)
	require.NoError(t, admin.Close())
	_, _, err = admin.Delete(ctx)
	require.NoError(t, err)
	err = q.DeadLetter(ctx, r.Receipt, r.Message)
	require.ErrorIs(t, err, engine.ErrClosed)
	require.NotErrorIs(t, err, nats.ErrPermissionViolation)
}

// What a client may not do fails at once, with the server's reason.
func TestAMissingPermissionIsSaid(t *testing.T) {
	t.Parallel()
	consumer := permitted(t, "consumer")
	silent := user("silent", permitted(t, "publisher")...)
	silent.Permissions.Subscribe.Allow = []string{"elsewhere"}
	deaf := user("deaf", consumer...)
	deaf.Permissions.Subscribe.Allow = silent.Permissions.Subscribe.Allow
	s := startServer(t, deaf, user("admin", ">"), user("nobody", "elsewhere"), user("publisher", permitted(t, "publisher")...), silent,
		user("consumer", consumer...), user("no pull", without(consumer, "MSG.NEXT")...), user("no ack", without(consumer, "$JS.ACK")...),
		user("no letters", without(consumer, ".dead.")...), user("no records", without(consumer, ".state.")...))
	spec, shipping := engine.TopicSpec{Name: "payments"}, engine.QueueSpec{Name: "shipping"}
	ctx := t.Context()
	admin := openTopic(t, s.engine(t, "admin"), spec)
	openQueue(t, admin, shipping)
	require.NoError(t, admin.Publish(ctx, messages(4)))
	as := func(t *testing.T, user string) engine.Topic { return openTopic(t, s.engine(t, user), spec) }
	for name, row := range map[string]struct {
		do   func(t *testing.T) error
		want string
	}{
		"publish":         {func(t *testing.T) error { return as(t, "nobody").Publish(ctx, messages(1)) }, `Publish to "fanout.payments.all"`},
		"publish a batch": {func(t *testing.T) error { return as(t, "nobody").Publish(ctx, messages(2)) }, `Publish to "fanout.payments.all"`},
		"hear the answer": {func(t *testing.T) error {
			_, err := s.engine(t, "silent").OpenTopic(ctx, spec)
			return err
		}, `Subscription to "_INBOX.`},
		"hear any answer": {func(t *testing.T) error {
			_, err := s.engine(t, "deaf").OpenTopic(ctx, spec)
			return err
		}, `Subscription to "_INBOX.`},
		"open a queue": {func(t *testing.T) error {
			_, err := as(t, "publisher").OpenQueue(ctx, shipping)
			return err
		}, `Publish to "$JS.API.STREAM.INFO.`},
		"make a queue": {func(t *testing.T) error {
			_, err := as(t, "consumer").OpenQueue(ctx, engine.QueueSpec{Name: "other"})
			return err
		}, `Publish to "$JS.API.CONSUMER.`},
		"make a topic": {func(t *testing.T) error {
			_, err := s.engine(t, "consumer").OpenTopic(ctx, engine.TopicSpec{Name: "other"})
			if err == nil { // it may not even ask, and takes it for one that it may publish to
				err = as(t, "consumer").Publish(ctx, messages(1))
			}
			return err
		}, `Publish to "fanout.payments.all"`},
		"receive": {func(t *testing.T) error {
			_, err := openQueue(t, as(t, "no pull"), shipping).Receive(ctx, 1, 0)
			return err
		}, `Publish to "$JS.API.CONSUMER.MSG.NEXT.fanout-messages-payments.shipping"`},
		"acknowledge": {func(t *testing.T) error {
			q := openQueue(t, as(t, "no ack"), shipping)
			return q.Ack(ctx, receiveOne(t, q, 0).Receipt)
		}, `Publish to "$JS.ACK.fanout-messages-payments.shipping.`},
		"dead-letter": {func(t *testing.T) error {
			q := openQueue(t, as(t, "no letters"), shipping)
			r := receiveOne(t, q, 0)
			return q.DeadLetter(ctx, r.Receipt, r.Message)
		}, `Publish to "fanout.payments.dead.shipping"`},
		"keep a state": {func(t *testing.T) error {
			q := openQueue(t, as(t, "no records"), shipping)
			return q.Return(ctx, receiveOne(t, q, 0).Receipt, 0, []byte("state"))
		}, `Publish to "fanout.payments.state.shipping.`},
		"purge": {func(t *testing.T) error {
			_, err := openQueue(t, as(t, "consumer"), shipping).Purge(ctx)
			return err
		}, `Publish to "$JS.API.CONSUMER.RESET.fanout-messages-payments.shipping"`},
		"list": {func(t *testing.T) error {
			_, err := as(t, "consumer").(engine.Lister).ListQueues(ctx)
			return err
		}, `Publish to "$JS.API.CONSUMER.LIST.fanout-messages-payments"`},
		"delete": {func(t *testing.T) error {
			_, _, err := openQueue(t, as(t, "consumer"), shipping).Delete(ctx)
			return err
		}, `Publish to "$JS.API.CONSUMER.DELETE.fanout-messages-payments.shipping"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := row.do(t)
			require.ErrorIs(t, err, nats.ErrPermissionViolation)
			require.NotErrorIs(t, err, engine.ErrUnconfirmed)
			require.ErrorContains(t, err, row.want)
		})
	}
}
