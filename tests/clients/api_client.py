"""api_client.py URL METRIC START END: asks a server through prometheus-api-client; START and END are Unix seconds.

Prints what each call gave as one JSON object.
"""

import json
import sys
from datetime import datetime

from prometheus_api_client import PrometheusConnect

url, metric = sys.argv[1:3]
start, end = (datetime.fromtimestamp(int(t)) for t in sys.argv[3:5])
client = PrometheusConnect(url=url)
at = {"time": end.timestamp()}
print(
    json.dumps(
        {
            "connection": client.check_prometheus_connection(),
            "all_metrics": client.all_metrics(),
            "label_names": client.get_label_names(),
            "label_values": client.get_label_values("series"),
            "series": client.get_series(start, end, params={"match[]": metric}),
            "current": client.get_current_metric_value(metric, {"series": "1"}, params=at),
            "range_data": client.get_metric_range_data(metric, {"series": "1"}, start_time=start, end_time=end),
            "query": client.custom_query(f"count({metric})", params=at),
            "query_range": client.custom_query_range(f"count({metric})", start, end, "10"),
            "scrape_pools": client.get_scrape_pools(),
            "targets": client.get_targets(),
            "metadata": client.get_metric_metadata(metric),
        }
    )
)
