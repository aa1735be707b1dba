//! The subcommands of the `metrolith` program.
