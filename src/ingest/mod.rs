//! The way of a sample: decode, admit, distribute, log, apply, flush.
