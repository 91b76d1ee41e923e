package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/gofanout/fanout/plugin/fanoutotel"
)

// A telemetry is the SDK, its exporters, and what fanout needs of them.
type telemetry struct {
	tracers *sdktrace.TracerProvider
	meters  *metric.MeterProvider
	fanout  *fanoutotel.Instrumentation
	log     *slog.Logger

	registry *prometheus.Registry
	listener net.Listener
	server   *http.Server
	served   chan error
}

func newTelemetry(ctx context.Context, c config, stdout, stderr io.Writer) (*telemetry, error) {
	t := &telemetry{registry: prometheus.NewRegistry()}
	about, err := resource.New(ctx, resource.WithAttributes(semconv.ServiceName("checkout")), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, err
	}
	spans, err := exporter(ctx, c.traces, stdout)
	if err != nil {
		return nil, err
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(about), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.sample)))}
	if spans != nil {
		options = append(options, sdktrace.WithBatcher(spans))
	} else {
		options[1] = sdktrace.WithSampler(sdktrace.NeverSample()) // contexts travel all the same
	}
	t.tracers = sdktrace.NewTracerProvider(options...)
	metrics, err := otelprometheus.New(otelprometheus.WithRegisterer(t.registry))
	if err != nil {
		return nil, err
	}
	t.meters = metric.NewMeterProvider(metric.WithResource(about), metric.WithReader(metrics))
	t.fanout, err = fanoutotel.New(fanoutotel.WithTracerProvider(t.tracers), fanoutotel.WithMeterProvider(t.meters))
	// What fanout logs of a message, and what handlers log with their context, has the trace.
	t.log = slog.New(fanoutotel.LogHandler(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	return t, err
}

// exporter returns nil for none.
func exporter(ctx context.Context, where string, stdout io.Writer) (sdktrace.SpanExporter, error) {
	switch where {
	case "stdout":
		return stdouttrace.New(stdouttrace.WithWriter(stdout))
	case "otlp":
		return otlptracehttp.New(ctx)
	}
	return nil, nil
}

// serve serves /metrics until close.
func (t *telemetry) serve(address string) (err error) {
	if t.listener, err = net.Listen("tcp", address); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{}))
	t.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	t.served = make(chan error, 1)
	go func() { t.served <- t.server.Serve(t.listener) }()
	return nil
}

// close exports what is left, and ends the server.
func (t *telemetry) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := errors.Join(t.tracers.Shutdown(ctx), t.meters.Shutdown(ctx))
	if t.server == nil {
		return err
	}
	err = errors.Join(err, t.server.Close())
	if served := <-t.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
