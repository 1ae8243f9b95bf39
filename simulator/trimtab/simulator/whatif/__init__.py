"""What-if sweeps: a scenario as data, its cells, and what one cell says."""
