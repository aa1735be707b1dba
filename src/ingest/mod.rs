//! The way of a sample: decode, admit, distribute, log, apply, flush.

pub mod admit;
pub mod codec;
pub mod decode;
pub mod entry;
pub mod exposition;
pub mod histogram_codec;
pub mod outcome;
pub mod reply;
pub mod series_budget;
