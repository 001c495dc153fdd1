//! Signatures of outgoing requests, made here over the finished request so that the key stays out of
//! the plugin: AWS Signature Version 4, OVHcloud, Tencent Cloud TC3, Alibaba Cloud ACS3, Akamai EG1.
//! And the signed assertion of a service account (RFC 7523). Pure: the time and the nonce are given.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use time::macros::format_description;

use super::session::Role;
use crate::config::credential::Signing;
use crate::hex;

/// A request, finished but for the signature.
pub(super) struct Unsigned<'a> {
    pub method: &'a str,
    pub scheme: &'a str,
    /// Host, and the port where it is not the scheme's own.
    pub authority: &'a str,
    /// Percent-encoded.
    pub path: &'a str,
    /// As it is sent, without `?`.
    pub query: &'a str,
    /// Names in lower case.
    pub headers: &'a [(String, String)],
    pub body: &'a [u8],
}

/// Fields to add to the request.
pub(super) type Fields = Vec<(&'static str, String)>;

/// Signs a request. `secret` reads the secret of a name, `text` fills in configuration.
pub(super) fn sign<E>(
    scheme: &Signing,
    request: &Unsigned<'_>,
    now: OffsetDateTime,
    nonce: &str,
    secret: impl Fn(&str) -> Result<String, E>,
    text: impl Fn(&str) -> Result<String, E>,
    role: Option<Role>,
) -> Result<Fields, E>
where
    E: From<String>,
{
    Ok(match scheme {
        Signing::AwsSigv4 { key_id, secret: key, session, region, service, .. } => {
            let (id, key, session) = match role {
                Some(role) => (role.key_id, role.secret, role.session),
                None => {
                    let session = session.as_ref().map(|name| secret(name)).transpose()?;
                    (secret(key_id)?, secret(key)?, session)
                }
            };
            let scope = (text(region)?, text(service)?);
            sigv4(request, now, &id, &key, session, &scope.0, &scope.1)
        }
        Signing::RsaHttp { key_id, key } => {
            let id: Vec<String> =
                key_id.iter().map(|name| secret(name)).collect::<Result<_, E>>()?;
            rsa_http(request, now, &id.join("/"), &secret(key)?)
                .map_err(|why| E::from(format!("the secret {key} cannot sign: {why}")))?
        }
        Signing::Ovh { application_key, application_secret, consumer_key } => {
            let keys = (secret(application_key)?, secret(consumer_key)?);
            ovh(request, now, &keys.0, &secret(application_secret)?, &keys.1)
        }
        Signing::Tc3 { key_id, secret: key, service } => {
            tc3(request, now, &secret(key_id)?, &secret(key)?, &text(service)?)
        }
        Signing::AliyunAcs3 { key_id, secret: key } => {
            acs3(request, now, nonce, &secret(key_id)?, &secret(key)?)
        }
        Signing::AkamaiEg1 { client_token, client_secret, access_token } => {
            let tokens = (secret(client_token)?, secret(access_token)?);
            eg1(request, now, nonce, &tokens.0, &secret(client_secret)?, &tokens.1)
        }
    })
}

/// AWS Signature Version 4 ("Create a signed AWS API request"), over `host` and the `x-amz-*` fields.
fn sigv4(
    request: &Unsigned<'_>,
    now: OffsetDateTime,
    key_id: &str,
    secret: &str,
    session: Option<String>,
    region: &str,
    service: &str,
) -> Fields {
    let (stamp, day) = (amz(now), day(now, false));
    let mut signed = vec![("host", request.authority.to_owned()), ("x-amz-date", stamp.clone())];
    let mut fields: Fields = vec![("x-amz-date", stamp.clone())];
    if let Some(session) = session {
        signed.push(("x-amz-security-token", session.clone()));
        fields.push(("x-amz-security-token", session));
    }
    let (names, canonical) = canonical(request, &path_twice(request.path), &signed);
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = mac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    for part in [region, service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex::lower(&mac(&key, to_sign.as_bytes()));
    fields.push((
        "authorization",
        format!(
            "AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, \
             Signature={signature}"
        ),
    ));
    fields
}

/// OVHcloud ("First steps with the OVHcloud APIs"): SHA-1 over what is sent and both secrets.
fn ovh(
    request: &Unsigned<'_>,
    now: OffsetDateTime,
    application_key: &str,
    application_secret: &str,
    consumer_key: &str,
) -> Fields {
    let stamp = now.unix_timestamp();
    let Unsigned { method, scheme, authority, path, query, .. } = request;
    let mark = if query.is_empty() { "" } else { "?" };
    let mut text = format!(
        "{application_secret}+{consumer_key}+{method}+{scheme}://{authority}{path}{mark}{query}+"
    )
    .into_bytes();
    text.extend_from_slice(request.body);
    text.extend_from_slice(format!("+{stamp}").as_bytes());
    let sum = digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &text);
    vec![
        ("x-ovh-application", application_key.to_owned()),
        ("x-ovh-consumer", consumer_key.to_owned()),
        ("x-ovh-timestamp", stamp.to_string()),
        ("x-ovh-signature", format!("$1${}", hex::lower(sum.as_ref()))),
    ]
}

/// Tencent Cloud's signature version 3, over `content-type`, `host` and `x-tc-action`.
fn tc3(
    request: &Unsigned<'_>,
    now: OffsetDateTime,
    key_id: &str,
    secret: &str,
    service: &str,
) -> Fields {
    let (stamp, day) = (now.unix_timestamp().to_string(), day(now, true));
    let field = |name: &str| field(request, name).to_owned();
    let mut signed = vec![
        ("content-type", field("content-type")),
        ("host", request.authority.to_owned()),
        ("x-tc-action", field("x-tc-action").to_ascii_lowercase()),
    ];
    signed.retain(|(_, value)| !value.is_empty());
    let (names, canonical) = canonical(request, request.path, &signed);
    let scope = format!("{day}/{service}/tc3_request");
    let to_sign = format!("TC3-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = mac(format!("TC3{secret}").as_bytes(), day.as_bytes());
    for part in [service, "tc3_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex::lower(&mac(&key, to_sign.as_bytes()));
    vec![
        ("x-tc-timestamp", stamp),
        (
            "authorization",
            format!(
                "TC3-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, \
                 Signature={signature}"
            ),
        ),
    ]
}

/// Alibaba Cloud's V3 request signature, over `host` and the `x-acs-*` fields.
fn acs3(
    request: &Unsigned<'_>,
    now: OffsetDateTime,
    nonce: &str,
    key_id: &str,
    secret: &str,
) -> Fields {
    let stamp = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let stamp = now.format(stamp).unwrap_or_default();
    let content = sha256(request.body);
    let mut signed = vec![
        ("host", request.authority.to_owned()),
        ("x-acs-action", field(request, "x-acs-action").to_owned()),
        ("x-acs-content-sha256", content.clone()),
        ("x-acs-date", stamp.clone()),
        ("x-acs-signature-nonce", nonce.to_owned()),
        ("x-acs-version", field(request, "x-acs-version").to_owned()),
    ];
    signed.retain(|(_, value)| !value.is_empty());
    let (names, canonical) = canonical(request, request.path, &signed);
    let to_sign = format!("ACS3-HMAC-SHA256\n{}", sha256(canonical.as_bytes()));
    let signature = hex::lower(&mac(secret.as_bytes(), to_sign.as_bytes()));
    vec![
        ("x-acs-content-sha256", content),
        ("x-acs-date", stamp),
        ("x-acs-signature-nonce", nonce.to_owned()),
        (
            "authorization",
            format!(
                "ACS3-HMAC-SHA256 Credential={key_id},SignedHeaders={names},Signature={signature}"
            ),
        ),
    ]
}

/// Akamai's EdgeGrid, without signed header fields.
fn eg1(
    request: &Unsigned<'_>,
    now: OffsetDateTime,
    nonce: &str,
    client_token: &str,
    client_secret: &str,
    access_token: &str,
) -> Fields {
    let stamp = format_description!("[year][month][day]T[hour]:[minute]:[second]+0000");
    let stamp = now.format(stamp).unwrap_or_default();
    let head = format!(
        "EG1-HMAC-SHA256 client_token={client_token};access_token={access_token};\
         timestamp={stamp};nonce={nonce};"
    );
    // Only the first 128 KiB of a POST count.
    let content = match request.method {
        "POST" if !request.body.is_empty() => {
            let counts = request.body.get(..EG1_BODY_BYTES_MAX).unwrap_or(request.body);
            STANDARD.encode(digest::digest(&SHA256, counts))
        }
        _ => String::new(),
    };
    let Unsigned { method, scheme, authority, path, query, .. } = request;
    let mark = if query.is_empty() { "" } else { "?" };
    let to_sign = format!(
        "{method}\t{scheme}\t{}\t{path}{mark}{query}\t\t{content}\t{head}",
        authority.to_ascii_lowercase()
    );
    let key = STANDARD.encode(mac(client_secret.as_bytes(), stamp.as_bytes()));
    let signature = STANDARD.encode(mac(key.as_bytes(), to_sign.as_bytes()));
    vec![("authorization", format!("{head}signature={signature}"))]
}

/// HTTP signatures with RSA and SHA-256 (draft-cavage-http-signatures-12; Oracle Cloud, "Request
/// Signatures").
fn rsa_http(
    request: &Unsigned<'_>,
    now: OffsetDateTime,
    key_id: &str,
    key: &str,
) -> Result<Fields, &'static str> {
    let date = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = now.format(date).unwrap_or_default();
    let (names, to_sign, mut fields) = rsa_http_text(request, &date);
    let signature = STANDARD.encode(rsa_sha256(key, to_sign.as_bytes())?);
    fields.push((
        "authorization",
        format!(
            "Signature version=\"1\",headers=\"{names}\",keyId=\"{key_id}\",algorithm=\"rsa-sha256\",\
             signature=\"{signature}\""
        ),
    ));
    Ok(fields)
}

/// The names of what is signed, the text that is, and the fields that are new.
fn rsa_http_text(request: &Unsigned<'_>, date: &str) -> (String, String, Fields) {
    let Unsigned { method, authority, path, query, body, .. } = request;
    let mark = if query.is_empty() { "" } else { "?" };
    let mut fields: Fields = vec![("date", date.to_owned())];
    let mut signed = vec![
        ("date", date.to_owned()),
        ("(request-target)", format!("{} {path}{mark}{query}", method.to_ascii_lowercase())),
        ("host", (*authority).to_owned()),
    ];
    if matches!(*method, "POST" | "PUT" | "PATCH") {
        let digest = STANDARD.encode(digest::digest(&SHA256, body));
        fields.push(("x-content-sha256", digest.clone()));
        signed.push(("content-length", body.len().to_string()));
        signed.push(("content-type", field(request, "content-type").to_owned()));
        signed.push(("x-content-sha256", digest));
    }
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let lines: Vec<String> =
        signed.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    (names.join(" "), lines.join("\n"), fields)
}

/// An assertion for a token endpoint (RFC 7523, section 3), signed with RS256 by the key of a service
/// account's JSON file. The error says what is wrong with that, and nothing of what is in it.
pub(super) fn assertion(
    account: &str,
    audience: &str,
    scope: &str,
    now: OffsetDateTime,
) -> Result<String, &'static str> {
    let account: serde_json::Value =
        serde_json::from_str(account).map_err(|_| "it is not the JSON of a service account")?;
    let text = |key: &str| account.get(key).and_then(serde_json::Value::as_str);
    let mail = text("client_email").ok_or("it has no client_email")?;
    let mut head = serde_json::json!({"alg": "RS256", "typ": "JWT"});
    if let (Some(id), Some(head)) = (text("private_key_id"), head.as_object_mut()) {
        head.insert("kid".to_owned(), id.into());
    }
    let issued = now.unix_timestamp();
    let claims = serde_json::json!({
        "iss": mail, "scope": scope, "aud": audience, "iat": issued, "exp": issued + 3600,
    });
    let parts = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = parts.join(".");
    let signature = rs256(text("private_key").ok_or("it has no private_key")?, &message)?;
    Ok(format!("{message}.{signature}"))
}

/// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3), in Base64 as JWS has it.
fn rs256(key: &str, message: &str) -> Result<String, &'static str> {
    rsa_sha256(key, message.as_bytes()).map(|signature| URL_SAFE_NO_PAD.encode(signature))
}

/// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, section 8.2).
fn rsa_sha256(key: &str, message: &[u8]) -> Result<Vec<u8>, &'static str> {
    const WRONG: &str = "its private_key is no RSA key in PEM";
    let pair = match PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| WRONG)? {
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        _ => return Err(WRONG),
    };
    let pair = pair.map_err(|_| WRONG)?;
    let mut signature = vec![0; pair.public_key().modulus_len()];
    let random = SystemRandom::new();
    pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| WRONG)?;
    Ok(signature)
}

/// Names of the signed fields, and the request in the form that is signed, which is the same for
/// three of the schemes.
fn canonical(request: &Unsigned<'_>, path: &str, signed: &[(&str, String)]) -> (String, String) {
    let mut query: Vec<(&str, &str)> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    query.sort_unstable();
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let lines: String =
        signed.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names = names.join(";");
    let text = format!(
        "{}\n{path}\n{}\n{lines}\n{names}\n{}",
        request.method,
        query.join("&"),
        sha256(request.body)
    );
    (names, text)
}

/// A path as SigV4 wants it for every service but S3: encoded once more.
fn path_twice(path: &str) -> String {
    path.replace('%', "%25")
}

fn field<'a>(request: &Unsigned<'a>, name: &str) -> &'a str {
    let mut named = request.headers.iter().filter(|(known, _)| known == name);
    named.next().map_or("", |(_, value)| value.as_str())
}

