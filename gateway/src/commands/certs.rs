//! `witgate certs`: asks the running gateway over its control socket and prints for a person; takes in
//! what other programs have, and gives out files.

use std::path::Path;

use super::ask;
use crate::acme::adopt::{self, Wishes};
use crate::acme::{CertificateStatus, PlannedOrder};
use crate::cli::CertsCommand;
use crate::clock::Timestamp;
use crate::config::{self, Config, Issuer, SiteCertificate};
use crate::fault::describe;
use crate::gateway;
use crate::migrate::Layout;
use crate::store::Store;

/// Runs one of the commands.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub fn run(command: &CertsCommand) -> Result<(), String> {
    match command {
        CertsCommand::List { file, json } => list(&file.config, *json),
        CertsCommand::Plan { days, file, json } => plan(&file.config, *days, *json),
        CertsCommand::Why { name, file } => why(&file.config, name),
        CertsCommand::Renew { name, file } => {
            ask(&file.config, "POST", &format!("/renew/{}", host(name)?))?;
            println!(
                "a new certificate for {name} is ordered; `witgate certs why {name}` says more"
            );
            Ok(())
        }
        CertsCommand::Rehearse { names, file } => rehearse(names, &file.config),
        CertsCommand::Rollover { issuer, file } => {
            let issuer = issuer.as_ref().map(|issuer| host(issuer)).transpose()?;
            let query = issuer.map(|issuer| format!("?issuer={issuer}")).unwrap_or_default();
            print!("{}", ask(&file.config, "POST", &format!("/rollover{query}"))?);
            Ok(())
        }
        CertsCommand::Import { from, layout, dry_run, file } => {
            import(from, *layout, *dry_run, &file.config)
        }
        CertsCommand::Export { folder, names, file } => export(folder, names, &file.config),
        CertsCommand::Revoke { name, reason, file } => {
            let reason = reason.as_ref().map(|reason| host(reason)).transpose()?;
            let query = reason.map(|reason| format!("?reason={reason}")).unwrap_or_default();
            ask(&file.config, "POST", &format!("/revoke/{}{query}", host(name)?))?;
            println!("the certificate for {name} is revoked, a new one is ordered");
            Ok(())
        }
    }
}

fn rehearse(names: &[String], file: &Path) -> Result<(), String> {
    let names = match names.is_empty() {
        true => read(&ask(file, "GET", "/certs/hosts")?)?,
        false => names.to_vec(),
    };
    let mut failed = 0;
    for name in &names {
        match ask(file, "POST", &format!("/rehearse/{}", host(name)?)) {
            Ok(text) => print!("{text}"),
            Err(why) => {
                failed += 1;
                println!("{name}: {}", why.trim_end());
            }
        }
    }
    if failed > 0 { Err(format!("{failed} of {} would fail", names.len())) } else { Ok(()) }
}

fn import(
    from: &Path,
    layout: Option<Layout>,
    is_rehearsal: bool,
    file: &Path,
) -> Result<(), String> {
    let config = config::load(file).map_err(|report| report.to_string())?.config;
    if !from.exists() {
        return Err(format!("there is no {}", from.display()));
    }
    let layout = layout.or_else(|| Layout::of(from)).ok_or_else(|| {
        format!(
            "{} has neither the layout of Caddy, Traefik, certbot nor lego; say which with \
             `--layout`",
            from.display()
        )
    })?;
    let found = layout.read(from);
    let directories = directories(&config);
    let wanted = gateway::wanted_names(&config);
    let contact = config.certificates.contact.as_deref();
    let wishes = Wishes { directories: &directories, contact, wanted: &wanted };
    let how = gateway::opening(&config.sharing).map_err(|cause| describe(&cause))?;
    let store = match is_rehearsal {
        true => Store::look(&config.store, how.passphrase.as_deref()),
        false => Store::open_as(&config.store, &how),
    };
    let store = store.map_err(|cause| describe(&cause))?;
    let taken = adopt::take(&store, found, &wishes, is_rehearsal);
    let taken = taken.map_err(|cause| describe(&cause))?;
    println!("{}: {}", from.display(), layout.name());
    for line in &taken.lines {
        println!("  {line}");
    }
    println!(
        "{}{} accounts and {} certificates taken, {} left",
        if is_rehearsal { "nothing was changed; it would be " } else { "" },
        taken.accounts,
        taken.certificates,
        taken.left
    );
    Ok(())
}

fn export(folder: &Path, names: &[String], file: &Path) -> Result<(), String> {
    let config = config::load(file).map_err(|report| report.to_string())?.config;
    let how = gateway::opening(&config.sharing).map_err(|cause| describe(&cause))?;
    let store = Store::look(&config.store, how.passphrase.as_deref());
    let store = store.map_err(|cause| describe(&cause))?;
    for line in adopt::give(&store, folder, names)? {
        println!("{line}");
    }
    Ok(())
}

