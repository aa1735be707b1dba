//! What tests share: builders, an in-memory source, the PromQL script runner.
