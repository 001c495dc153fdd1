//! Every key of `gateway.yaml` with its type, default and meaning, in one place: the checker takes
//! defaults and suggestions from here, the JSON Schema is made from it, and a test holds the
//! documented `gateway.yaml` against it.

use serde_json::{Value, json};

use self::Default::{Absent, Is, Required};
use self::Form::{Any, Bool, Duration, Int, Like, List, Map, Size, Text, TextMap, Texts, Word};

/// A key of the file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its place: keys joined by `.`, `[]` for the entries of a list, `*` for names that the file
    /// chooses.
    pub path: &'static str,
    /// What may stand there.
    pub forms: &'static [Form],
    /// What holds when it is absent.
    pub default: Default,
    /// One line about it.
    pub doc: &'static str,
}

/// One of the things that a key may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number in this range.
    Int(u64, u64),
    /// A duration, such as `5s`.
    Duration,
    /// A size, such as `16MiB`, or plain bytes.
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A mapping with the keys that the table lists below this path.
    Map,
    /// A list of what the table has at this path and `[]`.
    List,
    /// A list of texts.
    Texts,
    /// A mapping from names of the file's choice to texts.
    TextMap,
    /// Anything.
    Any,
    /// What the table has at that path.
    Like(&'static str),
}

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// The file is refused.
    Required,
    /// Nothing, or what the key's doc says.
    Absent,
    /// As if this YAML stood there.
    Is(&'static str),
}

/// The key at a path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names of the keys directly below a path (`""` is the file itself), in the order of the
/// table.
pub fn below(path: &str) -> Vec<&'static str> {
    let path = canonical(path);
    let child = |key: &'static Key| match path {
        "" => Some(key.path).filter(|p| !p.contains(['.', '['])),
        _ => {
            let rest = key.path.strip_prefix(path)?.strip_prefix('.')?;
            Some(rest).filter(|p| !p.contains(['.', '[']) && *p != "*")
        }
    };
    KEYS.iter().filter_map(child).collect()
}

/// The path under which the table lists what is below `path`: [`Form::Like`] is followed.
pub fn canonical(path: &str) -> &str {
    let like = find(path).into_iter().flat_map(|k| k.forms).find_map(|form| match form {
        Form::Like(other) => Some(*other),
        _ => None,
    });
    like.unwrap_or(path)
}

/// The JSON Schema (2020-12) of the whole file, for editors and `witgate schema`.
pub fn schema() -> Value {
    let mut root = object("");
    if let Value::Object(fields) = &mut root {
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        fields.insert("$schema".into(), json!(dialect));
        fields.insert("title".into(), json!("gateway.yaml"));
        fields.insert("description".into(), json!("The configuration of a Witgate gateway."));
    }
    root
}

/// The schema of a mapping with the keys below `path`.
fn object(path: &str) -> Value {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for name in below(path) {
        let at = match path {
            "" => name.to_owned(),
            _ => format!("{path}.{name}"),
        };
        let Some(key) = find(&at) else { continue };
        properties.insert(name.to_owned(), described(key));
        if key.default == Default::Required {
            required.push(name);
        }
    }
    let mut object = json!({"type": "object", "properties": properties});
    if let Value::Object(fields) = &mut object {
        let others = match find(&format!("{path}.*")) {
            Some(any) => described(any),
            None => json!(false),
        };
        fields.insert("additionalProperties".into(), others);
        if !required.is_empty() {
            fields.insert("required".into(), json!(required));
        }
    }
    object
}

/// The schema of a key, with its description and default.
fn described(key: &Key) -> Value {
    let mut forms: Vec<Value> = key.forms.iter().map(|form| of_form(key, *form)).collect();
    let mut schema = match (forms.len(), forms.pop()) {
        (1, Some(Value::Object(only))) => only,
        (_, Some(last)) => {
            forms.push(last);
            serde_json::Map::from_iter([("anyOf".to_owned(), Value::Array(forms))])
        }
        _ => serde_json::Map::new(),
    };
    schema.insert("description".into(), json!(key.doc));
    if let Default::Is(text) = key.default
        && let Ok(node) = super::node::read(text)
    {
        schema.insert("default".into(), node.value.to_json());
    }
    Value::Object(schema)
}

fn of_form(key: &Key, form: Form) -> Value {
    let size = "^[0-9]+(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)?$";
    match form {
        Form::Text => json!({"type": "string"}),
        Form::Bool => json!({"type": "boolean"}),
        Form::Int(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Form::Duration => json!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}),
        Form::Size => {
            let text = json!({"type": "string", "pattern": size});
            json!({"anyOf": [text, {"type": "integer", "minimum": 0}]})
        }
        // YAML 1.1 readers, some editors among them, make `false` of `off`; the checker takes both.
        Form::Word(words) if words.contains(&"off") => {
            let mut words: Vec<Value> = words.iter().map(|word| json!(word)).collect();
            words.push(json!(false));
            json!({"enum": words})
        }
        Form::Word(words) => json!({"enum": words}),
        Form::Map => object(key.path),
        Form::List => {
            let items = find(&format!("{}[]", key.path)).map_or_else(
                // The entries are mappings that need no line of their own in the table.
                || object(&format!("{}[]", key.path)),
                described,
            );
            json!({"type": "array", "items": items})
        }
        Form::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Form::TextMap => {
            json!({"type": "object", "additionalProperties": {"type": ["string", "null"]}})
        }
        Form::Any => json!({}),
        Form::Like(other) => match find(other) {
            Some(key) => match described(key) {
                Value::Object(mut same) => {
                    same.remove("default");
                    same.remove("description");
                    Value::Object(same)
                }
                other => other,
            },
            None => json!({}),
        },
    }
}

/// What happens to certificates, as hooks are told.
pub const EVENTS: &[&str] = &["issued", "failed", "ending", "revoked"];

