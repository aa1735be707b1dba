//! Blocks: the Parquet files of one flush, written and read.
