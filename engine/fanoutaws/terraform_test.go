package fanoutaws

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
)

const terraformFiles = "../../examples/checkout-aws/deploy/terraform/"

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// blockOf returns the arguments that a resource of Terraform has, one a line, by name.
func blockOf(t *testing.T, text, head string) map[string]string {
	t.Helper()
	_, rest, found := strings.Cut(text, head+" {\n")
	require.True(t, found, head)
	body, _, _ := strings.Cut(rest, "\n}\n")
	args := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^  (\w+) += (.*?)(?: #.*)?$`).FindAllStringSubmatch(body, -1) {
		args[m[1]] = m[2]
	}
	return args
}

// TestTerraformMakesWhatTheEngineMakes, attribute by attribute.
func TestTerraformMakesWhatTheEngineMakes(t *testing.T) {
	inFake(t, testTerraformMakesWhatTheEngineMakes)
}

func testTerraformMakesWhatTheEngineMakes(t *testing.T) {
	text, variables := readText(t, terraformFiles+"main.tf"), readText(t, terraformFiles+"variables.tf")
	byDefault := func(name string) string {
		m := regexp.MustCompile(name + ` += optional\(number, (\d+)\)`).FindStringSubmatch(variables)
		require.NotNil(t, m, name)
		return m[1]
	}
	attributes := map[string]string{ // arguments by the names of SQS
		"fifo_queue": "FifoQueue", "max_message_size": sizeAttribute, "visibility_timeout_seconds": "VisibilityTimeout",
		"message_retention_seconds": "MessageRetentionPeriod", "receive_wait_time_seconds": "ReceiveMessageWaitTimeSeconds",
		"content_based_deduplication": "ContentBasedDeduplication", "delay_seconds": "DelaySeconds",
	}
	unset := map[string]string{ // what Terraform's provider says of arguments that are not given
		sizeAttribute: "262144", "VisibilityTimeout": "30", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "0",
		"FifoQueue": "", "ContentBasedDeduplication": "", "DelaySeconds": "0",
	}
	for _, fifo := range []bool{false, true} {
		top := newTopic(t, newEngine(t), engine.TopicSpec{Ordering: fifo})
		// fanout's own visibility timeout and attempts, which nobody set.
		q := openQueue(t, top, engine.QueueSpec{Name: "q", Visibility: 30 * time.Second, MaxAttempts: 5})
		isFifo := map[bool]string{false: "", true: "true"}[fifo]
		values := strings.NewReplacer("var.fifo", isFifo, "each.value.visibility_timeout", byDefault("visibility_timeout"), "each.value.retention", byDefault("retention"))
		for resource, url := range map[string]string{"queue": q.place.url, "dead": q.dead.place.url} {
			args := blockOf(t, text, `resource "aws_sqs_queue" "`+resource+`"`)
			made, err := top.e.describe(t.Context(), url)
			require.NoError(t, err)
			for argument, attribute := range attributes {
				want := unset[attribute]
				if given, ok := args[argument]; ok {
					want = values.Replace(given)
				}
				have := made.attributes[attribute]
				if have == "false" {
					have = ""
				}
				require.Equal(t, have, want, "%s of %s, fifo %v", argument, resource, fifo)
				delete(args, argument)
			}
			for argument := range args {
				require.Contains(t, []string{"for_each", "name", "policy", "redrive_policy", "deadLetterTargetArn", "maxReceiveCount"}, argument, "nobody compares it")
			}
		}
		r, err := parseRedrive(q.place.attributes[redriveAttribute])
		require.NoError(t, err)
		require.Contains(t, text, "maxReceiveCount     = "+regexp.MustCompile(`\d+`).FindString(newRedrive("")))
		require.Equal(t, 1000, r.Count)
		require.Equal(t, "true", blockOf(t, text, `resource "aws_sns_topic_subscription" "queue"`)["raw_message_delivery"])
	}
	require.NotContains(t, text, `"aws_sqs_queue_policy"`, "the policy is there when the queue begins to exist")
	for _, part := range []string{policySid, "sns.amazonaws.com", "sqs:SendMessage", "ArnEquals", "aws:SourceArn", "aws_sns_topic.topic.arn"} {
		require.Contains(t, text, part)
	}
}

// TestRolesMayDoWhatTheyNeedAndNoMore.
func TestRolesMayDoWhatTheyNeedAndNoMore(t *testing.T) {
	text := readText(t, terraformFiles+"main.tf")
	actions := func(role string) (on map[string]string) {
		_, rest, found := strings.Cut(text, `resource "aws_iam_policy" "`+role+`"`)
		require.True(t, found, role)
		body, _, _ := strings.Cut(rest, "\n}\n")
		on = map[string]string{}
		for _, m := range regexp.MustCompile(`Action +=\s*\[([^\]]*)\][,\s]+Resource +=\s*(\S+)`).FindAllStringSubmatch(body, -1) {
			on[strings.TrimSuffix(m[2], ",")] = m[1]
		}
		return on
	}
	const queue, dead, topic = "aws_sqs_queue.queue[each.key].arn", "aws_sqs_queue.dead[each.key].arn", "aws_sns_topic.topic.arn"
	consume := actions("consume")
	require.NotContains(t, consume[queue], "SendMessage")
	require.Contains(t, consume[queue], "sqs:ChangeMessageVisibility")
	require.Contains(t, consume[dead], "sqs:SendMessage")
	require.NotContains(t, consume[dead], "ReceiveMessage")
	require.NotContains(t, consume[dead], "DeleteMessage")
	require.Contains(t, consume[topic], "sns:GetTopicAttributes")
	require.Contains(t, actions("publish")[topic], "sns:GetTopicAttributes")
	require.Contains(t, actions("operate")[dead], "sqs:StartMessageMoveTask")
}
