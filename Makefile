# The commands of this project. `make up` and `make test` do all of their own set-up on Debian 12 or Ubuntu with Rust and root.

export CARGO_TERM_COLOR ?= auto

.PHONY: up down check test soak bench fuzz images

## Build the release binary, start a cluster and show the everyday jobs done
up: images
	scripts/prerequisites.sh build
	cargo build --release --locked
	scripts/demo.sh target/release/gantry

## Stop the cluster that `make up` started; keeps its data
down:
	target/release/gantry down

## Format, lints with warnings denied, licences and bans of dependencies
check:
	scripts/prerequisites.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
	cargo deny --locked check bans licenses sources

## Everything that CI runs after `check`: unit tests, then the cluster tests one after the other
test: images
	scripts/prerequisites.sh test
	cargo build --workspace --all-targets --locked
	cargo test --workspace --locked --no-fail-fast

## The store's tests at the length that CI has no time for: 300 kills, 5000 simulated disks, 1,000,000 updates
soak:
	scripts/prerequisites.sh test
	STORE_KILL_ROUNDS=300 STORE_SEEDS=5000 STORE_UPDATES=1000000 \
		cargo test --release --locked -p store --lib --test 'embedded*' -- --nocapture

## Print the figures that docs/benchmarks.md explains
bench: images
	scripts/prerequisites.sh test
	cargo build --release --locked -p gantry -p tests
	cargo run --release --locked -p store --example bench -- target
	target/release/api_bench
	target/release/bench

## Look for inputs that break what crate `properties` says of them, for so many seconds each: see docs/fuzzing.md
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(notdir $(wildcard properties/corpus/*))
fuzz:
	scripts/prerequisites.sh build
	command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
	for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target properties/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -rss_limit_mb=2048 -timeout=10 || exit 1; \
	done

## The images of the examples, from Debian's packages
images: .cache/images/redis-latest.tar

.cache/images/redis-latest.tar: images/build.sh
	images/build.sh
