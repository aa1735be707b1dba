//! PromQL: text to tree to plan to answer.

pub mod annotations;
pub mod ast;
pub mod functions;
pub mod operator;
pub mod position;
pub mod signature;
pub mod source;
pub mod value_type;
