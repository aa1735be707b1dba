//! The edges: HTTP; the one place that knows status codes.
