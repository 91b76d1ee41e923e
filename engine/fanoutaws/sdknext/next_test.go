// Package sdknext runs fanoutaws's tests with a newer set of the SDK than the
// oldest one, which fanoutaws itself requires: aws-sdk-go-v2 1.48.0, sqs 1.53.0
// and sns 1.48.0, in which serialization was rewritten.
package sdknext

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// The same tests as those of fanoutaws, built in this module, so with its
// versions of the SDK.
func TestTheSameTestsWithTheNewerSDK(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-vet=off", "github.com/gofanout/fanout/engine/fanoutaws").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "ok  \tgithub.com/gofanout/fanout/engine/fanoutaws\t")
}

// The versions are what they should be.
func TestVersions(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", "github.com/aws/aws-sdk-go-v2",
		"github.com/aws/aws-sdk-go-v2/service/sqs", "github.com/aws/aws-sdk-go-v2/service/sns").Output()
	require.NoError(t, err)
	require.Equal(t, "v1.48.0 v1.53.0 v1.48.0", strings.Join(strings.Fields(string(out)), " "))
	a := fakeaws.New(t)
	_, err = a.SNS().CreateTopic(t.Context(), &sns.CreateTopicInput{Name: aws.String("payments")})
	require.NoError(t, err)
	_, err = a.SQS().ListQueues(t.Context(), &sqs.ListQueuesInput{})
	require.NoError(t, err)
	e, err := fanoutaws.New(a.SNS(), a.SQS(), fanoutaws.WithExisting())
	require.NoError(t, err)
	_, err = e.OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
	require.NoError(t, err)
}
