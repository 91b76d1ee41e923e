package guide_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// A SubscriberConfig is what operators may change. What they leave out has fanout's default.
type SubscriberConfig struct {
	Capacity          int             `json:"capacity"`
	Overflow          fanout.Overflow `json:"overflow"` // "Block", "Reject", "DropOldest", "DropNewest"
	VisibilityTimeout Duration        `json:"visibility_timeout"`
	MaxAttempts       int             `json:"max_attempts"`
	Workers           int             `json:"workers"`
}

// Options are the options for Subscribe. Subscribe checks them.
func (c SubscriberConfig) Options() []fanout.SubscribeOption {
	var options []fanout.SubscribeOption
	if c.Capacity != 0 {
		options = append(options, fanout.WithCapacity(c.Capacity))
	}
	if c.Overflow != 0 {
		options = append(options, fanout.WithOverflow(c.Overflow))
	}
	if c.VisibilityTimeout != 0 {
		options = append(options, fanout.WithVisibilityTimeout(time.Duration(c.VisibilityTimeout)))
	}
	if c.MaxAttempts != 0 {
		options = append(options, fanout.WithMaxAttempts(c.MaxAttempts))
	}
	if c.Workers != 0 {
		options = append(options, fanout.WithConcurrency(c.Workers))
	}
	return options
}

// A Duration is a text like "1m30s" in JSON.
type Duration time.Duration

// UnmarshalText reads the duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// ReadConfig reads the configuration of all subscribers, by their names.
func ReadConfig(path string) (config map[string]SubscriberConfig, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields() // so that a misspelt name is an error
	if err := d.Decode(&config); err != nil {
		return nil, errors.Join(errors.New(path), err)
	}
	return config, nil
}

func TestOptionsFromAConfiguration(t *testing.T) {
	read := func(text string) (map[string]SubscriberConfig, error) {
		path := filepath.Join(t.TempDir(), "subscribers.json")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return ReadConfig(path)
	}
	payments, err := fanout.NewTopic[string]("payments")
	require.NoError(t, err)
	defer payments.Close()
	handle := func(context.Context, fanout.Delivery[string]) error { return nil }

	config, err := read(`{"inventory": {"overflow": "DropOldest", "visibility_timeout": "1m30s", "workers": 8}, "shipping": {"workers": -1}}`)
	require.NoError(t, err)
	inventory, err := payments.Subscribe(t.Context(), "inventory", handle, config["inventory"].Options()...)
	require.NoError(t, err)
	settings := inventory.Queue().View().Settings()
	require.Equal(t, fanout.DropOldest, settings.Overflow)
	require.Equal(t, 90*time.Second, settings.VisibilityTimeout)
	require.Equal(t, 1024, settings.Capacity, "the default")
	require.Equal(t, 8, inventory.Queue().View().Subscribers()[0].Concurrency)

	_, err = payments.Subscribe(t.Context(), "shipping", handle, config["shipping"].Options()...)
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
	require.ErrorContains(t, err, "WithConcurrency(-1)")
	for _, text := range []string{`{"inventory": {"workerz": 8}}`, `{"inventory": {"overflow": "Drop"}}`, `{"inventory": {"visibility_timeout": "90"}}`} {
		_, err = read(text)
		require.Error(t, err, text)
	}
}
