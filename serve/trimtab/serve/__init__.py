"""What people touch: the Ray Serve application, the command line, the reports, and the composition root."""
