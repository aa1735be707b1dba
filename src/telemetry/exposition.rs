//! Metrics as text: OpenMetrics 1.0 as the registry writes it, or Prometheus 0.0.4 made from that.
//!
//! *Invariants:* both forms hold the same samples; the older one lacks units and exemplars, which it cannot say.
//!
//! *Not here:* the metrics (`telemetry`), the route (`api`).

/// A form of the metrics page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// `text/plain; version=0.0.4`
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

impl Exposition {
    /// What the client likes best by its `Accept` header; without one, Prometheus.
    pub fn from_accept(accept: Option<&str>) -> Self {
        let (mut best, mut best_weight) = (Self::Prometheus, 0.0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts.next() {
                Some("application/openmetrics-text") => Self::OpenMetrics,
                Some("text/plain" | "text/*" | "*/*") => Self::Prometheus,
                _ => continue,
            };
            let weight = parts.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            if weight > best_weight {
                (best, best_weight) = (form, weight);
            }
        }
        best
    }

    /// The `Content-Type` of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// OpenMetrics text in the words of Prometheus 0.0.4.
pub(super) fn to_prometheus(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            // The family of a counter is named without `_total` there and with it here.
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                out.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([without_exemplar(line), "\n"]);
        }
    }
    out
}

/// A sample line up to where its exemplar begins.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_the_weights_of_the_accept_header() {
        use Exposition::{OpenMetrics, Prometheus};
        let scraper = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, form) in [
            (None, Prometheus),
            (Some("*/*"), Prometheus),
            (Some("text/html"), Prometheus),
            (Some(scraper), OpenMetrics),
            (Some("application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.9"), Prometheus),
            (Some("application/openmetrics-text;q=x"), Prometheus),
        ] {
            assert_eq!(Exposition::from_accept(accept), form, "{accept:?}");
        }
    }

    #[test]
    fn rewrites_what_the_older_form_says_differently() {
        let openmetrics = "\
# HELP a_seconds Help me.
# TYPE a_seconds counter
# UNIT a_seconds seconds
a_seconds_total{x=\"# \\\" {\"} 1 # {trace=\"1\"} 0.5 1.0
# HELP b About b.
# TYPE b info
b_info{v=\"1\"} 1
# TYPE c unknown
c 2
# HELP h Sizes.
# TYPE h histogram
h_bucket{le=\"+Inf\"} 3
# EOF
";
        let prometheus = "\
# HELP a_seconds_total Help me.
# TYPE a_seconds_total counter
a_seconds_total{x=\"# \\\" {\"} 1
# HELP b_info About b.
# TYPE b_info gauge
b_info{v=\"1\"} 1
# TYPE c untyped
c 2
# HELP h Sizes.
# TYPE h histogram
h_bucket{le=\"+Inf\"} 3
";
        assert_eq!(to_prometheus(openmetrics), prometheus);
    }
}
