//! The room as a whole: golden files, the documented gateway.yaml, hostile input.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::keys::{self, Default as KeyDefault};
use super::node::{self, Node, Value};
use super::*;

/// Components below `house/` are those of `plugins/`, with their own words; others have none.
fn read(text: &str) -> Result<Loaded, Report> {
    let (file, base) = (Path::new("gateway.yaml"), Path::new("/etc/witgate"));
    parse_with(text, file, base, &|component| {
        let Ok(name) = component.strip_prefix("/etc/witgate/house") else { return Ok(None) };
        let file = repository("plugins").join(name.with_extension("")).join("plugin.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        Manifest::parse(&text, &file).map(|(manifest, _)| Some(manifest))
    })
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// What a golden file holds below its separator.
fn outcome(text: &str) -> String {
    match read(text) {
        Err(report) => format!("{report}\n"),
        Ok(loaded) => {
            let mut out = String::new();
            for warning in &loaded.warnings {
                writeln!(out, "{warning}\n").unwrap();
            }
            out + &normal_form(&loaded.config)
        }
    }
}

/// `tests/golden/config/*.yaml`: a file, a separator, and what `witgate check --full` says about
/// it. `UPDATE_GOLDEN=1` writes what it says now; read the difference before committing it.
#[test]
fn golden_files_hold() {
    let separator = "==== expected ====\n";
    let folder = repository("tests/golden/config");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut bad, mut good, mut wrong) = (0, 0, Vec::new());
    for path in files {
        let whole = std::fs::read_to_string(&path).unwrap();
        let (input, expected) = whole.split_once(separator).unwrap_or((&whole, ""));
        let found = outcome(input);
        match found.contains(": error: ") {
            true => bad += 1,
            false => good += 1,
        }
        if found == expected {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, format!("{input}{separator}{found}")).unwrap();
        } else {
            let name = path.file_name().unwrap().display();
            wrong.push(format!("== {name}: expected\n{expected}\n== found\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(bad >= 40 && good >= 10, "{bad} bad and {good} good golden files");
}

/// Section 1 of the design, as written there.
const DESIGN: &str = r#"
listen:
  - https://0.0.0.0:443              # h1, h2 (and h3 on the same UDP port)
  - http://0.0.0.0:80                # HTTP-01 answers, else redirect to https

certificates:
  contact: ops@example.com
  issuers: [letsencrypt]             # or {directory: URL, eab: {kid: …, key: …}, roots: file, profile: …}; tried in order
  challenge: auto                    # auto | http-01 | tls-alpn-01 | {dns-01: cloudflare}
  files: []                          # [{certificate: chain.pem, key: key.pem}], chosen by the names in them

sites:
  - hosts: [app.example.com]
    filters: [headers]               # plugins, in order; or {plugin: headers, config: {…}} for this use alone
    routes:
      - path: /api/                  # longest prefix wins; also exact:, methods:, headers:, query:
        upstream: api
      - upstream: web
  - hosts: ["*.tenants.example.com"]
    certificate: {challenge: {dns-01: cloudflare}}
    router: tenants                  # a plugin picks the upstream

upstreams:
  api: http://127.0.0.1:8000         # short form; also https://, h2c://, unix:/path
  web: {servers: [http://127.0.0.1:9000, http://127.0.0.1:9001], balance: p2c, health: {path: /healthz}}

plugins:
  headers: {component: plugins/headers.wasm, config: {response: {set: {strict-transport-security: max-age=63072000}}}}
  tenants: {component: ./tenants.wasm, on-error: fail-closed, limits: {deadline: 20ms, memory: 16MiB}}
  cloudflare:
    component: plugins/dns-cloudflare.wasm
    secrets: {token: {env: CLOUDFLARE_DNS_API_TOKEN}}       # or {file: …}, {credential: NAME} (systemd)
    grants: {http: [https://api.cloudflare.com/client/v4/zones*]}

log: {level: info, access: json}     # access: json | text | off
store: ./state                       # accounts, keys, certificates, compiled plugins
workers: auto                        # one per core it may run on
"#;

#[test]
fn the_design_loads_as_written() {
    let loaded = read(DESIGN).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert_eq!(config.sites.len(), 2);
    assert_eq!(config.sites[0].routes[0].path, PathMatch::Prefix("/api/".into()));
    let SiteCertificate::Issued { challenge, issuers, .. } = &config.sites[1].certificate else {
        panic!("{:?}", config.sites[1].certificate);
    };
    assert_eq!(*challenge, Challenge::Dns01("cloudflare".into()));
    assert_eq!(issuers, &config.certificates.issuers);
    assert_eq!(config.plugins["tenants"].limits.memory_bytes_max, 16 << 20);
    assert_eq!(config.plugins["headers"].component, Path::new("/etc/witgate/plugins/headers.wasm"));
    assert_eq!(config.sites[0].filters[0].config, config.plugins["headers"].config);
    assert_eq!(config.plugins["cloudflare"].grants.http[0].path, "/client/v4/zones*");
    assert_eq!(config.store, Path::new("/etc/witgate/state"));
}

#[test]
fn one_line_is_a_configuration() {
    let text = "sites: [{hosts: [app.example.com], upstream: http://127.0.0.1:8000}]";
    let config = read(text).unwrap_or_else(|report| panic!("{report}")).config;
    assert_eq!(config.listen.len(), 2);
    let [(name, upstream)] = config.upstreams.iter().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(config.sites[0].routes[0].action, RouteAction::Upstream(name.clone()));
    let authority = Authority { host: "127.0.0.1".into(), port: 8000 };
    assert_eq!(upstream.servers, [Server::Http(authority)]);
    assert_eq!(config.certificates.issuers.len(), 1);
}

#[test]
fn private_names_get_the_local_ca() {
    let text = "sites: [{hosts: [app.example.com, localhost], upstream: builtin:echo}]";
    let config = read(text).unwrap_or_else(|report| panic!("{report}")).config;
    assert_eq!(config.sites.len(), 2);
    let issuers = |site: &Site| match &site.certificate {
        SiteCertificate::Issued { issuers, .. } => issuers.clone(),
        SiteCertificate::Files => panic!(),
    };
    assert_eq!(issuers(&config.sites[0]), config.certificates.issuers);
    assert_eq!(issuers(&config.sites[1]), [Issuer::Local]);
    let custom =
        "certificates: {issuers: [letsencrypt, {directory: \"https://ca.internal/dir\"}]}\n";
    // A CA of one's own signs the names of one's network, but not this machine's.
    let config = read(&format!("{custom}{text}")).unwrap().config;
    assert_eq!(issuers(&config.sites[1]), [Issuer::Local]);
    let text = text.replace("localhost", "app.internal");
    let config = read(&format!("{custom}{text}")).unwrap().config;
    assert_eq!(issuers(&config.sites[1]), config.certificates.issuers[1..]);
}

#[test]
fn the_normal_form_means_the_same() {
    for text in [
        DESIGN.to_owned(),
        std::fs::read_to_string(repository("gateway.yaml")).unwrap(),
        "sites: [{hosts: [localhost], upstream: builtin:echo}]".to_owned(),
    ] {
        let first = read(&text).unwrap_or_else(|report| panic!("{report}")).config;
        let normal = normal_form(&first);
        let second = read(&normal).unwrap_or_else(|report| panic!("{report}\n{normal}")).config;
        assert_eq!(normal_form(&second), normal);
        assert_eq!(second.upstreams, first.upstreams);
        assert_eq!(second.certificates, first.certificates);
        assert_eq!(second.limits, first.limits);
    }
}

/// The documented file with its commented keys (`#: `) switched on. A value before deeper keys is
/// what they replace.
fn uncommented(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let switched = line.replacen("#: ", "", 1);
        if switched != line
            && let Some(before) = lines.iter_mut().rev().find(|l| !l.trim_start().starts_with('#'))
            && indent(&switched) > indent(before)
            && !before.trim_start().starts_with("- ")
            && let Some((key, _)) = before.clone().split_once(": ")
        {
            *before = format!("{key}:");
        }
        lines.push(switched);
    }
    lines.join("\n") + "\n"
}

/// Counts every key of the tree by its path in the table, with its values.
fn collect<'a>(node: &'a Node, path: &str, found: &mut Vec<(String, &'a Value)>) {
    let path = keys::canonical(path);
    match &node.value {
        Value::List(list) => list.iter().for_each(|n| collect(n, &format!("{path}[]"), found)),
        Value::Map(entries) if keys::find(path).is_none_or(|k| !is_free(k)) => {
            for entry in entries {
                let named = format!("{path}.*");
                let key = match path {
                    "" => entry.key.clone(),
                    _ if keys::find(&named).is_some() => named,
                    _ => format!("{path}.{}", entry.key),
                };
                found.push((key.clone(), &entry.node.value));
                collect(&entry.node, &key, found);
            }
        }
        _ => {}
    }
}

fn is_free(key: &keys::Key) -> bool {
    key.forms.iter().any(|f| matches!(f, keys::Form::Any | keys::Form::TextMap))
}

#[test]
fn gateway_yaml_documents_every_key_once_with_its_default() {
    let text = std::fs::read_to_string(repository("gateway.yaml")).unwrap();
    let loaded = read(&text).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.warnings, [], "the documented file has warnings");

    let shipped = node::read(&text).unwrap();
    let mut live = Vec::new();
    collect(&shipped, "", &mut live);
    let whole = uncommented(&text);
    let root = node::read(&whole).unwrap_or_else(|e| panic!("{e:?}\n{whole}"));
    node::duplicates(&root, &mut |_, second| panic!("{} is there twice", second.key));
    let mut found = Vec::new();
    collect(&root, "", &mut found);
    let mut wrong = Vec::new();
    for key in keys::KEYS {
        // Entries of lists and names of the file's choice are not keys.
        if key.path.ends_with("[]") || key.path.ends_with('*') {
            continue;
        }
        let count = found.iter().filter(|(path, _)| path == key.path).count();
        if count != 1 {
            wrong.push(format!("{} is there {count} times", key.path));
        }
        let value = live.iter().chain(&found).find(|(path, _)| path == key.path);
        // A mapping below a word is the other form of the key, as in `challenge`.
        let is_word = key.forms.iter().any(|form| matches!(form, keys::Form::Word(_)));
        if let (Some((_, value)), KeyDefault::Is(default)) = (value, key.default)
            && !(is_word && matches!(value, Value::Map(_)))
            && value.to_json() != node::read(default).unwrap().value.to_json()
        {
            wrong.push(format!("{}: {} is not the default", key.path, value.to_json()));
        }
    }
    for (path, _) in &found {
        if keys::find(path).is_none() {
            wrong.push(format!("{path} is not a key"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_key_of_the_table_is_described() {
    for (i, key) in keys::KEYS.iter().enumerate() {
        assert!(key.doc.ends_with('.'), "{}", key.path);
        assert!(!key.forms.is_empty(), "{}", key.path);
        assert!(!keys::KEYS[..i].iter().any(|k| k.path == key.path), "{} is there twice", key.path);
        if let KeyDefault::Is(text) = key.default {
            assert!(node::read(text).is_ok(), "{}", key.path);
        }
        for form in key.forms {
            if let keys::Form::Like(other) = form {
                assert!(keys::find(other).is_some(), "{} is like {other}", key.path);
            }
        }
    }
}

#[test]
fn the_schema_knows_every_key() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    let sites = &schema["properties"]["sites"]["items"];
    assert_eq!(sites["required"], serde_json::json!(["hosts"]));
    let route = &sites["properties"]["routes"]["items"];
    assert_eq!(route["additionalProperties"], false);
    let status = &route["properties"]["redirect"]["properties"]["status"];
    assert_eq!(status["default"], 308);
    let plugin = &schema["properties"]["plugins"]["additionalProperties"];
    let config = plugin["properties"]["config"].as_object().unwrap();
    assert_eq!(config.keys().collect::<Vec<_>>(), ["description"]);
    assert_eq!(plugin["properties"]["limits"]["properties"]["memory"]["default"], "64MiB");
    let challenge = &sites["properties"]["certificate"]["anyOf"][1]["properties"]["challenge"];
    assert!(challenge["anyOf"].is_array(), "{challenge}");
}

/// Every pattern of hostile text that once hurt a YAML reader.
#[test]
fn hostile_files_are_refused() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 9].join(",");
        bomb += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    let wide: String = (0..150_000).map(|i| format!("k{i}: v\n")).collect();
    for (name, text) in [
        ("deep flow", "[".repeat(1_000_000)),
        ("deep maps", "{a: ".repeat(100_000)),
        ("deep blocks", (0..2_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect()),
        ("deep dashes", "- ".repeat(100_000)),
        ("aliases", bomb),
        ("self reference", "a: &a [*a]\n".to_owned()),
        ("merge of itself", "a: &a {<<: *a}\n".to_owned()),
        ("large", "#".repeat(node::BYTES_MAX + 1)),
        ("many keys", wide),
        ("one long line", format!("sites: [{}]", "x, ".repeat(60_000))),
        ("one long key", format!("{}: 1", "k".repeat(900))),
        ("a long text", format!("log: {{level: {}}}", "x".repeat(1_000_000))),
        ("controls", "sites: \"\\u202e\\e[31m\"\nx\\u0000: 1".to_owned()),
        ("tags", "sites: !!binary aGk=\nlog: !!set {a}\n".to_owned()),
    ] {
        let report = read(&text).expect_err(name).to_string();
        assert!(report.len() < 100_000, "{name}: {} bytes of report", report.len());
        assert!(!report.contains('\u{1b}'), "{name}");
    }
}

/// Bytes of good files, changed at random: an answer, never a panic.
#[test]
fn mutations_never_panic() {
    let mut seeds = vec![DESIGN.to_owned()];
    seeds.push(uncommented(&std::fs::read_to_string(repository("gateway.yaml")).unwrap()));
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let tokens =
        ["\n", ": ", "- ", "[", "]", "{", "}", "\"", "'", "&a ", "*a", "|", "#", "\t", "é", "~"];
    let rounds = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    for round in 0..rounds {
        let mut bytes = seeds[round % seeds.len()].clone().into_bytes();
        for _ in 0..=random(4) {
            if bytes.is_empty() {
                break;
            }
            let at = random(bytes.len());
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => drop(bytes.splice(at..at, tokens[random(tokens.len())].bytes())),
                2 => drop(bytes.drain(at..(at + random(20)).min(bytes.len()))),
                3 => {
                    let end = (at + random(200)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    let to = random(bytes.len());
                    drop(bytes.splice(to..to, copy));
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        match read(&String::from_utf8_lossy(&bytes)) {
            Ok(loaded) => {
                // Whatever is accepted is accepted again, and means the same.
                let normal = normal_form(&loaded.config);
                let again = read(&normal).unwrap_or_else(|report| panic!("{report}\n{normal}"));
                assert_eq!(normal_form(&again.config), normal);
            }
            Err(report) => assert!(report.to_string().contains("error")),
        }
    }
}

#[test]
fn secrets_are_never_shown() {
    for text in [
        "plugins: {p: {component: c.wasm, secrets: {t: hunter2}, hunter: 1}}\nsites: []\n",
        "plugins: {p: {component: c.wasm, secrets: {t: {value: hunter2}}}}\nsites: []\n",
        "plugins: {p: {component: c.wasm, secrets: {t: [hunter2], t: {env: [hunter]}}}}\n",
        "plugins: {p: {component: c.wasm, secrets: hunter2}}\n",
        "x: &s hunter2\nplugins: {p: {component: c.wasm, secrets: {t: *s}}}\nsites: []\n",
        "plugins:\n  p:\n    secrets:\n      t: hunter2\n      u: 'x\n",
        "plugins:\n  p:\n    secrets:\n      t: hunter2: x\n",
        "plugins: {p: {secrets: {t: |\n   hunter2\n  }}}\n",
        "certificates: {issuers: [{directory: letsencrypt, eab: {kid: k, key: hunter2}, x: 1}]}\n",
        "sites: [{hosts: [a.example], upstream: \"http://u:hunter2@h\"}]\n",
        "upstreams: {a: \"http://u:hunter2@h/\"}\n",
    ] {
        let found = outcome(text);
        assert!(!found.contains("hunter2"), "{text}\n{found}");
        assert!(found.contains("error"), "{text}\n{found}");
    }
    let good = "plugins: {p: {component: c.wasm, secrets: {t: hunter2}}}\n\
                sites: [{hosts: [localhost], filters: [p], upstream: builtin:echo}]\n";
    let found = outcome(good);
    assert!(!found.contains("hunter2") && found.contains("[secret]"), "{found}");
}

#[test]
fn files_are_loaded_from_their_own_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    let missing = load(&path).unwrap_err().to_string();
    assert!(missing.contains("cannot read the file"), "{missing}");
    std::fs::write(&path, "sites: [{hosts: [localhost], upstream: unix:app.sock}]").unwrap();
    let config = load(&path).unwrap_or_else(|report| panic!("{report}")).config;
    assert_eq!(config.store, folder.path().join("state"));
    assert_eq!(config.admin, Some(folder.path().join("state/admin.sock")));
    let servers = &config.upstreams.values().next().unwrap().servers;
    assert_eq!(servers, &[Server::Unix(folder.path().join("app.sock"))]);
    std::fs::write(&path, b"sites:\n\xff").unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("line 2 is not UTF-8"));
}
