package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// out is what a program has printed.
type out struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *out) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *out) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

var served = regexp.MustCompile(`metrics at http://([0-9.:]+)/metrics`)

// start runs the program until the end of the test, and returns the address of its metrics.
func start(t *testing.T, args ...string) (address string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var stderr out
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, append(args, "-listen", "127.0.0.1:0"), io.Discard, &stderr) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended, stderr.String())
	})
	require.Eventually(t, func() bool { return served.MatchString(stderr.String()) }, 30*time.Second, time.Millisecond, "%v", &stderr)
	return served.FindStringSubmatch(stderr.String())[1]
}

// A dashboard is what Grafana reads, as far as the test does.
type dashboard struct {
	Panels []struct {
		Title, Type string
		Targets     []struct{ RefID, Expr string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	b, err := os.ReadFile("../../plugin/fanoutotel/grafana/fanout.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &d))
	return d
}

// Panels that are empty as long as nothing is wrong, and those with something above 0 then.
var (
	emptyInPeace = []string{"Failed operations", "Failed attempts", "Dropped"}
	inTrouble    = []string{
		"Publishers waiting", "Failed operations", "Failed attempts", "Share of the capacity", "Ready and in flight",
		"Age of the oldest ready message", "Dead letters", "Dropped",
	}
)

// TestEachPanelHasASeries: Prometheus scrapes the program twice, in peace and in trouble, and
// answers the query of each panel, and what the alert rules ask.
func TestEachPanelHasASeries(t *testing.T) {
	if _, err := exec.LookPath("prometheus"); err != nil && os.Getenv("FANOUT_EVERYTHING") == "" {
		t.Log("not part of this run: there is no Prometheus; on Debian: apt-get install prometheus")
		return
	}
	peace, trouble := start(t), start(t, "-trouble")
	p := startPrometheus(t, map[string]string{"peace": peace, "trouble": trouble})
	for _, panel := range readDashboard(t).Panels {
		if panel.Type == "row" {
			continue
		}
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			ask := func(job string) []float64 { return p.query(t, forJob(target.Expr, job)) }
			if slices.Contains(emptyInPeace, panel.Title) {
				require.Empty(t, ask("peace"), panel.Title)
			} else {
				require.Eventually(t, func() bool { return len(ask("peace")) > 0 }, patience, 50*time.Millisecond, "%s, %s: %s", panel.Title, target.RefID, target.Expr)
			}
			least := -1.0
			if slices.Contains(inTrouble, panel.Title) {
				least = 0
			}
			require.Eventually(t, func() bool {
				vs := ask("trouble")
				return len(vs) > 0 && slices.Max(vs) > least
			}, patience, 50*time.Millisecond, "in trouble: %s, %s: %s", panel.Title, target.RefID, target.Expr)
		}
	}
	stuck := `fanout_queue_stuck{job="trouble"}`
	require.Eventually(t, func() bool { return slices.Max(append(p.query(t, stuck), 0)) > 0 }, patience, 50*time.Millisecond, stuck)

	names := regexp.MustCompile(`\b(fanout|messaging)_[a-z_]+\b`)
	rules := p.rules(t)
	require.Len(t, rules, 5)
	for _, expr := range rules {
		for _, name := range names.FindAllString(expr, -1) {
			require.NotEmpty(t, p.query(t, name), "%s of %s", name, expr)
		}
		if strings.Contains(expr, "oldest_age") {
			continue // more than this test has time for
		}
		require.Eventually(t, func() bool { return len(p.query(t, expr)) > 0 }, patience, 50*time.Millisecond, "in trouble: %s", expr)
	}
}

// forJob is a panel's query as Grafana sends it with one job chosen.
func forJob(expr, job string) string {
	return strings.NewReplacer("$__rate_interval", "3s", "$job", job, "$topic", ".*").Replace(expr)
}

const patience = 60 * time.Second

// A server is a Prometheus.
type server struct{ url string }

// startPrometheus starts Prometheus on loopback, which scrapes jobs.
func startPrometheus(t *testing.T, jobs map[string]string) *server {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	require.NoError(t, err, "on Debian: apt-get install prometheus")
	rules, err := filepath.Abs("../../plugin/fanoutotel/prometheus/fanout.rules.yml")
	require.NoError(t, err)
	var config strings.Builder
	fmt.Fprintf(&config, "global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n", rules)
	for job, address := range jobs {
		fmt.Fprintf(&config, "  - {job_name: %s, static_configs: [{targets: [%q]}]}\n", job, address)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(config.String()), 0o600))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	var printed out
	command := exec.Command(program, "--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	command.Stdout, command.Stderr = &printed, &printed
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	p := &server{"http://" + address}
	require.Eventually(t, func() bool {
		r, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	}, patience, 10*time.Millisecond, "%v", &printed)
	return p
}

// get reads an answer of Prometheus's API.
func (p *server) get(t *testing.T, path string, into any) {
	t.Helper()
	r, err := http.Get(p.url + "/api/v1/" + path)
	require.NoError(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, r.StatusCode, "%s: %s", path, b)
	answer := struct{ Data any }{into}
	require.NoError(t, json.Unmarshal(b, &answer))
}

// query returns the values of the series that the query finds now. NaN is none.
func (p *server) query(t *testing.T, query string) (values []float64) {
	t.Helper()
	var found struct{ Result []struct{ Value [2]any } }
	p.get(t, "query?query="+url.QueryEscape(query), &found)
	for _, s := range found.Result {
		v, err := strconv.ParseFloat(s.Value[1].(string), 64)
		require.NoError(t, err)
		if v == v {
			values = append(values, v)
		}
	}
	return values
}

func (p *server) rules(t *testing.T) (queries []string) {
	t.Helper()
	var found struct {
		Groups []struct{ Rules []struct{ Query string } }
	}
	p.get(t, "rules", &found)
	for _, g := range found.Groups {
		for _, r := range g.Rules {
			queries = append(queries, r.Query)
		}
	}
	return queries
}

// TestATraceGoesFromThePaymentToTheMail: on standard output, as one reads it.
func TestATraceGoesFromThePaymentToTheMail(t *testing.T) {
	var stdout, stderr out
	require.NoError(t, run(t.Context(), []string{"-listen", "127.0.0.1:0", "-traces", "stdout", "-for", "1s"}, &stdout, &stderr), &stderr)
	type span struct {
		Name        string
		SpanContext struct{ TraceID string }
	}
	traces := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(stdout.String())); ; {
		var s span
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		traces[s.SpanContext.TraceID] = append(traces[s.SpanContext.TraceID], s.Name)
	}
	require.NotEmpty(t, traces)
	for _, names := range traces {
		slices.Sort(names)
		require.Equal(t, []string{"process mails", "process payments", "process payments", "publish mails", "publish payments"}, names)
	}
	require.Regexp(t, `[1-9]\d* payments published, 0 refused`, stderr.String())
}

func TestFlagsThatCanNotBe(t *testing.T) {
	for want, args := range map[string][]string{
		"-traces x": {"-traces", "x"}, "-sample 2": {"-sample", "2"}, "-rate 0": {"-rate", "0"}, "-for -1s": {"-for", "-1s"}, `"x"`: {"x"}, "-nothing": {"-nothing"},
	} {
		err := run(t.Context(), args, io.Discard, io.Discard)
		require.ErrorIs(t, err, errUsage)
		require.ErrorContains(t, err, want)
	}
}
