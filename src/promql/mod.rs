//! PromQL: text to tree to plan to answer.

pub mod annotations;
pub mod ast;
pub mod exec;
pub mod functions;
pub mod histogram;
pub mod operator;
pub mod plan;
pub mod position;
pub mod signature;
pub mod source;
pub mod value_type;
