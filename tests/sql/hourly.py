"""hourly.py TABLE METRIC: avg(value) per hour of a metric, by DuckDB and again by pyarrow over deltalake.

Prints {"version": n, "duckdb": {hour: avg}, "deltalake": {hour: avg}}; hours are Unix seconds of the hour's end, so
that they compare with avg_over_time(...[1h]), whose range ends at the step.
"""

import json
import os
import sys
from collections import defaultdict

from open_table import open_table

uri, metric = sys.argv[1:3]
table, con = open_table(uri)

duck = con.execute(
    """
    SELECT CAST(ceil(epoch_ms(ts) / 3600000.0) * 3600 AS BIGINT) AS hour, avg(value)
    FROM points WHERE metric = ? AND value IS NOT NULL GROUP BY hour ORDER BY hour
    """,
    [metric],
).fetchall()

# The same once more with nothing but what deltalake hands out, partitions and all.
data = table.to_pyarrow_dataset()
import pyarrow.dataset as ds

timelines = data.to_table(columns=["block", "timeline_id", "ts"], filter=ds.field("kind") == "timelines").to_pylist()
stamps = {(row["block"], row["timeline_id"]): row["ts"] for row in timelines}
wanted = (ds.field("kind") == "samples") & (ds.field("metric") == metric)
columns = ["block", "timeline_id", "scale", "mul", "value_i", "value_f"]
sums = defaultdict(lambda: [0.0, 0])
for row in data.to_table(columns=columns, filter=wanted).to_pylist():
    if row["value_i"] is not None:
        values = [None if v is None else v * row["mul"] / 10 ** row["scale"] for v in row["value_i"]]
    else:
        values = row["value_f"]
    for ts, value in zip(stamps[row["block"], row["timeline_id"]], values, strict=True):
        if value is not None:
            hour = -(-round(ts.timestamp() * 1000) // 3600000) * 3600
            sums[hour][0] += value
            sums[hour][1] += 1

print(
    json.dumps(
        {
            "version": table.version(),
            "duckdb": {str(hour): avg for hour, avg in duck},
            "deltalake": {str(hour): total / n for hour, (total, n) in sorted(sums.items())},
        }
    )
)
sys.stdout.flush()
# Threads of the readers sometimes abort an orderly end of the interpreter; everything is said by now.
os._exit(0)
