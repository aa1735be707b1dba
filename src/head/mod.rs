//! A shard's recent samples in memory.
