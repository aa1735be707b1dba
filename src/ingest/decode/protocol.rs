//! Which remote write version a request speaks.
//!
//! *Invariants:* what is not understood is refused, never guessed; absent headers mean 1.0 in snappy, as old senders have it.
//!
//! *Not here:* the status code of a refusal (415, `api`).
//!
//! Source: remote write specifications 1.0 and 2.0, "Protocol".

/// A version of remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// 1.0: `prometheus.WriteRequest`.
    V1,
    /// 2.0: `io.prometheus.write.v2.Request`.
    V2,
}

/// A media type or encoding that is not remote write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedMedia {
    /// Of the body.
    #[error("read write request: content type {0:?} is not application/x-protobuf of a known message")]
    Type(String),
    /// Of its compression.
    #[error("read write request: content encoding {0:?} is not snappy")]
    Encoding(String),
}

const MEDIA_TYPE: &str = "application/x-protobuf";

impl Protocol {
    /// The version that the headers `Content-Type` and `Content-Encoding` announce.
    pub fn negotiate(content_type: Option<&str>, content_encoding: Option<&str>) -> Result<Self, UnsupportedMedia> {
        let encoding = content_encoding.unwrap_or("").trim();
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
            return Err(UnsupportedMedia::Encoding(encoding.to_owned()));
        }
        let full = content_type.unwrap_or("").trim();
        let unsupported = || UnsupportedMedia::Type(full.to_owned());
        if full.is_empty() {
            return Ok(Self::V1);
        }
        let mut parts = full.split(';').map(str::trim);
        if !parts.next().is_some_and(|media| media.eq_ignore_ascii_case(MEDIA_TYPE)) {
            return Err(unsupported());
        }
        let mut protocol = Self::V1;
        for parameter in parts.filter(|p| !p.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or_else(unsupported)?;
            if name.trim().eq_ignore_ascii_case("proto") {
                protocol = match value.trim().trim_matches('"') {
                    "prometheus.WriteRequest" => Self::V1,
                    "io.prometheus.write.v2.Request" => Self::V2,
                    _ => return Err(unsupported()),
                };
            }
        }
        Ok(protocol)
    }

    /// The `Content-Type` of a request.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V1 => MEDIA_TYPE,
            Self::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// Value of the header `X-Prometheus-Remote-Write-Version`.
    pub fn version(self) -> &'static str {
        match self {
            Self::V1 => "0.1.0",
            Self::V2 => "2.0.0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_headers_of_real_senders() {
        for (content_type, want) in [
            (None, Protocol::V1),
            (Some("application/x-protobuf"), Protocol::V1),
            (Some("application/x-protobuf;proto=prometheus.WriteRequest"), Protocol::V1),
            (Some("application/x-protobuf;proto=io.prometheus.write.v2.Request"), Protocol::V2),
            (Some("application/x-protobuf; proto=io.prometheus.write.v2.Request; charset=utf-8"), Protocol::V2),
        ] {
            assert_eq!(Protocol::negotiate(content_type, Some("snappy")), Ok(want));
            assert_eq!(Protocol::negotiate(content_type, None), Ok(want));
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for bad in [
            "application/json",
            "application/x-protobuf;proto=io.prometheus.write.v3.Request",
            "application/x-protobuf;x",
        ] {
            assert!(matches!(Protocol::negotiate(Some(bad), None), Err(UnsupportedMedia::Type(_))), "{bad}");
        }
        assert!(matches!(Protocol::negotiate(None, Some("gzip")), Err(UnsupportedMedia::Encoding(_))));
    }
}
