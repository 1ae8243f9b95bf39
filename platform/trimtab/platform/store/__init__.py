"""Durable state: DuckDB for records, Parquet for metrics; one owner process."""