fn amz(now: OffsetDateTime) -> String {
    let stamp = format_description!("[year][month][day]T[hour][minute][second]Z");
    now.format(stamp).unwrap_or_default()
}

fn day(now: OffsetDateTime, is_dashed: bool) -> String {
    let date = now.date();
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let dash = if is_dashed { "-" } else { "" };
    format!("{year:04}{dash}{month:02}{dash}{day:02}")
}

fn sha256(bytes: &[u8]) -> String {
    hex::lower(digest::digest(&SHA256, bytes).as_ref())
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

/// Bytes of a body that count for EG1.
const EG1_BODY_BYTES_MAX: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Unsigned<'_> = Unsigned {
        method: "GET",
        scheme: "https",
        authority: "example.amazonaws.com",
        path: "/",
        query: "",
        headers: &[],
        body: b"",
    };

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    fn value<'f>(fields: &'f Fields, name: &str) -> &'f str {
        &fields.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// AWS's own test suite: get-vanilla, post-vanilla, get-vanilla-query-order-key-case, and
    /// post-sts-header-before, whose token is signed.
    #[test]
    fn sigv4_is_as_published() {
        let sign = |method: &str, query: &str, session: Option<String>| {
            let request = Unsigned { method, query, ..EMPTY };
            let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
            let (region, service) = ("us-east-1", "service");
            let now = at(1_440_938_160);
            let fields = sigv4(&request, now, "AKIDEXAMPLE", secret, session, region, service);
            assert_eq!(value(&fields, "x-amz-date"), "20150830T123600Z");
            value(&fields, "authorization").to_owned()
        };
        assert_eq!(
            sign("GET", "", None),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        let post = sign("POST", "", None);
        let wanted = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        assert!(post.ends_with(wanted), "{post}");
        let sorted = sign("GET", "Param2=value2&Param1=value1", None);
        let wanted = "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";
        assert!(sorted.ends_with(wanted), "{sorted}");
        let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        let with_token = sign("POST", "", Some(token.to_owned()));
        let wanted = "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead";
        assert!(with_token.ends_with(wanted), "{with_token}");
    }

    /// The example of OVHcloud's guide.
    #[test]
    fn ovh_is_as_published() {
        let request = Unsigned { authority: "eu.api.ovh.com", path: "/1.0/domains/", ..EMPTY };
        let fields = ovh(
            &request,
            at(1_366_560_945),
            "7kbG7Bk7S9Nt7ZSV",
            "EXEgWIz07P0HYwtQDs7cNIqCiQaWSuHF",
            "MtSwSrPpNjqfVSmJhLbPyr2i45lSwPU1",
        );
        let signature = value(&fields, "x-ovh-signature");
        assert_eq!(signature, "$1$d3705e8afb27a0d2970a322b96550abfc67bb798");
    }

    /// The example of Tencent Cloud's documentation, whose key is 32 asterisks.
    #[test]
    fn tc3_is_as_published() {
        let headers = [
            ("content-type".to_owned(), "application/json; charset=utf-8".to_owned()),
            ("x-tc-action".to_owned(), "DescribeInstances".to_owned()),
        ];
        let request = Unsigned {
            method: "POST",
            authority: "cvm.tencentcloudapi.com",
            headers: &headers,
            body: br#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#,
            ..EMPTY
        };
        let fields = tc3(&request, at(1_551_113_065), "AKID", &"*".repeat(32), "cvm");
        assert_eq!(
            value(&fields, "authorization"),
            "TC3-HMAC-SHA256 Credential=AKID/2019-02-25/cvm/tc3_request, \
             SignedHeaders=content-type;host;x-tc-action, \
             Signature=10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f"
        );
    }

    /// The example of Alibaba Cloud's documentation.
    #[test]
    fn acs3_is_as_published() {
        let headers = [
            ("x-acs-action".to_owned(), "RunInstances".to_owned()),
            ("x-acs-version".to_owned(), "2014-05-26".to_owned()),
        ];
        let request = Unsigned {
            method: "POST",
            authority: "ecs.cn-shanghai.aliyuncs.com",
            query: "RegionId=cn-shanghai&ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
            headers: &headers,
            ..EMPTY
        };
        let nonce = "3156853299f313e23d1673dc12e1703d";
        let now = at(1_698_315_752);
        let fields = acs3(&request, now, nonce, "YourAccessKeyId", "YourAccessKeySecret");
        let authorization = value(&fields, "authorization");
        let wanted = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0";
        assert!(authorization.ends_with(wanted), "{authorization}");
    }

    /// Akamai's own test data.
    #[test]
    fn eg1_is_as_published() {
        let sign = |method: &str, path: &str, query: &str, body: &[u8]| {
            let authority = "akaa-baseurl-xxxxxxxxxxx-xxxxxxxxxxxxx.luna.akamaiapis.net";
            let request = Unsigned { method, authority, path, query, body, ..EMPTY };
            let fields = eg1(
                &request,
                at(1_395_430_461),
                "nonce-xx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
                "akab-client-token-xxx-xxxxxxxxxxxxxxxx",
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx=",
                "akab-access-token-xxx-xxxxxxxxxxxxxxxx",
            );
            let authorization = value(&fields, "authorization");
            assert!(authorization.contains("timestamp=20140321T19:34:21+0000;"), "{authorization}");
            authorization.rsplit_once("signature=").unwrap().1.to_owned()
        };
        assert_eq!(sign("GET", "/", "", b""), "tL+y4hxyHxgWVD30X3pWnGKHcPzmrIF+LThiAOhMxYU=");
        let query = sign("GET", "/testapi/v1/t1", "p1=1&p2=2", b"");
        assert_eq!(query, "hKDH1UlnQySSHjvIcZpDMbQHihTQ0XyVAKZaApabdeA=");
        let body = b"datadatadatadatadatadatadatadata";
        let post = sign("POST", "/testapi/v1/t3", "", body);
        assert_eq!(post, "hXm4iCxtpN22m4cbZb4lVLW5rhX8Ca82vCFqXzSTPe4=");
    }

    /// The example of draft-cavage-http-signatures-12, appendix C.2 and C.3, whose key is in
    /// appendix C: its order of fields is another, so it is the text and the key that are checked here
    /// by what the draft says about each line.
    #[test]
    fn http_signatures_cover_target_host_date_and_body() {
        let headers = [("content-type".to_owned(), "application/json".to_owned())];
        let post = Unsigned {
            method: "POST",
            authority: "dns.eu-frankfurt-1.oraclecloud.com",
            path: "/foo",
            query: "param=value&pet=dog",
            headers: &headers,
            body: b"{\"hello\": \"world\"}",
            ..EMPTY
        };
        let date = "Sun, 05 Jan 2014 21:31:40 GMT";
        let (names, text, fields) = rsa_http_text(&post, date);
        assert_eq!(
            names,
            "date (request-target) host content-length content-type x-content-sha256"
        );
        // The digest is that of the draft's own example body.
        assert_eq!(
            text,
            "date: Sun, 05 Jan 2014 21:31:40 GMT\n\
             (request-target): post /foo?param=value&pet=dog\n\
             host: dns.eu-frankfurt-1.oraclecloud.com\n\
             content-length: 18\ncontent-type: application/json\n\
             x-content-sha256: X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="
        );
        assert_eq!(fields.len(), 2);
        let (names, _, _) = rsa_http_text(&Unsigned { method: "GET", ..EMPTY }, date);
        assert_eq!(names, "date (request-target) host");

        // Whoever has the public key can check it.
        let key = include_str!("signing/rfc7515-a2.pem");
        let fields = rsa_http(&post, at(1_388_957_500), "t/u/f", key).unwrap();
        assert_eq!(fields[0], ("date", date.to_owned()));
        let authorization = value(&fields, "authorization");
        assert!(authorization.contains("keyId=\"t/u/f\",algorithm=\"rsa-sha256\""));
        let signature = authorization.rsplit_once("signature=\"").unwrap().1.trim_end_matches('"');
        let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()
        else {
            panic!("PKCS #8");
        };
        let public = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
            public.public_key().as_ref().to_vec(),
        );
        public.verify(text.as_bytes(), &STANDARD.decode(signature).unwrap()).unwrap();
        assert!(rsa_http(&post, at(0), "x", "nonsense").is_err());
    }

    /// RFC 7515, appendix A.2.
    #[test]
    fn rs256_is_as_published() {
        let message = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
                       Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let key = include_str!("signing/rfc7515-a2.pem");
        assert_eq!(
            rs256(key, message).unwrap(),
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7\
             AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4\
             BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K\
             0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv\
             hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB\
             p0igcN_IoypGlUPQGe77Rw"
        );
        assert!(rs256("nonsense", "x").is_err());
    }

    #[test]
    fn an_assertion_says_who_asks_for_what() {
        let key = include_str!("signing/rfc7515-a2.pem");
        let account = serde_json::json!({"client_email": "a@b.example", "private_key": key, "private_key_id": "k1"});
        let jwt = assertion(&account.to_string(), "https://t.example/", "dns", at(1000)).unwrap();
        let parts: Vec<serde_json::Value> = jwt
            .split('.')
            .take(2)
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!(parts[0], serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
        let claims = serde_json::json!({"iss": "a@b.example", "scope": "dns", "aud": "https://t.example/", "iat": 1000, "exp": 4600});
        assert_eq!(parts[1], claims);
        for account in ["nonsense", "{}", "{\"client_email\":\"a\",\"private_key\":\"x\"}"] {
            assert!(assertion(account, "", "", at(0)).is_err(), "{account}");
        }
    }
}
