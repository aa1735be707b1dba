//! Log lines as `key=value` pairs.
//!
//! *Invariants:* one event is one line, whatever its values hold: a value with spaces, quotes or control characters is
//! quoted and escaped.
//!
//! *Not here:* which events are written (`telemetry::init_logs`).

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes `ts= level= target= msg= …fields …fields of the spans around`.
pub(super) struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        to.write_str("ts=")?;
        SystemTime.format_time(&mut to)?;
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG => "debug",
            tracing::Level::TRACE => "trace",
        };
        write!(to, " level={level} target={}", event.metadata().target())?;
        ctx.format_fields(to.by_ref(), event)?;
        for span in ctx.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                to.write_str(fields)?;
            }
        }
        to.write_char('\n')
    }
}

/// Writes fields as ` key=value`, each with a space before it.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, to: Writer<'w>, fields: R) -> fmt::Result {
        let mut pairs = Pairs { to, value: String::new(), outcome: Ok(()) };
        fields.record(&mut pairs);
        pairs.outcome
    }
}

struct Pairs<'w> {
    to: Writer<'w>,
    /// Reused between fields.
    value: String,
    outcome: fmt::Result,
}

impl Pairs<'_> {
    fn pair(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.value.clear();
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.outcome = self.outcome.and_then(|()| {
            self.value.write_fmt(value)?;
            write!(self.to, " {name}=")?;
            write_value(&mut self.to, &self.value)
        });
    }
}

impl Visit for Pairs<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.pair(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.pair(field, format_args!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut next = value.source();
        while let Some(source) = next {
            let _ = write!(text, ": {source}");
            next = source.source();
        }
        self.pair(field, format_args!("{text}"));
    }
}

fn write_value(to: &mut impl Write, value: &str) -> fmt::Result {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
    if !value.is_empty() && value.chars().all(plain) {
        return to.write_str(value);
    }
    to.write_char('"')?;
    for c in value.chars() {
        match c {
            '"' | '\\' => write!(to, "\\{c}")?,
            '\n' => to.write_str("\\n")?,
            '\t' => to.write_str("\\t")?,
            c if c.is_control() => write!(to, "\\u{:04x}", u32::from(c))?,
            c => to.write_char(c)?,
        }
    }
    to.write_char('"')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_of_pairs_with_the_fields_of_its_spans() {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Logfmt)
            .fmt_fields(Fields);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _span = tracing::info_span!("flush", shard = 3).entered();
            tracing::warn!(tenant = "a\"b\nc", bytes = 12, empty = "", "closed a window");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let (time, rest) = text.split_once(" level=").unwrap();
        assert!(time.starts_with("ts=2") && time.ends_with('Z'), "{time}");
        let target = module_path!();
        let fields = r#"msg="closed a window" tenant="a\"b\nc" bytes=12 empty="" shard=3"#;
        assert_eq!(rest, format!("warn target={target} {fields}\n"));
    }
}
