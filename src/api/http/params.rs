//! Parameters of a request: the URL's and, for a POST form, the body's too.
//!
//! *Invariants:* a value is checked where it is read, and the error names the parameter.
//!
//! *Not here:* what the values mean (`api::http::query` and its neighbours).

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, header};

use super::reply::{ApiError, ErrorType};
use crate::model::Matcher;
use crate::model::time::parse_duration_ms;
use crate::promql;
use crate::promql::parser::PATTERN_BYTES;

/// Earliest and latest times the API writes out for "no bound" and takes back (Prometheus `MinTime`, `MaxTime`).
const MIN_TIME: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME: &str = "292277025-08-18T07:12:54.999999999Z";
/// What they mean here, milliseconds.
const WIDEST: (i64, i64) = (i64::MIN / 4, i64::MAX / 4);

/// Most parameters of a URL, or of a form: each takes far more room than its two bytes at least.
const MOST_PAIRS: usize = 10_000;

/// Decoded parameters in order.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let mut pairs = decode(request.uri().query().unwrap_or_default().as_bytes())?;
        let content_type =
            request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if request.method() == Method::POST && content_type.starts_with("application/x-www-form-urlencoded") {
            let body = Bytes::from_request(request, state)
                .await
                .map_err(|e| ApiError::new(ErrorType::BadData, format!("read form: {e}")))?;
            // Values of the body come first, as Go's net/http merges them.
            let mut form = decode(&body)?;
            form.append(&mut pairs);
            pairs = form;
        }
        Ok(Self(pairs))
    }
}

fn decode(encoded: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let pairs: Vec<_> = url::form_urlencoded::parse(encoded).into_owned().take(MOST_PAIRS + 1).collect();
    if pairs.len() > MOST_PAIRS {
        return Err(ApiError::new(ErrorType::BadData, format!("more than {MOST_PAIRS} parameters")));
    }
    Ok(pairs)
}

impl Params {
    /// The first value of `name`; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A point in time, milliseconds: unix seconds (fractions allowed) or RFC 3339.
    pub fn time(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let wrong = |e| ApiError::parameter(name, format!("invalid time value for '{name}': {e}"));
        self.get(name).map(|v| parse_time(v).map_err(wrong)).transpose()
    }

    /// A point in time that must be given.
    pub fn required_time(&self, name: &str) -> Result<i64, ApiError> {
        parse_time(self.get(name).unwrap_or_default()).map_err(|e| ApiError::parameter(name, e))
    }

    /// A duration in milliseconds: seconds (fractions allowed) or Prometheus' form.
    pub fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name).map(|v| parse_duration(v).map_err(|e| ApiError::parameter(name, e))).transpose()
    }

    /// A number of results, 0 meaning no limit.
    pub fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(0) };
        match text.parse::<i64>() {
            Ok(n) => usize::try_from(n).map_err(|_| ApiError::parameter("limit", "limit must be non-negative")),
            // Prometheus' own words, its language's name for the conversion included.
            Err(_) => {
                let problem = format!("strconv.Atoi: parsing {}: invalid syntax", crate::model::labels::Quoted(text));
                Err(ApiError::parameter("limit", problem))
            }
        }
    }

    /// The selectors of `match[]`, each of them a list of matchers; the error says what is wrong with one.
    pub fn selectors(&self) -> Result<Vec<Vec<Matcher>>, String> {
        let mut pattern_bytes = 0;
        self.all("match[]")
            .map(|text| {
                let matchers = promql::parse_selector(text).map_err(|e| e.to_string())?;
                pattern_bytes += matchers.iter().map(Matcher::pattern_bytes).sum::<usize>();
                if pattern_bytes > PATTERN_BYTES {
                    return Err(format!("regular expressions of match[] take more than {PATTERN_BYTES} bytes"));
                }
                if matchers.iter().all(Matcher::matches_empty) {
                    return Err("match[] must contain at least one non-empty matcher".to_owned());
                }
                Ok(matchers)
            })
            .collect()
    }
}

/// Reads a time as the API takes it; milliseconds, those beyond the widest times brought back to them so that a step
/// or a lookback more never overflows.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let wrong = || format!("cannot parse {} to a valid timestamp", crate::model::labels::Quoted(text));
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        return if ms.is_finite() { Ok((ms as i64).clamp(WIDEST.0, WIDEST.1)) } else { Err(wrong()) };
    }
    match text {
        MIN_TIME => Ok(WIDEST.0),
        MAX_TIME => Ok(WIDEST.1),
        _ => text.parse::<jiff::Timestamp>().map(|t| t.as_millisecond()).map_err(|_| wrong()),
    }
}

/// Reads a duration as the API takes it; milliseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("cannot parse {} to a valid duration", crate::model::labels::Quoted(text));
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = seconds * 1000.0;
        let fits = ms.is_finite() && ms.abs() < i64::MAX as f64;
        return if fits { Ok(ms as i64) } else { Err(format!("{}. It overflows int64", wrong())) };
    }
    parse_duration_ms(text).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_patterns_are_bounded() {
        assert!(decode(&b"a&".repeat(MOST_PAIRS)).is_ok());
        assert!(decode(&b"a&".repeat(MOST_PAIRS + 1)).is_err());
        // Each of them takes a good part of what one pattern may take.
        let patterns = |n: usize| {
            let one = |i: usize| ("match[]".to_owned(), format!("{{a=~\"[\\\\p{{L}}{i}]{{50}}\"}}"));
            Params((0..n).map(one).collect()).selectors()
        };
        assert!(patterns(2).is_ok());
        assert_eq!(patterns(100).unwrap_err(), "regular expressions of match[] take more than 67108864 bytes");
    }

    #[test]
    fn times_are_seconds_or_rfc3339() {
        assert_eq!(parse_time("1.2345"), Ok(1235));
        assert_eq!(parse_time("-0.001"), Ok(-1));
        assert_eq!(parse_time("2026-06-01T00:00:00Z"), Ok(1_780_272_000_000));
        assert_eq!(parse_time("2026-06-01T02:00:00.5+02:00"), Ok(1_780_272_000_500));
        assert_eq!(parse_time("NaN").unwrap_err(), "cannot parse \"NaN\" to a valid timestamp");
        assert!(parse_time("").is_err());
        assert!(parse_time(MAX_TIME).unwrap() > parse_time("4000-01-01T00:00:00Z").unwrap());
    }

    #[test]
    fn durations_are_seconds_or_prometheus_form() {
        assert_eq!(parse_duration("1.5"), Ok(1500));
        assert_eq!(parse_duration("1h30m"), Ok(5_400_000));
        assert_eq!(parse_duration("x").unwrap_err(), "cannot parse \"x\" to a valid duration");
        assert!(parse_duration("1e300").unwrap_err().contains("overflows"));
    }
}
