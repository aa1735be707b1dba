//! The Dockerfile against the repository: what it copies exists, what it runs is what is built.

use metrolith::config::docs;

use super::*;

/// Instructions with their arguments; a line that goes on is one.
fn instructions() -> Vec<(String, String)> {
    let text = text("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = lines.map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line}")));
    split.map(|(word, rest)| (word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

fn all(word: &str) -> Vec<String> {
    instructions().into_iter().filter(|(w, _)| w == word).map(|(_, rest)| rest).collect()
}

/// The only instruction of this name.
fn one(word: &str) -> String {
    let mut found = all(word);
    assert_eq!(found.len(), 1, "{word}: {found:?}");
    found.remove(0)
}

fn words(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}: a shell that is not there would run it"))
}

#[test]
fn images_are_pinned_and_the_compiler_is_new_enough() {
    for image in all("ARG") {
        assert_pinned(image.split_once('=').unwrap().1);
    }
    for from in all("FROM") {
        assert!(from.starts_with("${"), "{from}: named by an ARG, so that a digest can be given");
    }
    let manifest = include_str!("../../Cargo.toml");
    let least = manifest.lines().find_map(|l| l.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(all("ARG")[0].contains(&format!("/rust:{least}.")), "Cargo.toml asks for {least}");
}

#[test]
fn everything_that_is_compiled_is_in_the_context() {
    let ignored = text("Dockerfile.dockerignore");
    let allowed: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"));
    let mut copied = Vec::new();
    for copy in all("COPY").iter().filter(|copy| !copy.starts_with("--from")) {
        let mut sources: Vec<&str> = copy.split(' ').collect();
        sources.pop();
        for source in sources {
            assert!(support::root().join(source).exists() && allowed.contains(&source), "{source}");
            copied.push(source.to_owned());
        }
    }
    // Cargo reads no manifest whose benches are missing.
    for needed in ["Cargo.toml", "Cargo.lock", "build.rs", "proto", "benches", "src"] {
        assert!(copied.iter().any(|c| c == needed), "{needed} is not copied");
    }
    let build = one("RUN");
    assert!(
        build.contains("cargo build --release --locked --bin metrolith") && build.contains("target/release/metrolith")
    );
}

#[test]
fn the_image_runs_the_binary_as_nobody_special() {
    assert_eq!(one("USER"), format!("{USER}:{USER}"));
    assert_eq!((one("STOPSIGNAL"), one("VOLUME")), ("SIGTERM".to_owned(), DATA.to_owned()));
    assert!(all("COPY").contains(&format!("--from=build --chown={USER}:{USER} /out/data {DATA}")));
    assert_eq!(words(&one("ENTRYPOINT")), ["/usr/local/bin/metrolith"]);
    assert!(all("COPY").contains(&"--from=build /out/metrolith /usr/local/bin/metrolith".to_owned()));
    assert_eq!(one("EXPOSE"), PORTS.map(|port| port.to_string()).join(" "));
    let config = configured(&words(&one("CMD")), None);
    assert_eq!([config.http, config.grpc].map(|a| u64::from(a.port())), PORTS);
    assert_eq!(config.data_dir.to_str(), Some(DATA));
    let health = one("HEALTHCHECK");
    let command = words(health.split_once("CMD ").unwrap().1);
    assert_eq!(command, ["/usr/local/bin/metrolith", "query", "vector(1)"], "which asks port {}", PORTS[0]);
    let default = docs::flags().into_iter().find(|(key, ..)| key == "http").unwrap().2;
    assert!(default.contains(&format!("127.0.0.1:{}", PORTS[0])), "{default}");
}
