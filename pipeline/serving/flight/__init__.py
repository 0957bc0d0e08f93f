"""The Flight SQL door: for ADBC, JDBC and whatever else speaks Arrow's own protocol."""
