//! Random queries and data, and the comparison of what two evaluators make of them.

pub mod answers;
pub mod data;
pub mod query;