/// The directories of all CAs that the configuration names, then those that are known anyway.
fn directories(config: &Config) -> Vec<String> {
    let of_sites = config.sites.iter().filter_map(|site| match &site.certificate {
        SiteCertificate::Issued { issuers, .. } => Some(issuers),
        SiteCertificate::Files => None,
    });
    let all = std::iter::once(&config.certificates.issuers).chain(of_sites).flatten();
    let named = all.filter_map(|issuer| match issuer {
        Issuer::Acme(acme) => Some(acme.directory.clone()),
        Issuer::Local => None,
    });
    named.chain(config::known_directories().map(str::to_owned)).collect()
}

fn list(file: &Path, is_json: bool) -> Result<(), String> {
    let text = ask(file, "GET", "/certs")?;
    if is_json {
        print!("{text}");
        return Ok(());
    }
    let all: Vec<CertificateStatus> = read(&text)?;
    let rows = all.iter().map(|one| {
        let end = one.not_after.map_or_else(|| "-".to_owned(), days_left);
        let error = one.last_error.as_ref().map(|text| format!(" [{text}]")).unwrap_or_default();
        [one.hosts.join(", "), end, format!("{}{error}", one.state)]
    });
    table(["NAMES", "ENDS IN", "STATE"], rows.collect());
    Ok(())
}

fn plan(file: &Path, days: u32, is_json: bool) -> Result<(), String> {
    let text = ask(file, "GET", &format!("/certs/plan?days={days}"))?;
    if is_json {
        print!("{text}");
        return Ok(());
    }
    let all: Vec<PlannedOrder> = read(&text)?;
    let rows = all.iter().map(|one| {
        let what = format!("{} ({})", one.hosts.join(", "), one.reason);
        [Timestamp(one.at).to_string(), one.issuer.clone(), what]
    });
    table(["WHEN", "ISSUER", "ORDER"], rows.collect());
    Ok(())
}

fn why(file: &Path, name: &str) -> Result<(), String> {
    let all: Vec<CertificateStatus> = read(&ask(file, "GET", "/certs")?)?;
    let is_for = |one: &&CertificateStatus| {
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        one.hosts.iter().any(|host| host == name || Some(host) == wildcard.as_ref())
    };
    let one = all.iter().find(is_for).ok_or_else(|| {
        format!(
            "no site with an ACME certificate has the host {name}; names of the local CA and of \
             `certificates.files` are in `witgate status`"
        )
    })?;
    let at = |seconds: i64| Timestamp(seconds).to_string();
    println!("{}", one.hosts.join(", "));
    println!("  state      {}", one.state);
    if let (Some(from), Some(to)) = (one.not_before, one.not_after) {
        println!("  valid      {} to {}, {} left", at(from), at(to), days_left(to));
        println!("  issued by  {}", one.issued_by.as_deref().unwrap_or("-"));
    }
    match (one.window, one.renew_at) {
        (Some((from, to)), Some(renew)) => {
            println!(
                "  renewal    {}, as its CA wants it between {} and {}",
                at(renew),
                at(from),
                at(to)
            );
        }
        (None, Some(renew)) => println!("  renewal    {}, by its lifetime", at(renew)),
        (_, None) => {}
    }
    if let Some(next) = one.next_at {
        println!("  next step  {}", at(next));
    }
    if let Some(error) = &one.last_error {
        println!("  failed     {} times, last: {error}", one.failures);
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text)
        .map_err(|cause| format!("the running gateway is another version: {cause}"))
}

/// A word that goes into a path as it is.
fn host(word: &str) -> Result<&str, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-.*:_".contains(c);
    let is_good = !word.is_empty() && word.chars().all(is_plain);
    if is_good { Ok(word) } else { Err(format!("`{word}` is no host name")) }
}

fn days_left(end: i64) -> String {
    let left = Timestamp::now().until(Timestamp(end)).as_secs();
    match left {
        0 => "ended".to_owned(),
        1..7200 => format!("{} min", left / 60),
        7200..172_800 => format!("{} h", left / 3600),
        _ => format!("{} d", left / 86_400),
    }
}

/// Columns as wide as they need; the last one is open.
fn table(head: [&str; 3], rows: Vec<[String; 3]>) {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain(head.get(at).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let [one, two, three] = head;
    println!("{one:first$}  {two:second$}  {three}");
    for [one, two, three] in &rows {
        println!("{one:first$}  {two:second$}  {three}");
    }
}
