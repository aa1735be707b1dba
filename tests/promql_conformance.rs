use metrolith::testkit::{script, shared};
#[test]
fn survey() {
    let Some(dir) = shared() else { return };
    let only = std::env::var("ONLY").ok();
    let mut files: Vec<_> = std::fs::read_dir(dir.join("promql/testdata"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "test"))
        .collect();
    files.sort();
    for f in files {
        let name = f.file_stem().unwrap().to_str().unwrap().to_owned();
        if only.as_ref().is_some_and(|o| *o != name) {
            continue;
        }
        let text = std::fs::read_to_string(&f).unwrap();
        match script::run_script(&text, script::options()) {
            Err(e) => println!("{name}: SCRIPT {e}"),
            Ok(out) => {
                let bad: Vec<_> = out.iter().filter(|o| o.error.is_some()).collect();
                println!("{name}: {} of {} pass", out.len() - bad.len(), out.len());
                if only.is_some() {
                    for b in bad {
                        println!(
                            "  {}:{} {}\n      {}",
                            name,
                            b.line,
                            b.query,
                            b.error.as_ref().unwrap().chars().take(400).collect::<String>()
                        );
                    }
                }
            }
        }
    }
}
