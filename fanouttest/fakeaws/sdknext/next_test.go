// Package sdknext runs fakeaws's tests with a newer set of the SDK than the
// oldest one, which fakeaws itself requires: aws-sdk-go-v2 1.48.0, sqs 1.53.0
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

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// The same tests as those of fakeaws, built in this module, so with its
// versions of the SDK.
func TestTheSameTestsWithTheNewerSDK(t *testing.T) {
	arguments := []string{"test", "-count=1", "-vet=off", "-short", "github.com/gofanout/fanout/fanouttest/fakeaws", "github.com/gofanout/fanout/fanouttest/fakeaws/cmd/..."} // not /...: that has this very test in it
	out, err := exec.CommandContext(t.Context(), "go", arguments...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "ok  \tgithub.com/gofanout/fanout/fanouttest/fakeaws\t")
}

// The versions are what they should be.
func TestVersions(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", "github.com/aws/aws-sdk-go-v2",
		"github.com/aws/aws-sdk-go-v2/service/sqs", "github.com/aws/aws-sdk-go-v2/service/sns").Output()
	require.NoError(t, err)
	require.Equal(t, "v1.48.0 v1.53.0 v1.48.0", strings.Join(strings.Fields(string(out)), " "))
	a := fakeaws.New(t)
	_, err = a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
	require.NoError(t, err)
	_, err = a.SNS().GetSMSAttributes(t.Context(), &sns.GetSMSAttributesInput{})
	require.ErrorContains(t, err, "InvalidAction")
}
