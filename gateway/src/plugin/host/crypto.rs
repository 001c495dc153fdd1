//! `wit/crypto.wit`: keyed checks, so that the key stays here. Nothing interrupts the host, so what a
//! call may hand over bounds what is computed on.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use wasmtime::component::{LinkerInstance, WasmList, WasmStr};

use super::super::facts::Facts;
use super::Host;
use crate::hex;

/// Links `function` of `crypto`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "hmac" => at.func_wrap(
            function,
            |mut store, (algorithm, secret, data): (WasmStr, WasmStr, WasmList<u8>)| {
                store.data_mut().charge(data.len())?;
                let store = &store;
                let (algorithm, secret) = (algorithm.to_str(store)?, secret.to_str(store)?);
                let data = data.as_le_slice(store);
                let host = store.data();
                let call = || format!("crypto.hmac {algorithm} {secret} {}", digest(&[data]));
                Ok((host.answer(call, || {
                    let key = key(&host.facts, &algorithm, &secret)?;
                    Ok::<_, String>(hmac::sign(&key, data).as_ref().to_vec())
                }),))
            },
        )?,
        "verify-hmac" => at.func_wrap(
            function,
            |mut store, (algorithm, secret, data, code): (WasmStr, WasmStr, WasmList<u8>, _)| {
                let code: WasmList<u8> = code;
                store.data_mut().charge(data.len().saturating_add(code.len()))?;
                let store = &store;
                let (algorithm, secret) = (algorithm.to_str(store)?, secret.to_str(store)?);
                let (data, code) = (data.as_le_slice(store), code.as_le_slice(store));
                let host = store.data();
                let call =
                    || format!("crypto.verify-hmac {algorithm} {secret} {}", digest(&[data, code]));
                Ok((host.answer(call, || {
                    let key = key(&host.facts, &algorithm, &secret)?;
                    Ok::<_, String>(hmac::verify(&key, data, code).is_ok())
                }),))
            },
        )?,
        "verify-signature" => at.func_wrap(
            function,
            |mut store, (algorithm, key, data, signature): (WasmStr, WasmList<u8>, _, _)| {
                let (data, signature): (WasmList<u8>, WasmList<u8>) = (data, signature);
                let bytes = key.len().saturating_add(data.len()).saturating_add(signature.len());
                store.data_mut().charge(bytes)?;
                let store = &store;
                let (name, key) = (algorithm.to_str(store)?, key.as_le_slice(store));
                let (data, signature) = (data.as_le_slice(store), signature.as_le_slice(store));
                Ok((verify(&name, key, data, signature).map_err(str::to_owned),))
            },
        )?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The secret as a key, when the plugin may use it.
fn key(facts: &Facts, algorithm: &str, secret: &str) -> Result<hmac::Key, String> {
    let algorithm = match algorithm {
        "sha256" => hmac::HMAC_SHA256,
        "sha384" => hmac::HMAC_SHA384,
        "sha512" => hmac::HMAC_SHA512,
        _ => return Err("unknown-algorithm".to_owned()),
    };
    let Some(text) = facts.secrets.expose(secret) else {
        return Err("unknown-secret".to_owned());
    };
    if !facts.hmac.iter().any(|granted| granted == secret) {
        facts.refuse_hmac(secret);
        return Err("denied".to_owned());
    }
    Ok(hmac::Key::new(algorithm, text.as_bytes()))
}

fn verify(
    algorithm: &str,
    key: &[u8],
    data: &[u8],
    signature: &[u8],
) -> Result<bool, &'static str> {
    let with: &'static dyn VerificationAlgorithm = match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
        "ES384" => &signature::ECDSA_P384_SHA384_FIXED,
        "EdDSA" => &signature::ED25519,
        _ => return Err("unknown-algorithm"),
    };
    let key = UnparsedPublicKey::new(with, key).parse().map_err(|_| "bad-key")?;
    Ok(key.verify_sig(data, signature).is_ok())
}

/// What stands for data in a recording.
fn digest(parts: &[&[u8]]) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    let digest = context.finish();
    hex::lower(digest.as_ref().get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RsaKeyPair,
    };

    use super::*;

    #[test]
    fn signatures_of_tokens_are_checked() {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate().unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let mut by_rsa = vec![0; 256];
        rsa.sign(&RSA_PKCS1_SHA256, &random, b"data", &mut by_rsa).unwrap();
        let by_ec = ec.sign(&random, b"data").unwrap();
        let by_ed = ed.sign(b"data");
        for (algorithm, key, signature) in [
            ("EdDSA", ed.public_key().as_ref(), by_ed.as_ref()),
            ("ES256", ec.public_key().as_ref(), by_ec.as_ref()),
            ("RS256", rsa.public_key().as_ref(), &by_rsa),
        ] {
            assert_eq!(verify(algorithm, key, b"data", signature), Ok(true), "{algorithm}");
            assert_eq!(verify(algorithm, key, b"other", signature), Ok(false), "{algorithm}");
            assert_eq!(verify(algorithm, key, b"data", b""), Ok(false), "{algorithm}");
            assert_eq!(verify(algorithm, b"key", b"data", signature), Err("bad-key"));
        }
        assert_eq!(verify("none", b"", b"", b""), Err("unknown-algorithm"));
    }
}
