package oteltest

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const rulesDir = "../prometheus/"

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(rulesDir + name)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(b, into))
}

// TestAlertRules has promtool look at the rules and run their cases.
func TestAlertRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil && os.Getenv("FANOUT_EVERYTHING") == "" {
		t.Log("not part of this run: there is no promtool; on Debian: apt-get install prometheus")
		return
	}
	require.NoError(t, err, "on Debian: apt-get install prometheus")
	for _, args := range [][]string{{"check", "rules", "fanout.rules.yml"}, {"test", "rules", "fanout.rules_test.yml"}} {
		c := exec.Command(promtool, args...)
		c.Dir = rulesDir
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// TestEachAlertRuleHasACaseThatFiresAndOneThatDoesNot.
func TestEachAlertRuleHasACaseThatFiresAndOneThatDoesNot(t *testing.T) {
	var rules struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	var cases struct {
		Tests []struct {
			Cases []struct {
				Alert  string `yaml:"alertname"`
				Expect []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, "fanout.rules.yml", &rules)
	readYAML(t, "fanout.rules_test.yml", &cases)
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range cases.Tests {
		for _, c := range test.Cases {
			if len(c.Expect) > 0 {
				fires[c.Alert] = true
			} else {
				quiet[c.Alert] = true
			}
		}
	}
	for _, g := range rules.Groups {
		require.Len(t, g.Rules, 5)
		for _, r := range g.Rules {
			require.True(t, fires[r.Alert], "%s never fires", r.Alert)
			require.True(t, quiet[r.Alert], "%s fires always", r.Alert)
		}
	}
}
