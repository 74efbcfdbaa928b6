package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kithnet/kith/relay"
)

// listen binds an address before anything else is up; none: no listener.
func listen(addr, flag string) (net.Listener, error) {
	if addr == "" || addr == "none" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w; name another address with --%s", err, flag)
	}
	return l, nil
}

// listenMetrics binds the metrics' address. It has to be on loopback: nothing
// asks who looks.
func listenMetrics(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); addr != "" && addr != "none" && (err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback())) {
		return nil, fmt.Errorf("--metrics %s: not an address of this machine alone: want 127.0.0.1:PORT or [::1]:PORT", addr)
	}
	return listen(addr, "metrics")
}

// serveMetrics answers scrapers until the listener closes.
func serveMetrics(l net.Listener, r *relay.Relay, log *slog.Logger) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(r.Collector(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: startTime}
	if err := srv.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
		log.Warn("serve metrics", "err", err)
	}
}
