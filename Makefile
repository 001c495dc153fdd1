# The front door. What needs logic is `cargo xtask` or tests/setup.
.PHONY: run build plugins guests lint tools test cost fuzz bench

## run: the first example at https://localhost:8443, with the plugins of this checkout
run: build
	@echo 'Open https://localhost:8443/ (curl -k works at once; witgate trust makes browsers content).'
	@echo 'Then edit examples/01-first-site/gateway.yaml, or run "make plugins" after a change: both take effect while it serves.'
	target/release/witgate run --config examples/01-first-site/gateway.yaml

## build: target/release/witgate and target/plugins/*.wasm
build: plugins
	cargo build --release --package witgate --locked

## plugins: every first-party plugin as target/plugins/NAME.wasm
plugins:
	cargo xtask plugins

## guests: the odd and hostile components of the tests
guests:
	cargo build --release --examples --locked --target wasm32-wasip2 --manifest-path tests/guests/Cargo.toml

## lint: formatting and clippy, warnings count as errors
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings

## test: everything that a change has to pass
test: tools lint plugins guests cost
	RUST_TEST_THREADS=4 cargo test --workspace --locked
	cargo test --locked --manifest-path plugins/Cargo.toml
	cd plugins/sdk-go && go vet ./... && go test ./...

## cost: the instructions of a request must not have become more than a tenth more
cost: tools plugins
	cargo xtask cost

## fuzz: every target of tests/fuzz for a minute; tests/fuzz/run says what it needs
fuzz:
	tests/fuzz/run

tools:
	tests/setup

## bench: the release build beside the proxies that are installed; see docs/PERFORMANCE.md
bench: build
	tests/bench/setup
	tests/bench/run -r 3 -s h1,h2,hs,resume,down,up
	tests/bench/run -m -s idle,start1,start10k,ext,reload,lat
