"""count.py TABLE METRIC: how many samples of a metric the table holds, and how many of them are distinct."""

import json
import sys

from open_table import open_table

_, con = open_table(sys.argv[1])
row = con.execute(
    "SELECT count(*), count(DISTINCT (CAST(labels AS VARCHAR), ts)) FROM points WHERE metric = ?", [sys.argv[2]]
).fetchone()
print(json.dumps({"samples": row[0], "distinct": row[1]}))
