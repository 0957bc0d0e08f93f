"""Clients that tests fetch when they are asked to, as requirements."""

SPARK = "pyspark==4.3.0"
SHELL = "duckdb-cli==1.5.6"

#: The newest that installs without fetching a binary from elsewhere (dbt-core 1.12 does).
DBT = ("dbt-duckdb==1.11.1", "dbt-core==1.11.16")
