//! Compiles the vendored Prometheus wire formats; `protox` parses them, so no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/vendor");
    let files = ["remote.proto", "io/prometheus/write/v2/types.proto"];
    let descriptors = protox::compile(files, ["proto/vendor"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
