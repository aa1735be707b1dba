//! `docs/configuration.md`, written from the settings themselves.
//!
//! *Invariants:* the page says nothing that the code does not do; `tests/config_doc.rs` compares it with the file.

use std::fmt::Write;

use super::section::Section;
use super::{Config, flag_name};

const HEAD: &str = "\
# Configuration

<!-- Written by `metrolith config docs`; `make fix` updates it. -->

`metrolith serve --config FILE` reads a YAML file. Every key is also a flag: `query.max_samples` in the file is
`--query-max-samples` on the command line, and a flag wins over the file. A key nobody knows is refused, with the nearest
known one. `metrolith config check FILE` reads a file and says what is wrong with it.

Durations are written as Prometheus does (`15s`, `1h30m`), sizes in bytes or with `KiB`, `MiB`, `GiB`, `TiB`.

```yaml
data_dir: /var/lib/metrolith
bucket: s3://metrics/prod
query:
  timeout: 1m
limits:
  out_of_order_time_window: 2h
overrides:
  team-a:
    max_global_series_per_user: 500000
```
";

const TAIL: &str = "
## overrides

Limits of single tenants where they differ from `limits`: a map from tenant to any of the limits above, as in the
`overrides` of a Mimir runtime file. A limit Metrolith does not have is skipped with a warning in the log.
";

/// The whole page.
pub fn markdown() -> String {
    let mut config = Config::default();
    let mut groups = Vec::new();
    Config::groups(&mut |name, doc| groups.push((name, doc)));
    let mut page = HEAD.to_owned();
    let mut group = None;
    config.visit("", &mut |setting| {
        let name = setting.key.split_once('.').map_or("", |(name, _)| name).to_owned();
        if group.as_ref() != Some(&name) {
            let doc = groups.iter().find(|(n, _)| *n == name).map_or("What every node is told.", |(_, doc)| doc.trim());
            let title = if name.is_empty() { "Top level" } else { &name };
            let _ = write!(page, "\n## {title}\n\n{}\n\n", one_line(doc));
            page.push_str("| key | kind | default | from – to | meaning |\n|---|---|---|---|---|\n");
            group = Some(name);
        }
        let default =
            Some(setting.value.show()).filter(|d| !d.is_empty()).map_or("–".to_owned(), |d| format!("`{d}`"));
        let bound = setting.bound.map_or(String::new(), |(least, most)| match most == u64::MAX.to_string() {
            true => format!("`{least}` –"),
            false => format!("`{least}` – `{most}`"),
        });
        let (key, kind) = (&setting.key, setting.value.kind());
        let _ = writeln!(page, "| `{key}` | {kind} | {default} | {bound} | {} |", one_line(setting.doc));
    });
    page.push_str(TAIL);
    page
}

/// Every setting as (dotted key, flag, help): what `serve` makes its flags from.
pub fn flags() -> Vec<(String, String, String)> {
    let mut flags = Vec::new();
    Config::default().visit("", &mut |setting| {
        let default = setting.value.show();
        let default = if default.is_empty() { String::new() } else { format!(" [default: {default}]") };
        flags.push((setting.key.clone(), flag_name(&setting.key), format!("{}{default}", one_line(setting.doc))));
    });
    flags
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}
