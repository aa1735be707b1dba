//! Upstream wire formats, generated from `proto/vendor`.
