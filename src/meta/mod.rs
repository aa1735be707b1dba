//! The meta group: who and where, and the versions of every table.
