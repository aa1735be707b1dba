//! Samples of one series, packed into bytes and back.