/// The words for issuers that need no directory URL.
pub const ISSUERS: &[&str] = &["letsencrypt", "letsencrypt-staging", "zerossl", "google", "local"];

/// Where nothing stands for "no upper bound of its own".
const ANY: u64 = i64::MAX as u64;

/// The table.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    // Where to accept connections.
    key("listen", &[List], Is("[\"https://0.0.0.0:443\", \"http://0.0.0.0:80\"]"),
        "Where to listen: https:// serves the sites, http:// answers HTTP-01 and redirects."),
    key("listen[]", &[Text, Map], Absent,
        "A scheme (https or http), an IP address and a port; or that and what differs there."),
    key("listen[].address", &[Text], Required,
        "A scheme (https or http), an IP address and a port."),
    key("listen[].http3", &[Bool], Is("true"),
        "Serve HTTP/3 on the UDP port of the same number, and tell clients so. Only for https."),
    key("listen[].proxy-protocol", &[Texts], Is("[]"),
        "Networks of balancers that send a PROXY header (v1 or v2) first; from others none is read."),
    key("tls", &[Map], Absent, "What handshakes with clients go by, beside certificates."),
    key("tls.tickets", &[Map], Absent,
        "Session tickets that several machines open; each has keys of its own if absent."),
    key("tls.tickets.secret", &[Text, Map], Required,
        "32 bytes of chance or more, the same on all machines: a place to read them from."),
    key("tls.tickets.secret.env", &[Text], Absent, "An environment variable."),
    key("tls.tickets.secret.file", &[Text], Absent, "A file."),
    key("tls.tickets.secret.credential", &[Text], Absent, "A systemd credential."),
    key("tls.tickets.rotation", &[Duration], Is("6h"),
        "How long a key makes tickets; it opens them for as long again."),
    // Certificates.
    key("certificates", &[Map], Absent, "How certificates are obtained."),
    key("certificates.contact", &[Text], Absent,
        "The e-mail address that the CA gets, for notices about the account."),
    key("certificates.issuers", &[List], Is("[letsencrypt]"),
        "Certificate authorities, tried in this order. Private names get the local CA."),
    key("certificates.issuers[]", &[Word(ISSUERS), Map], Absent,
        "A known CA by its name, or any ACME server by its directory."),
    key("certificates.issuers[].directory", &[Text], Required,
        "The ACME directory: a URL, or the name of a known CA."),
    key("certificates.issuers[].name", &[Text], Absent,
        "What logs and the store call it; the host of the directory if absent."),
    key("certificates.issuers[].eab", &[Map], Absent,
        "External account binding, where the CA asks for it."),
    key("certificates.issuers[].eab.kid", &[Text], Required, "The key identifier from the CA."),
    key("certificates.issuers[].eab.key", &[Text, Map], Required,
        "The MAC key from the CA (base64url): a place to read it from."),
    key("certificates.issuers[].eab.key.env", &[Text], Absent, "An environment variable."),
    key("certificates.issuers[].eab.key.file", &[Text], Absent, "A file."),
    key("certificates.issuers[].eab.key.credential", &[Text], Absent, "A systemd credential."),
    key("certificates.issuers[].roots", &[Text], Absent,
        "A PEM file of roots to trust for the CA's own API, instead of the system's."),
    key("certificates.issuers[].profile", &[Text], Absent,
        "The certificate profile to ask for, such as shortlived."),
    key("certificates.issuers[].preferred-chain", &[Text], Absent,
        "Of several chains the one whose last certificate was issued by this common name."),
    key("certificates.issuers[].staging", &[Text], Absent,
        "The directory for `witgate certs rehearse`; known for Let's Encrypt."),
    key("certificates.challenge", &[Word(&["auto", "http-01", "tls-alpn-01", "dns-persist-01"]), Map], Is("auto"),
        "How control of a name is proved: a word, or {dns-01: PLUGIN}."),
    key("certificates.challenge.dns-01", &[Text], Absent,
        "The plugin that writes the DNS records. The only challenge for wildcards."),
    key("certificates.challenge.dns-account-01", &[Text], Absent,
        "The same, at a name of the account's own where the CA offers it."),
    key("certificates.files", &[List], Is("[]"),
        "Certificates that somebody else keeps up to date; chosen by the names in them."),
    key("certificates.files[].certificate", &[Text], Required, "The chain in PEM, leaf first."),
    key("certificates.files[].key", &[Text], Required, "The private key in PEM."),
    key("certificates.files[].ocsp", &[Text], Absent,
        "A file with the CA's OCSP response (DER), which is stapled; none is if absent."),
    key("certificates.default", &[Text], Absent,
        "The name whose certificate clients without SNI get; they are refused if absent."),
    key("certificates.keys", &[Word(&["ecdsa", "both"])], Is("ecdsa"),
        "The kinds of keys; both adds a certificate with RSA for clients that know nothing else."),
    key("certificates.local-domains", &[Texts], Is("[]"),
        "Domains and networks that the local CA's root is limited to, from when it is made; none: all."),
    key("certificates.local-acme", &[Map], Absent,
        "An ACME server, so that other tools get certificates from the local CA; off if absent."),
    key("certificates.local-acme.listen", &[Text], Is("127.0.0.1:8555"),
        "The address it listens on; everybody who reaches it can use it."),
    key("certificates.local-acme.http-port", &[Int(1, 65_535)], Is("80"),
        "The port at which names are asked for HTTP-01."),
    key("certificates.local-acme.tls-port", &[Int(1, 65_535)], Is("443"),
        "The port at which names are asked for TLS-ALPN-01."),
    key("certificates.hooks", &[List], Is("[]"),
        "Who is told of what happens to certificates."),
    key("certificates.hooks[].on", &[Texts], Is("[]"),
        "The events: issued, failed, ending, revoked; all if empty."),
    key("certificates.hooks[].command", &[Texts], Absent,
        "A program and its arguments; the event is JSON on its standard input."),
    key("certificates.hooks[].url", &[Text], Absent, "A URL; the event is JSON, by POST."),
    key("certificates.hooks[].plugin", &[Text], Absent, "A plugin of the world events."),
    key("certificates.policy", &[Text], Absent,
        "A plugin that says which names of sites may have a certificate, by which issuer and profile."),
    key("certificates.on-demand", &[Map], Absent,
        "Certificates ordered at the first handshake, for sites that say so."),
    key("certificates.on-demand.ask", &[Text], Absent,
        "Asked with ?domain=NAME before each order: 2xx allows it. This or policy has to be there."),
    key("certificates.on-demand.policy", &[Text], Absent,
        "A plugin that says which names may have a certificate, by which issuer and profile."),
    key("certificates.on-demand.per-minute", &[Int(1, 100_000)], Is("10"),
        "First orders in a minute, at most."),
    key("certificates.on-demand.per-domain", &[Int(1, 100_000)], Is("40"),
        "First orders for names of one registered domain in seven days, at most."),
    key("certificates.on-demand.wait", &[Duration], Is("15s"),
        "How long a handshake waits for its certificate."),
    key("certificates.on-demand.remember", &[Duration], Is("10m"),
        "How long a name that is not allowed is not asked for again."),
    key("certificates.resolvers", &[Texts], Is("[]"),
        "DNS servers to ask for zones and propagation, also tls://ADDRESS#NAME and \
         https://ADDRESS/PATH#NAME; those of the system if empty."),
    key("certificates.resolver-roots", &[Text], Absent,
        "A PEM file with the roots to trust those by that speak TLS, instead of the system's."),
    key("certificates.updates", &[Map], Absent,
        "DNS servers that take updates (RFC 2136), by name; challenges name them as plugins."),
    key("certificates.updates.*", &[Map], Absent, "A DNS server that takes updates."),
    key("certificates.updates.*.server", &[Text], Required,
        "Its host, and its port if that is not 53."),
    key("certificates.updates.*.key", &[Text], Absent,
        "The name of the TSIG key; without one the server has to go by addresses."),
    key("certificates.updates.*.algorithm",
        &[Word(&["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"])], Is("hmac-sha256"),
        "How the key signs."),
    key("certificates.updates.*.secret", &[Text, Map], Absent,
        "The TSIG key in Base64: a place to read it from."),
    key("certificates.updates.*.secret.env", &[Text], Absent, "An environment variable."),
    key("certificates.updates.*.secret.file", &[Text], Absent, "A file."),
    key("certificates.updates.*.secret.credential", &[Text], Absent, "A systemd credential."),
    key("certificates.updates.*.zones", &[Texts], Is("[]"),
        "The zones to change there; the server is asked for them if empty."),
    key("certificates.propagation", &[Map], Absent, "How to wait for DNS-01 records."),
    key("certificates.propagation.check", &[Bool], Is("true"),
        "Ask every authoritative server before telling the CA."),
    key("certificates.propagation.delay", &[Duration], Is("0s"),
        "A fixed wait before the first check."),
    key("certificates.propagation.timeout", &[Duration], Is("5m"),
        "How long to check before the attempt counts as failed."),
    key("certificates.propagation.port", &[Int(1, 65_535)], Is("53"),
        "The port of authoritative servers (for tests and split setups)."),
    // Sites.
    key("sites", &[List], Required, "What is served, by host name."),
    key("sites[].hosts", &[Texts], Required,
        "The names it answers for; *.example.com takes every name one label below."),
    key("sites[].passthrough", &[Text], Absent,
        "An upstream of tcp:// servers that gets connections unopened, by server name; nothing else."),
    key("sites[].certificate", &[Word(&["auto", "files", "local"]), Map], Is("auto"),
        "Where the certificate comes from: auto, files, local, or what differs from certificates."),
    key("sites[].certificate.challenge", &[Like("certificates.challenge")], Absent,
        "How control of these names is proved; certificates.challenge if absent."),
    key("sites[].certificate.on-demand", &[Bool], Is("false"),
        "Whether a name gets its certificate at its first handshake, see certificates.on-demand."),
    key("sites[].certificate.issuers", &[Like("certificates.issuers")], Absent,
        "CAs for these names; certificates.issuers if absent."),
    key("sites[].client-certificates", &[Map], Absent,
        "Mutual TLS: clients are asked for a certificate; none are if absent."),
    key("sites[].client-certificates.mode", &[Word(&["require", "request"])], Is("require"),
        "require: no handshake without one; request: a client may have none."),
    key("sites[].client-certificates.roots", &[Texts], Required,
        "PEM files of the CAs that sign them."),
    key("sites[].client-certificates.revoked", &[Texts], Is("[]"),
        "PEM files of revocation lists (CRL) of these CAs."),
    key("sites[].client-certificates.forward", &[Word(&["off", "leaf", "chain"])], Is("off"),
        "What upstreams learn: leaf in client-cert, chain also in client-cert-chain (RFC 9440)."),
    key("sites[].router", &[Text, Map], Absent,
        "The plugin that picks the upstream; routes come after it."),
    key("sites[].router.plugin", &[Text], Required, "The name under plugins."),
    key("sites[].router.config", &[Any], Absent,
        "Configuration for this use; the plugin's own if absent."),
    key("sites[].filters", &[List], Is("[]"),
        "Filter plugins, in the order in which requests meet them."),
    key("sites[].filters[]", &[Text, Like("sites[].router")], Absent,
        "A name under plugins, or {plugin: NAME, config: …} for this use alone."),
    key("sites[].paths", &[Word(&["safe", "strict", "any"])], Is("safe"),
        "Which paths are taken: safe refuses dot segments, strict also encoded slashes and the like."),
    key("sites[].addresses", &[Map, Word(&["off"])], Absent, "Who may come; everybody if absent."),
    key("sites[].addresses.allow", &[Texts], Is("[]"), "Networks that may come; all if empty."),
    key("sites[].addresses.deny", &[Texts], Is("[]"), "Networks that may not come."),
    key("sites[].rate-limits", &[List, Word(&["off"])], Absent,
        "How often requests may come; too many are answered 429."),
    key("sites[].rate-limits[].requests", &[Int(1, 1_000_000)], Required,
        "How many requests in the time of per."),
    key("sites[].rate-limits[].per", &[Duration], Is("1s"), "The time that requests is about."),
    key("sites[].rate-limits[].burst", &[Int(1, 1_000_000)], Absent,
        "How many may come at once; requests if absent."),
    key("sites[].rate-limits[].header", &[Text], Absent,
        "Count by the value of this field; by the client's address if absent."),
    key("sites[].cors", &[Map, Word(&["off"])], Absent,
        "Which other sites' pages may read responses; the application decides if absent."),
    key("sites[].cors.origins", &[Texts], Required,
        "Origins such as https://app.example.com or https://*.example.com, or *."),
    key("sites[].cors.methods", &[Texts], Is("[GET, HEAD, POST]"), "Methods they may use."),
    key("sites[].cors.headers", &[Texts], Is("[]"),
        "Request fields that their scripts may set; * takes any."),
    key("sites[].cors.expose", &[Texts], Is("[]"), "Response fields that their scripts may read."),
    key("sites[].cors.credentials", &[Bool], Is("false"),
        "Whether cookies and credentials may come along."),
    key("sites[].cors.max-age", &[Duration], Is("10m"),
        "How long browsers may remember the answer to a preflight."),
    key("sites[].basic-auth", &[Map, Word(&["off"])], Absent, "Ask for a name and a password."),
    key("sites[].basic-auth.realm", &[Text], Is("restricted"), "What browsers show."),
    key("sites[].basic-auth.users", &[TextMap], Absent,
        "Names and hashes of passwords: argon2id or bcrypt."),
    key("sites[].basic-auth.file", &[Text], Absent,
        "A file with a name:hash on each line, as htpasswd -B writes it."),
    key("sites[].basic-auth.user-field", &[Text], Absent,
        "The field in which the upstream learns the user's name."),
    key("sites[].request-head", &[Size, Word(&["off"])], Absent,
        "The largest request head here; never more than limits.request-head-size."),
    key("sites[].request-body", &[Size, Word(&["off"])], Absent,
        "The largest request body; limits.request-body if absent."),
    key("sites[].buffer-request", &[Size, Word(&["off"])], Absent,
        "How much of a request's body is read before a server is asked; nothing if absent."),
    key("sites[].forward-auth", &[Map, Word(&["off"])], Absent,
        "Ask an upstream whether a request may go on: 2xx is yes, all else is the answer."),
    key("sites[].forward-auth.upstream", &[Text], Required,
        "A name under upstreams, or a server's URL."),
    key("sites[].forward-auth.path", &[Text], Is("/"), "The path to ask for."),
    key("sites[].forward-auth.copy", &[Texts], Is("[]"),
        "Fields of the answer that go on with the request, such as remote-user."),
    key("sites[].forward-auth.timeout", &[Duration], Is("5s"), "How long the answer may take."),
    key("sites[].mirror", &[Map, Word(&["off"])], Absent,
        "Copies of requests go to another upstream, whose answers are dropped."),
    key("sites[].mirror.upstream", &[Text], Required, "A name under upstreams, or a server's URL."),
    key("sites[].mirror.share", &[Int(1, 100)], Is("100"), "How many of them, in percent."),
    key("sites[].mirror.request-body", &[Size], Is("64KiB"),
        "Requests with a longer body are not copied."),
    key("sites[].security", &[Word(&["basic", "strict", "off"])], Absent,
        "Fields that make browsers careful, where the application says nothing of its own."),
    key("sites[].error-pages", &[TextMap, Word(&["off"])], Absent,
        "Files for the gateway's own errors, by status (404) or class (5xx)."),
    key("sites[].compress", &[Map, Bool, Word(&["off"])], Absent,
        "Compress responses; true for all defaults."),
    key("sites[].compress.encodings", &[Texts], Is("[zstd, br, gzip]"),
        "What clients may have, best first; they have the choice."),
    key("sites[].compress.types", &[Texts],
        Is("[text/*, \"*/*json\", \"*/*xml\", \"*/*javascript\", application/wasm, \
            font/ttf, font/otf]"),
        "Media types that are compressed."),
    key("sites[].compress.min-size", &[Size], Is("1KiB"), "Shorter responses are left alone."),
    key("sites[].upstream", &[Text], Absent,
        "Short for a single route that takes everything: a name under upstreams, or a URL."),
    key("sites[].routes", &[List], Absent, "Where requests go; the longest path wins."),
    key("sites[].routes[].path", &[Text], Is("/"), "Takes this path and everything below it."),
    key("sites[].routes[].exact", &[Text], Absent, "Takes this path alone."),
    key("sites[].routes[].methods", &[Texts], Is("[]"), "Takes these methods; all if empty."),
    key("sites[].routes[].headers", &[TextMap, Texts], Is("{}"),
        "Fields that a request must have, with their values; a list asks for presence only."),
    key("sites[].routes[].query", &[TextMap, Texts], Is("{}"),
        "Query parameters that a request must have; a list asks for presence only."),
    key("sites[].routes[].when", &[Map], Absent,
        "What has to hold besides: all of it. Patterns are regular expressions for the whole value."),
    key("sites[].routes[].when.methods", &[Texts], Absent, "Methods; all if empty."),
    key("sites[].routes[].when.path", &[Text], Absent, "A pattern for the path, decoded."),
    key("sites[].routes[].when.headers", &[TextMap], Absent, "Fields and patterns of a value."),
    key("sites[].routes[].when.query", &[TextMap], Absent,
        "Query parameters and patterns of a value, as sent."),
    key("sites[].routes[].when.addresses", &[Texts], Absent,
        "Networks of the client; any if empty."),
    key("sites[].routes[].when.server-name", &[Text], Absent,
        "A pattern for the server name of the handshake."),
    key("sites[].routes[].when.tls-version", &[Word(&["TLSv1.2", "TLSv1.3"])], Absent,
        "The TLS version."),
    key("sites[].routes[].when.client-certificate", &[Bool], Absent,
        "Whether the client showed a certificate."),
    key("sites[].routes[].any", &[List], Is("[]"), "One of these has to hold, if there are any."),
    key("sites[].routes[].any[]", &[Like("sites[].routes[].when")], Absent, "As when."),
    key("sites[].routes[].not", &[List], Is("[]"), "None of these may hold."),
    key("sites[].routes[].not[]", &[Like("sites[].routes[].when")], Absent, "As when."),
    key("sites[].routes[].filters", &[Like("sites[].filters")], Is("[]"),
        "Filters of this route, after those of the site."),
    key("sites[].routes[].addresses", &[Like("sites[].addresses")], Absent,
        "In the place of the site's."),
    key("sites[].routes[].rate-limits", &[Like("sites[].rate-limits")], Absent,
        "In the place of the site's."),
    key("sites[].routes[].cors", &[Like("sites[].cors")], Absent, "In the place of the site's."),
    key("sites[].routes[].basic-auth", &[Like("sites[].basic-auth")], Absent,
        "In the place of the site's."),
    key("sites[].routes[].request-head", &[Like("sites[].request-head")], Absent,
        "As that of the site, and in its place."),
    key("sites[].routes[].request-body", &[Like("sites[].request-body")], Absent,
        "In the place of the site's."),
    key("sites[].routes[].buffer-request", &[Like("sites[].buffer-request")], Absent,
        "In the place of the site's."),
    key("sites[].routes[].forward-auth", &[Like("sites[].forward-auth")], Absent,
        "In the place of the site's."),
    key("sites[].routes[].mirror", &[Like("sites[].mirror")], Absent, "In the place of the site's."),
    key("sites[].routes[].security", &[Like("sites[].security")], Absent,
        "In the place of the site's."),
    key("sites[].routes[].error-pages", &[Like("sites[].error-pages")], Absent,
        "In the place of the site's."),
    key("sites[].routes[].compress", &[Like("sites[].compress")], Absent,
        "In the place of the site's."),
    key("sites[].routes[].strip-prefix", &[Text], Absent,
        "Taken off the path; the upstream learns it as x-forwarded-prefix."),
    key("sites[].routes[].add-prefix", &[Text], Absent,
        "Put before the path, after strip-prefix."),
    key("sites[].routes[].upstream", &[Text], Absent, "A name under upstreams, or a server's URL."),
    key("sites[].routes[].split", &[Map], Absent,
        "Several upstreams in the place of one, with the share of requests that each gets."),
    key("sites[].routes[].split.*", &[Int(0, 1_000_000)], Absent,
        "Its share, relative to the others."),
    key("sites[].routes[].split-by", &[Word(&["chance", "address"]), Map], Is("chance"),
        "What decides: chance for each request, the client's address, or one of the keys below."),
    key("sites[].routes[].split-by.cookie", &[Text], Absent,
        "The same side for the same value of this cookie; the address where there is none."),
    key("sites[].routes[].split-by.header", &[Text], Absent,
        "The same side for the same value of this field; the address where there is none."),
    key("sites[].routes[].split-by.sticky", &[Text], Absent,
        "A cookie of this name that the gateway sets: chance decides once for each client."),
    key("sites[].routes[].split-by.max-age", &[Duration], Absent,
        "How long browsers keep that cookie; until they are closed if absent."),
    key("sites[].routes[].redirect", &[Map], Absent, "Send the client elsewhere."),
    key("sites[].routes[].redirect.status", &[Int(301, 308)], Is("308"),
        "301, 302, 303, 307 or 308."),
    key("sites[].routes[].redirect.to", &[Text], Required,
        "A URL or path; {host}, {path} and {query} stand for those of the request."),
    key("sites[].routes[].respond", &[Map], Absent, "A fixed response."),
    key("sites[].routes[].respond.status", &[Int(200, 599)], Is("200"), "The status code."),
    key("sites[].routes[].respond.body", &[Text], Is("\"\""), "The body."),
    key("sites[].routes[].respond.content-type", &[Text], Is("text/plain; charset=utf-8"),
        "The media type of the body."),
    key("sites[].routes[].files", &[Text, Map], Absent, "Files of a folder."),
    key("sites[].routes[].files.root", &[Text], Required, "The folder."),
    key("sites[].routes[].files.index", &[Text, Word(&["off"])], Is("index.html"),
        "The file that stands for a folder, or off."),
    key("sites[].routes[].files.fallback", &[Text], Absent,
        "The file for paths without one, for applications that route in the browser; else 404."),
    key("sites[].routes[].files.precompressed", &[Texts], Is("[]"),
        "Codings that may lie beside files: zstd (.zst), br (.br), gzip (.gz)."),
    key("sites[].routes[].files.symlinks", &[Word(&["refuse", "within"])], Is("refuse"),
        "refuse: as if they were not there; within: followed where they stay below root."),
    key("sites[].routes[].files.hidden", &[Bool], Is("false"),
        "Serve names that start with a dot; .well-known always is."),
    key("sites[].routes[].files.cache-control", &[Text], Absent,
        "The value of cache-control, such as public, max-age=3600."),
    // Upstreams.
    key("upstreams", &[Map], Absent, "Application servers, by name."),
    key("upstreams.*", &[Text, Map], Absent,
        "A server (http, https, h2c, tcp, unix:/path, builtin:echo), or several with settings."),
    key("upstreams.*.servers", &[List], Required, "The servers, at least one."),
    key("upstreams.*.servers[]", &[Text, Map], Absent,
        "A server's URL, or its URL and its weight."),
    key("upstreams.*.servers[].url", &[Text], Required, "The server."),
    key("upstreams.*.servers[].weight", &[Int(1, 1_000)], Is("1"),
        "Its share of the requests, relative to the other servers."),
    key("upstreams.*.balance",
        &[Word(&["p2c", "round-robin", "least-connections"]), Map], Is("p2c"),
        "How a server is chosen: p2c, round-robin, least-connections, or {hash: …}."),
    key("upstreams.*.balance.hash", &[Word(&["address"]), Map], Required,
        "The same server for the same client: its address, or {cookie: NAME} or {header: NAME}."),
    key("upstreams.*.balance.hash.cookie", &[Text], Absent,
        "The cookie whose value decides; the address where it is absent."),
    key("upstreams.*.balance.hash.header", &[Text], Absent,
        "The header field whose value decides; the address where it is absent."),
    key("upstreams.*.sticky", &[Map], Absent,
        "A cookie keeps a client at its server as long as that serves; none if absent."),
    key("upstreams.*.sticky.cookie", &[Text], Is("witgate"), "The cookie's name."),
    key("upstreams.*.sticky.max-age", &[Duration], Absent,
        "How long browsers keep it; until they are closed if absent."),
    key("upstreams.*.slow-start", &[Duration], Is("0s"),
        "The time in which a server that is new or back comes from a tenth of its share to all of it."),
    key("upstreams.*.eject", &[Map, Word(&["off"])], Absent,
        "Servers that fail again and again are left out for a while; off never leaves one out."),
    key("upstreams.*.eject.after", &[Int(1, 1_000)], Is("5"),
        "Failures in a row: no connection, no response, or a 5xx."),
    key("upstreams.*.eject.time", &[Duration], Is("10s"),
        "How long a server is left out the first time; each further time doubles it."),
    key("upstreams.*.eject.time-max", &[Duration], Is("5m"), "The longest time."),
    key("upstreams.*.eject.share-max", &[Int(0, 100)], Is("50"),
        "The most servers that may be left out, in percent."),
    key("upstreams.*.circuit", &[Map], Absent, "Bounds for what is under way at the servers."),
    key("upstreams.*.circuit.requests", &[Int(1, 1_000_000), Word(&["off"])], Is("off"),
        "The most requests under way at one server; over HTTP/1.1 each has a connection."),
    key("upstreams.*.circuit.pending", &[Int(0, 1_000_000)], Is("0"),
        "The most requests that wait for a place, at most for timeouts.connect; others get 503."),
    key("upstreams.*.resolve", &[Map, Word(&["off"])], Absent,
        "Names of servers are looked up again while they serve; off does so at each connection."),
    key("upstreams.*.resolve.every", &[Duration], Is("30s"),
        "The longest time between two look-ups."),
    key("upstreams.*.resolve.servers", &[Texts], Is("[]"),
        "DNS servers to ask, whose times to live count; the system's resolver if empty."),
    key("upstreams.*.retries", &[Map], Absent, "When a request is sent to another server."),
    key("upstreams.*.retries.attempts", &[Int(0, 10)], Is("2"),
        "The most attempts after the first; 0 never tries again."),
    key("upstreams.*.retries.budget", &[Int(0, 100)], Is("20"),
        "The most attempts of requests that were sent, in percent of all requests."),
    key("upstreams.*.retries.statuses", &[Texts], Is("[]"),
        "Statuses of servers that are worth another attempt, such as [502, 503]."),
    key("upstreams.*.retries.try-timeout", &[Duration, Word(&["off"])], Is("off"),
        "How long to wait for a response while another attempt may follow."),
    key("upstreams.*.health", &[Map], Absent, "Active health checks; none if absent."),
    key("upstreams.*.health.check", &[Word(&["http", "tcp", "grpc"])], Is("http"),
        "What is asked: a path, a connection alone, or gRPC's health service."),
    key("upstreams.*.health.path", &[Text], Absent, "The path to ask for with check: http."),
    key("upstreams.*.health.service", &[Text], Is("\"\""),
        "The service to ask about with check: grpc; the whole server if empty."),
    key("upstreams.*.health.interval", &[Duration], Is("10s"), "The time between two checks."),
    key("upstreams.*.health.timeout", &[Duration], Is("5s"), "How long one check may take."),
    key("upstreams.*.health.unhealthy-after", &[Int(1, 1_000)], Is("3"),
        "Failures in a row that take a server out."),
    key("upstreams.*.health.healthy-after", &[Int(1, 1_000)], Is("2"),
        "Successes in a row that bring it back."),
    key("upstreams.*.timeouts", &[Map], Absent, "Waits for these servers."),
    key("upstreams.*.timeouts.connect", &[Duration], Is("5s"), "To connect, TLS included."),
    key("upstreams.*.timeouts.response", &[Duration], Is("60s"),
        "From the end of the request to the head of the response."),
    key("upstreams.*.timeouts.idle", &[Duration], Is("300s"),
        "Between two pieces of a response's body; not for WebSockets."),
    key("upstreams.*.timeouts.stream-idle", &[Duration], Is("1h"),
        "How long both sides of a stream that goes both ways may be silent, such as one of gRPC."),
    key("upstreams.*.timeouts.keepalive", &[Duration], Is("60s"),
        "How long an unused connection is kept."),
    key("upstreams.*.roots", &[Text], Absent,
        "A PEM file of roots to trust for https:// servers, instead of the system's."),
    key("upstreams.*.server-name", &[Text], Absent,
        "The name to ask for and to check in TLS; the server's own if absent."),
    key("upstreams.*.client-certificate", &[Map], Absent,
        "Shown to https:// servers that ask for one; none if absent."),
    key("upstreams.*.client-certificate.certificate", &[Text], Required,
        "The chain in PEM, leaf first."),
    key("upstreams.*.client-certificate.key", &[Text], Required, "The private key in PEM."),
    key("upstreams.*.preserve-host", &[Bool], Is("true"),
        "Whether the servers see the client's Host (true) or their own."),
    // Plugins.
    key("upstreams.*.proxy-protocol", &[Word(&["off", "v1", "v2"])], Is("off"),
        "The PROXY header that tells servers of the client; connections are then its own."),
    key("plugins", &[Map], Absent, "WebAssembly components, by name."),
    key("plugins.*", &[Map], Absent, "A component and what it may do."),
    key("plugins.*.component", &[Text], Required,
        "The component file; replaced while running when it changes."),
    key("plugins.*.config", &[Any], Absent, "Handed to the plugin as it stands here."),
    key("plugins.*.on-error", &[Word(&["fail-closed", "fail-open"]), Map], Is("fail-closed"),
        "When the plugin fails: fail-closed answers 500, fail-open goes on without it, or respond."),
    key("plugins.*.on-error.respond", &[Like("sites[].routes[].respond")], Required,
        "What requests get when the plugin fails."),
    key("plugins.*.isolation", &[Word(&["worker", "request"])], Is("worker"),
        "An instance for each worker, kept between calls; or a fresh one for each call."),
    key("plugins.*.recycle", &[Int(1, u32::MAX as u64), Word(&["never"])], Is("never"),
        "How many calls an instance serves before a fresh one takes over."),
    key("plugins.*.shadow", &[Text], Absent,
        "A version of the component that sees what this one sees, and whose effects are muted."),
    key("plugins.*.canary", &[Text, Map], Absent,
        "A new version gets this share of the requests first, and is taken back if it does worse."),
    key("plugins.*.canary.share", &[Text], Is("5%"), "Of the requests, such as 5% or 0.5%."),
    key("plugins.*.canary.time", &[Duration], Is("5m"), "How long it has to do well."),
    key("plugins.*.canary.calls", &[Int(1, u32::MAX as u64)], Is("100"),
        "How many calls it has to have had by then."),
    key("plugins.*.canary.failures", &[Int(0, u32::MAX as u64)], Is("0"),
        "How many of its calls may fail; the version in use then serves those requests."),
    key("plugins.*.limits", &[Map], Absent, "Bounds of each call and instance."),
    key("plugins.*.limits.deadline", &[Duration], Is("20ms"),
        "Time of one call into a router or filter."),
    key("plugins.*.limits.solver-deadline", &[Duration], Is("60s"),
        "Time of one call into a solver, its outgoing requests included."),
    key("plugins.*.limits.memory", &[Size], Is("64MiB"), "Memory of one instance."),
    key("plugins.*.limits.output", &[Size], Is("1MiB"),
        "What one call may hand over: edits, response, log."),
    key("plugins.*.limits.body-growth", &[Size], Is("16MiB"),
        "How much longer a body may become that the plugin transforms."),
    key("plugins.*.limits.state", &[Size], Is("1MiB"), "The plugin's key-value state."),
    key("plugins.*.limits.requests", &[Int(0, 10_000)], Is("32"), "Outgoing requests of one call."),
    key("plugins.*.limits.log-lines", &[Int(0, 1_000_000)], Is("100"), "Log lines per second."),
    key("plugins.*.zones", &[Texts], Is("[]"),
        "DNS zones that a solver may write in, also at the end of a CNAME; all of its account if \
         empty."),
    key("plugins.*.secrets", &[Map], Absent,
        "Secrets by the name that the plugin's placeholders use. It never sees the values."),
    key("plugins.*.secrets.*", &[Text, Map], Absent,
        "Where one secret comes from and where it may go."),
    key("plugins.*.secrets.*.env", &[Text], Absent, "An environment variable of the gateway."),
    key("plugins.*.secrets.*.file", &[Text], Absent, "A file; a final newline is dropped."),
    key("plugins.*.secrets.*.credential", &[Text], Absent,
        "A systemd credential (LoadCredential=)."),
    key("plugins.*.secrets.*.hosts", &[Texts], Is("[]"),
        "The only hosts it may be sent to; all that grants.http names if empty."),
    key("plugins.*.grants", &[Map], Absent,
        "What the plugin may do beyond computing. Nothing if absent."),
    key("plugins.*.grants.http", &[Texts], Is("[]"),
        "Requests it may send: [METHOD,… ]https://host/path, where * at the end takes any rest."),
    key("plugins.*.grants.hmac", &[Texts], Is("[]"),
        "Secrets that it may have data signed and checked with (HMAC), by name."),
    key("plugins.*.grants.request", &[Map], Absent, "What it may do with heads of requests."),
    key("plugins.*.grants.request.read", &[Texts], Is("[\"*\"]"),
        "Fields it may read; * is every field but cookie, authorization and proxy-authorization."),
    key("plugins.*.grants.request.set", &[Texts], Is("[\"*\"]"),
        "Fields it may set, append and remove, and :method, :path, :authority; * as for read."),
    key("plugins.*.grants.request.body", &[Word(&["none", "read", "transform"])], Is("none"),
        "What it may do with bodies of requests as they pass: none, read or transform."),
    key("plugins.*.grants.response", &[Map], Absent, "What it may do with heads of responses."),
    key("plugins.*.grants.response.read", &[Texts], Is("[\"*\"]"),
        "Fields it may read; * is every field but set-cookie."),
    key("plugins.*.grants.response.set", &[Texts], Is("[\"*\"]"),
        "Fields it may set, append and remove, and :status; * is all of that but set-cookie."),
    key("plugins.*.grants.response.body", &[Word(&["none", "read", "transform"])], Is("none"),
        "What it may do with bodies of responses as they pass: none, read or transform."),
    key("plugin-keys", &[Texts], Is("[]"),
        "Ed25519 public keys (Base64); with any, each component must be signed by one of them."),
    key("client-hello", &[Text, Like("sites[].router")], Absent,
        "A plugin that sees each ClientHello first: passes it through, lets it go on, or refuses it."),
    key("unguarded-solvers", &[Word(&["warn", "refuse"])], Is("warn"),
        "What becomes of a solver whose plugin.yaml has no guard."),
    // Operation.
    key("log", &[Map], Absent, "What is logged."),
    key("log.level", &[Text], Is("info"),
        "error, warn, info, debug or trace; or a filter such as info,witgate::acme=debug."),
    key("log.access", &[Word(&["json", "text", "off"])], Is("json"),
        "One line per exchange: json, text or off."),
    key("log.sinks", &[Texts], Is("[]"),
        "Plugins that get each exchange that has ended, in batches."),
    key("log.otlp", &[Text, Map], Absent,
        "Where spans of exchanges and hooks are sent, as OTLP over HTTP; short form of endpoint."),
    key("log.otlp.endpoint", &[Text], Required,
        "The collector's URL; without a path, /v1/traces is meant."),
    key("log.otlp.headers", &[Map], Absent, "Fields that the collector asks for."),
    key("log.otlp.headers.*", &[Text, Map], Absent, "A value: a place to read it from."),
    key("log.otlp.headers.*.env", &[Text], Absent, "An environment variable."),
    key("log.otlp.headers.*.file", &[Text], Absent, "A file."),
    key("log.otlp.headers.*.credential", &[Text], Absent, "A systemd credential."),
    key("log.otlp.share", &[Text], Is("100%"),
        "Of the traces that begin here; one that a client began says itself whether it is taken."),
    key("log.otlp.service", &[Text], Is("witgate"), "What the collector calls the gateway."),
    key("log.format", &[Word(&["text", "json"])], Is("text"),
        "The format of all other lines: text or json."),
    key("store", &[Text, Map], Is("./state"),
        "The folder of accounts, keys, certificates and compiled plugins."),
    key("store.path", &[Text], Is("./state"), "The folder."),
    key("store.shared", &[Bool], Is("false"),
        "Whether other gateways have the same folder open: they share certificates and orders."),
    key("store.seal", &[Text, Map], Absent,
        "The passphrase that private keys in the store are sealed with."),
    key("store.seal.env", &[Text], Absent, "An environment variable."),
    key("store.seal.file", &[Text], Absent, "A file."),
    key("store.seal.credential", &[Text], Absent, "A systemd credential."),
    key("workers", &[Word(&["auto"]), Int(1, 4_096)], Is("auto"),
        "How many threads serve; auto is one per core that the process may run on."),
    key("limits", &[Map], Absent, "Waits and sizes that bound every exchange."),
    key("limits.handshake", &[Duration], Is("10s"), "From accept to the end of the TLS handshake."),
    key("limits.request-head", &[Duration], Is("15s"),
        "From the first byte of a request to the end of its head."),
    key("limits.request-body-idle", &[Duration], Is("30s"),
        "Between two pieces of a request's body."),
    key("limits.response-idle", &[Duration], Is("30s"),
        "How long a client may take no byte of a response that is there."),
    key("limits.keepalive", &[Duration], Is("75s"),
        "How long a connection may be without a request."),
    key("limits.drain", &[Duration], Is("30s"), "How long open exchanges may go on after SIGTERM."),
    key("limits.request-head-size", &[Size], Is("32KiB"), "The largest request head."),
    key("limits.request-fields", &[Int(1, 10_000)], Is("100"), "The most fields of a request."),
    key("limits.request-body", &[Size, Word(&["off"])], Is("off"),
        "The largest request body; off means no limit."),
    key("limits.request-body-rate", &[Size, Word(&["off"])], Is("256"),
        "The slowest that a request's body may come, in bytes per second."),
    key("limits.response-rate", &[Size, Word(&["off"])], Is("256"),
        "The slowest that a response may be taken, in bytes per second."),
    key("limits.rate-grace", &[Duration], Is("10s"),
        "How long a client may be slower than that."),
    key("limits.buffers", &[Size, Word(&["off"])], Is("256MiB"),
        "What may wait in memory for slow sides; beyond it new requests are answered 503."),
    key("limits.connections", &[Int(1, ANY)], Is("100000"),
        "The most open connections of the whole gateway."),
    key("limits.connections-per-address", &[Int(1, 4_000_000_000), Word(&["off"])], Is("10000"),
        "The most open connections of one address, or IPv6 /64; trusted proxies may have any."),
    key("limits.streams", &[Int(1, 100_000)], Is("128"),
        "The most open requests of one HTTP/2 or HTTP/3 connection."),
    key("trusted-proxies", &[Texts], Is("[]"),
        "Networks whose x-forwarded-for and forwarded are believed; nobody's if empty."),
    key("admin", &[Text, Word(&["off"])], Absent,
        "The local control socket, or off; admin.sock in the store if absent."),
];

const fn key(
    path: &'static str,
    forms: &'static [Form],
    default: Default,
    doc: &'static str,
) -> Key {
    Key { path, forms, default, doc }
}
