//! The page about settings says what the code does.

#[test]
fn the_page_about_settings_is_the_one_the_code_writes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == metrolith::config::docs::markdown(), "docs/configuration.md is out of date: run `make fix`");
}
