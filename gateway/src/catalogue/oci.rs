//! Artifacts in an OCI registry (OCI Distribution 1.1): the manifest by its digest, then its layers by
//! theirs. With the token that a registry asks anonymous clients to fetch, or with a login.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::fetch::{Answer, Fetcher, checked, field, is_this_machine};
use super::{Found, From, sha256_of};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    digest: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// The components of an artifact.
pub(super) async fn layers(
    fetcher: &Fetcher,
    registry: &str,
    repository: &str,
    digest: &str,
) -> Result<Vec<Found>, String> {
    let what = format!("oci://{registry}/{repository}@sha256:{digest}");
    let path = format!("{repository}/manifests/sha256:{digest}");
    let bytes = checked(get(fetcher, registry, &path, &what).await?, digest, &what)?;
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|cause| format!("{what} is no manifest of an artifact: {cause}"))?;
    let mut found = Vec::new();
    for layer in manifest.layers {
        let digest = sha256_of(&layer.digest)
            .ok_or_else(|| format!("{what}: a layer has no digest of SHA-256"))?;
        let annotation = |name: &str| {
            layer.annotations.get(&format!("org.opencontainers.image.{name}")).cloned()
        };
        let title = annotation("title");
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        let from = From::Blob { registry, repository, digest };
        found.push(match title {
            Some(title) if title.ends_with(".wasm") => Found {
                name: title.trim_end_matches(".wasm").to_owned(),
                about: annotation("description").unwrap_or_default(),
                from,
            },
            // What else there is, a README for instance.
            Some(_) => continue,
            None => {
                let unnamed = Found { name: String::new(), about: String::new(), from };
                super::component(&what, unnamed.bytes(fetcher).await?)?
            }
        });
    }
    Ok(found)
}

/// One layer, when it is what its digest says.
pub(super) async fn blob(
    fetcher: &Fetcher,
    registry: &str,
    repository: &str,
    digest: &str,
) -> Result<Vec<u8>, String> {
    let what = format!("the layer sha256:{digest} of {registry}/{repository}");
    let path = format!("{repository}/blobs/sha256:{digest}");
    checked(get(fetcher, registry, &path, &what).await?, digest, &what)
}

async fn get(
    fetcher: &Fetcher,
    registry: &str,
    path: &str,
    what: &str,
) -> Result<bytes::Bytes, String> {
    let (host, _) = registry.rsplit_once(':').unwrap_or((registry, ""));
    // As other clients do: a registry on this machine mostly has no certificate.
    let is_plain = is_this_machine(host) && fetcher.roots.is_none();
    let scheme = if is_plain { "http" } else { "https" };
    let url = format!("{scheme}://{registry}/v2/{path}");
    let accept = field(ACCEPT, MEDIA_TYPES)?;
    let mut answer = fetcher.get(&url, &accept).await?;
    if answer.status.as_u16() == 401 {
        let mut fields = accept;
        fields.extend(authorization(fetcher, registry, &answer).await?);
        answer = fetcher.get(&url, &fields).await?;
    }
    match answer.status.is_success() {
        true => Ok(answer.body),
        false => {
            Err(format!("{what}: the registry answers {}{}", answer.status, login_hint(&answer)))
        }
    }
}

/// What the registry's challenge asks for: Basic credentials, or a token from where it says.
async fn authorization(
    fetcher: &Fetcher,
    registry: &str,
    answer: &Answer,
) -> Result<HeaderMap, String> {
    let asked = answer.headers.get(WWW_AUTHENTICATE).and_then(|it| it.to_str().ok());
    let asked =
        asked.ok_or_else(|| format!("{registry} asks for credentials and not for which"))?;
    let (scheme, rest) = asked.split_once(' ').unwrap_or((asked, ""));
    let login = login();
    if scheme.eq_ignore_ascii_case("basic") {
        let login = login.ok_or_else(|| format!("{registry} asks for a login{LOGIN}"))?;
        return field(AUTHORIZATION, &format!("Basic {login}"));
    }
    let parameters = parameters(rest);
    let parameter = |name: &str| parameters.iter().find(|it| it.0 == name).map(|it| it.1.as_str());
    let realm = parameter("realm").filter(|_| scheme.eq_ignore_ascii_case("bearer"));
    let realm =
        realm.ok_or_else(|| format!("{registry} asks for credentials of an unknown kind"))?;
    let mut url = realm.to_owned();
    for name in ["service", "scope"] {
        if let Some(value) = parameter(name) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url += &format!("{name}={}", escape(value));
        }
    }
    let fields = match login {
        Some(login) => field(AUTHORIZATION, &format!("Basic {login}"))?,
        None => HeaderMap::new(),
    };
    let answer = fetcher.get(&url, &fields).await?;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let token = ["token", "access_token"].iter().find_map(|name| body.get(name)?.as_str());
    match token.filter(|_| answer.status.is_success()) {
        Some(token) => field(AUTHORIZATION, &format!("Bearer {token}")),
        None => Err(format!("{realm} gives no token ({}){LOGIN}", answer.status)),
    }
}

/// Basic credentials (RFC 7617) from the environment.
fn login() -> Option<String> {
    let user = std::env::var("WITGATE_REGISTRY_USER").ok()?;
    let password = std::env::var("WITGATE_REGISTRY_PASSWORD").ok()?;
    Some(STANDARD.encode(format!("{user}:{password}")))
}

fn login_hint(answer: &Answer) -> &'static str {
    if matches!(answer.status.as_u16(), 401 | 403) { LOGIN } else { "" }
}

/// `name="value"` pairs of a challenge (RFC 9110, section 11.2).
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(after) => after.split_once('"').unwrap_or((after, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        pairs.push((name, value.trim().to_owned()));
        rest = after;
    }
    pairs
}

fn escape(text: &str) -> String {
    let byte = |byte: u8| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// What a manifest may be.
const MEDIA_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
                           application/vnd.docker.distribution.manifest.v2+json, */*";
/// How to log in.
const LOGIN: &str = "; a login is taken from WITGATE_REGISTRY_USER and WITGATE_REGISTRY_PASSWORD";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = "realm=\"https://auth.example/token\",service=\"a b\", scope=\"repository:x/y:pull,push\",n=1";
        let wanted = [
            ("realm", "https://auth.example/token"),
            ("service", "a b"),
            ("scope", "repository:x/y:pull,push"),
            ("n", "1"),
        ];
        let wanted: Vec<_> = wanted.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        assert_eq!(parameters(text), wanted);
        assert_eq!(escape("repository:x/y:pull"), "repository%3Ax%2Fy%3Apull");
    }
}
