//! Logs and the metrics registry of the process.
