//! Makes a component of a core module, for languages whose compilers stop there.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as ADAPTER_NAME,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

use super::{WorkshopError, embedded};

/// Wraps a core module that has the imports and exports of `world` by their names in the canonical
/// ABI. Calls of WASI preview 1 go through the adapter of the Wasmtime that runs it.
///
/// # Errors
/// When the module does not fit the world.
pub(super) fn of_core(mut core: Vec<u8>, world: &str) -> Result<Vec<u8>, WorkshopError> {
    let mut sources = SourceMap::new();
    for (name, text) in embedded::contract() {
        sources.push_str(name, text);
    }
    let failed = |cause: String| WorkshopError::NothingMade(format!("{UNFIT} `{world}`: {cause}"));
    let group = sources.parse().map_err(|(_, cause)| failed(cause.to_string()))?;
    let mut resolve = Resolve::new();
    let package = resolve.push_group(group).map_err(|cause| failed(cause.to_string()))?;
    let chosen = resolve.select_world(&[package], Some(world));
    let chosen = chosen.map_err(|cause| failed(cause.to_string()))?;
    embed_component_metadata(&mut core, &resolve, chosen, StringEncoding::UTF8)
        .and_then(|()| ComponentEncoder::default().validate(true).module(&core))
        .and_then(|encoder| encoder.adapter(ADAPTER_NAME, ADAPTER))
        .and_then(|mut encoder| encoder.encode())
        .map_err(|cause| failed(format!("{cause:#}")))
}

const UNFIT: &str = "what the compiler made is no component of the world";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_becomes_a_component_or_the_reason_is_told() {
        let core = r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 64)
            (func (export "witgate:plugin/plugin@0.1.0#configure") (param i32 i32) (result i32)
                i32.const 0)
            (func (export "witgate:plugin/router-hooks@0.1.0#route")))"#;
        let core = wat::parse_str(core).unwrap();
        let component = of_core(core.clone(), "router").unwrap();
        assert_eq!(&component[..8], b"\0asm\x0d\0\x01\0");
        let error = of_core(core, "filter").unwrap_err().to_string();
        assert!(error.contains("filter-hooks"), "{error}");
    }
}
