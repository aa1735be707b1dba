//! PromQL: text to tree to plan to answer.

pub mod annotations;
pub mod ast;
mod check;
pub mod duration;
pub mod error;
pub mod exec;
pub mod functions;
pub mod histogram;
mod json;
mod lexer;
mod literal;
pub mod operator;
pub mod parser;
pub mod plan;
pub mod position;
pub mod pretty;
mod printer;
pub mod signature;
pub mod source;
pub mod stepwise;
mod token;
pub mod value_type;

pub use duration::fold_durations;
pub use error::ParseError;
pub use parser::{ParseOptions, parse, parse_metric, parse_selector, parse_within};
