//! The way of a query: plan over heads and blocks, merge, limits.

pub mod merge;
