//! PromQL: text to tree to plan to answer.

pub mod source;
