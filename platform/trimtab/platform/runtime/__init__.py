"""The only Ray in the platform: actors and tasks, thin."""
