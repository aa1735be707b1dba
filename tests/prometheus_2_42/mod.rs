//! What Debian's Prometheus, version 2.42, is asked beside Metrolith: data, questions, and how answers are compared.
//!
//! *Invariants:* the questions are text (`scrapes.txt`, `synthetic.txt`), each marked with how equal the answers must be;
//! a mark that is a name of `docs/prometheus.md` says that they must not be equal.

pub mod compare;
pub mod data;
pub mod questions;
