"""Where measurements come from: Prometheus, Aetos, Gnocchi and Grafana, each asked in bulk."""
