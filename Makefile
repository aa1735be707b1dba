# verify writes nothing in the tree; fix may. Everything else is cargo.
.PHONY: help verify fmt clippy test doc deny fix tools bench peers query-peers simulate fuzz chaos chaos-short

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

verify: fmt clippy test doc deny chaos-short ## what must hold before a change lands

fmt:
	cargo fmt --check

clippy:
	cargo clippy --all-targets --locked -- -D warnings

test: ## unit, end-to-end and documentation tests
	cargo test --locked --lib --bins --tests
	cargo test --locked --doc

doc:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items --quiet

deny: # licences, sources and duplicates; advisories need the network and run elsewhere
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check licenses bans sources; \
	else echo "deny: cargo-deny is not installed, skipped"; fi

chaos-short: # the checker's own tests, then two minutes of faults on the debug build
	cargo fmt --check --manifest-path chaos/Cargo.toml
	cargo clippy --all-targets --locked --manifest-path chaos/Cargo.toml --target-dir chaos/target -- -D warnings
	cargo test --quiet --locked --manifest-path chaos/Cargo.toml --target-dir chaos/target
	@# The tests have built it, with their own features of tokio: another build would compile everything once more.
	test -x target/debug/metrolith || cargo build --quiet --locked --bin metrolith
	METROLITH_BIN=target/debug/metrolith ./scripts/chaos.sh short

fix: ## format, apply clippy's suggestions, write the generated page
	cargo clippy --fix --allow-dirty --allow-staged --all-targets
	cargo fmt
	cargo run --quiet -- config docs > target/configuration.md && mv target/configuration.md docs/configuration.md

tools: ## fetch what the end-to-end tests compare with, into target/tools
	./scripts/tools.sh

bench: ## criterion benches
	cargo bench --benches

peers: ## processor and memory beside VictoriaMetrics and Prometheus on one load
	./scripts/peers.sh

query-peers: ## processor and memory of queries beside VictoriaMetrics and Prometheus over the same data
	./scripts/peers.sh query_peers

simulate: ## SEEDS seeds (default 1000) of the simulated cluster, 60 s of faults each, from FIRST (default 1)
	METROLITH_SEEDS=$(or $(SEEDS),1000) METROLITH_FIRST_SEED=$(or $(FIRST),1) METROLITH_SIM_SECONDS=60 \
	cargo test --locked --profile fast --test simulate -- --exact invariants_hold_for_every_seed --nocapture

fuzz: ## every fuzz target for SECONDS (default 60)
	./scripts/fuzz.sh $(or $(SECONDS),60)

chaos: ## real nodes and faults: PROFILE (short, kill-leader, kill-all, elastic, long), SEED, METROLITH_BIN
	./scripts/chaos.sh $(or $(PROFILE),short) $(or $(SEED),1)
