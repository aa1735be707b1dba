"""Opens a Metrolith table as any reader of Delta Lake would: deltalake says which files, DuckDB reads them."""

import os

import deltalake
import duckdb


def open_table(uri):
    """A DuckDB connection in which `history` is the table, raw resolution."""
    options = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    table = deltalake.DeltaTable(uri, storage_options=options or None)
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    if uri.startswith("s3://"):
        # DuckDB's own S3 client is an extension from the network; Arrow reads the same files through deltalake.
        con.register("history", table.to_pyarrow_dataset().to_table())
    else:
        con.execute(
            "CREATE VIEW history AS SELECT * FROM read_parquet("
            + repr(table.file_uris())
            + ", hive_partitioning = true, union_by_name = true)"
        )
    con.execute(
        """
        CREATE VIEW points AS
        SELECT s.metric, s.labels, c.block, c.series_id,
               unnest(t.ts) AS ts,
               unnest(CASE WHEN c.value_i IS NOT NULL
                      THEN list_transform(c.value_i, lambda x: x * c.mul / power(10, c.scale))
                      ELSE c.value_f END) AS value
        FROM history c
        JOIN history t ON t.kind = 'timelines' AND t.block = c.block AND t.timeline_id = c.timeline_id
        JOIN history s ON s.kind = 'series' AND s.block = c.block AND s.series_id = c.series_id
        WHERE c.kind = 'samples'
        """
    )
    return table, con
