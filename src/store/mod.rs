//! The bucket: what is in it, what is known of it, what is cached of it.
