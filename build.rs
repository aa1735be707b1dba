//! Compiles the vendored Prometheus wire formats and what nodes say to each other; `protox` parses them, so no protoc is
//! needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["remote.proto", "io/prometheus/write/v2/types.proto"];
    let descriptors = protox::compile(files, ["proto/vendor"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    let descriptors = protox::compile(["metrolith/v1/peer.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
