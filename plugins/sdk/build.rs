//! Links the C library, which the target brings along: `memcpy` and its kin, which the compiler
//! calls, are there. With std it is linked anyway; without, nothing else asks for it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-lib=c");
    }
}
