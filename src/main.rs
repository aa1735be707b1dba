//! The `metrolith` program: see `metrolith --help`.

fn main() {}
