//! Files, flags, bounds and what is said about wrong ones.

use super::*;

fn read(text: &str) -> Result<(Config, Vec<String>), String> {
    yaml::read(text)
}

#[test]
fn defaults_are_inside_their_bounds() {
    let mut config = Config::default();
    config.fill().unwrap();
    config.validate().unwrap();
    assert!(config.bucket.starts_with("file:///") && config.bucket.ends_with("/data/bucket"), "{}", config.bucket);
    assert!(!config.node_name.is_empty());
}

#[test]
fn reads_nested_keys_and_leaves_the_rest_at_their_defaults() {
    let (config, warnings) =
        read("data_dir: /tmp/m\nnode_name: 007\nquery:\n  timeout: 30s\n  max_bytes: 64MiB\nlog: {format: json}\n")
            .unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/tmp/m"));
    assert_eq!(config.node_name, "007");
    assert_eq!(config.query.timeout.as_secs(), 30);
    assert_eq!(config.query.max_bytes, ByteSize::mib(64));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.query.max_samples, Query::default().max_samples);
    assert!(warnings.is_empty());
}

#[test]
fn an_empty_file_is_all_defaults() {
    for text in ["", "\n# nothing\n", "query:\noverrides:\n"] {
        assert_eq!(read(text).unwrap().0, Config::default(), "{text:?}");
    }
}

#[test]
fn refuses_unknown_keys_with_the_line_and_the_nearest_known_one() {
    for (text, line, near) in [
        ("data_dir: x\ndatadir: y\n", 2, "data_dir"),
        ("query:\n  timeout: 1s\n  max_sample: 5\n", 3, "query.max_samples"),
        ("\n\nqery:\n  timeout: 1s\n", 3, "query"),
        ("lookback_delta: 1m\n", 1, "query.lookback_delta"),
    ] {
        let message = read(text).unwrap_err();
        assert!(message.contains(&format!("line {line}")), "{message}");
        assert!(message.contains(near), "{message}");
    }
    let message = read("zzzzzzzz: 1\n").unwrap_err();
    assert!(!message.contains("did you mean"), "{message}");
}

#[test]
fn refuses_values_of_the_wrong_kind_with_the_line() {
    for (text, line) in
        [("shards: many\n", 1), ("zone: a\n  shards: 2\n", 2), ("query:\n  timeout: 30\n", 2), ("query: 5\n", 1)]
    {
        let message = read(text).unwrap_err();
        assert!(message.contains(&format!("line {line}")), "{text:?}: {message}");
    }
    assert!(read("shards: 1\nshards: 2\n").is_err(), "the same key twice");
    assert!(read("roles: querier\n").unwrap_err().contains("expected all"));
}

#[test]
fn overrides_start_from_the_limits_of_the_file() {
    let text = "overrides:\n  team-a:\n    max_global_series_per_user: 5\n    ruler_max_rules_per_rule_group: 7\n\
                limits:\n  max_label_value_length: 99\n";
    let (config, warnings) = read(text).unwrap();
    let team = config.limits_of(&TenantId::new("team-a").unwrap());
    assert_eq!((team.max_global_series_per_user, team.max_label_value_length), (5, 99));
    let other = config.limits_of(&TenantId::anonymous());
    assert_eq!((other.max_global_series_per_user, other.max_label_value_length), (2_000_000, 99));
    assert!(warnings.len() == 1 && warnings[0].contains("ruler_max_rules_per_rule_group"), "{warnings:?}");
    assert!(read("overrides:\n  a/b:\n    max_label_value_length: 1\n").unwrap_err().contains("line 3"));
}

#[test]
fn flags_win_over_the_file_and_bounds_hold_for_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.yaml");
    std::fs::write(&file, "shards: 3\nzone: a\n").unwrap();
    let flag = |key: &str, text: &str| vec![(key.to_owned(), text.to_owned())];
    let loaded = Config::load(Some(&file), &flag("shards", "5")).unwrap();
    assert_eq!((loaded.config.shards, loaded.config.zone.as_str()), (5, "a"));
    let message = Config::load(None, &flag("shards", "0")).unwrap_err().to_string();
    assert_eq!(message, "setting shards: must be from 1 to 4096, is 0");
    let message = Config::load(None, &flag("query.timeout", "soon")).unwrap_err().to_string();
    assert!(message.starts_with("flag --query-timeout: expected a duration"), "{message}");
    assert!(Config::load(None, &flag("query.max_bytes", "3GiB")).is_err(), "more than all queries may take");
    assert!(Config::load(Some(&dir.path().join("none.yaml")), &[]).is_err());
}

#[test]
fn features_go_by_the_names_prometheus_gives_them() {
    let (config, _) = read("query:\n  features: promql-delayed-name-removal,use-start-timestamps\n").unwrap();
    let on = |feature| config.query.features.has(feature);
    assert!(on(Feature::DelayedNameRemoval) && on(Feature::UseStartTimestamps) && !on(Feature::FillModifiers));
    let message = read("query:\n  features: promql-fill-modifiers\n").unwrap_err();
    assert!(message.contains("line 2: query.features: unknown feature"), "{message}");
    assert!(message.contains("did you mean \"promql-binop-fill-modifiers\""), "{message}");
    assert_eq!(read(&Config::default().to_yaml()).unwrap().0, Config::default());
}

#[test]
fn every_setting_is_documented() {
    let page = docs::markdown();
    for (key, flag, help) in docs::flags() {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
        assert!(!flag.contains(['.', '_']) && help.len() > 10, "{key}: {help}");
    }
}
