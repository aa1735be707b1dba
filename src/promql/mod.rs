//! PromQL: text to tree to plan to answer.

pub mod annotations;
pub mod ast;
mod check;
pub mod error;
pub mod exec;
pub mod functions;
pub mod histogram;
mod lexer;
mod literal;
pub mod operator;
pub mod parser;
pub mod plan;
pub mod position;
pub mod signature;
pub mod source;
mod token;
pub mod value_type;

pub use error::ParseError;
pub use parser::{ParseOptions, parse, parse_metric, parse_selector};
