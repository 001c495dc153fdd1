//! Making this machine trust the local CA's root, and taking that back. Changes nothing without saying
//! so, and says what to do by hand where it cannot.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What was tried, in order.
#[derive(Debug, Default)]
pub struct Report {
    done: Vec<String>,
    failed: Vec<String>,
}

impl Report {
    /// Prints what was done.
    ///
    /// # Errors
    /// What did not work, when something did not.
    pub fn print(&self) -> Result<(), String> {
        for line in &self.done {
            println!("{line}");
        }
        if self.failed.is_empty() { Ok(()) } else { Err(self.failed.join("\n")) }
    }
}

/// Puts the root into the system's store and, where `certutil` is there, into the user's browser
/// stores.
pub fn install(root_pem: &str) -> Report {
    let mut report = Report::default();
    match system_store() {
        Some((folder, command)) => {
            let file = folder.join(FILE_NAME);
            let program = command.first().copied().unwrap_or_default();
            let placed = std::fs::write(&file, root_pem).map_err(|cause| cause.to_string());
            match placed.and_then(|()| run(command)) {
                Ok(()) => report.done.push(format!("system: {} ({program})", file.display())),
                Err(cause) => report.failed.push(format!("system: {}: {cause}", file.display())),
            }
        }
        None => report.failed.push(BY_HAND.to_owned()),
    }
    for database in nss_databases() {
        let name = format!("sql:{}", database.display());
        let file = std::env::temp_dir().join(format!("witgate-root-{}.pem", std::process::id()));
        let path = file.display().to_string();
        let placed = std::fs::write(&file, root_pem).map_err(|cause| cause.to_string());
        let arguments = ["certutil", "-A", "-d", &name, "-t", "C,,", "-n", NICKNAME, "-i", &path];
        match placed.and_then(|()| run(&arguments)) {
            Ok(()) => report.done.push(format!("browser: {}", database.display())),
            Err(cause) => report.failed.push(format!("browser: {}: {cause}", database.display())),
        }
        let _ = std::fs::remove_file(&file);
    }
    report
}

/// Takes the root out again.
pub fn remove(_root_pem: &str) -> Report {
    let mut report = Report::default();
    if let Some((folder, command)) = system_store() {
        let file = folder.join(FILE_NAME);
        let removed = match std::fs::remove_file(&file) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(cause.to_string()),
            _ => run(command),
        };
        match removed {
            Ok(()) => report.done.push(format!("system: removed {}", file.display())),
            Err(cause) => report.failed.push(format!("system: {}: {cause}", file.display())),
        }
    }
    for database in nss_databases() {
        let name = format!("sql:{}", database.display());
        // It may never have been there.
        if run(&["certutil", "-D", "-d", &name, "-n", NICKNAME]).is_ok() {
            report.done.push(format!("browser: removed from {}", database.display()));
        }
    }
    report
}

/// The folder for further roots and the command that takes them in, by distribution.
fn system_store() -> Option<(PathBuf, &'static [&'static str])> {
    let stores: [(&str, &'static [&'static str]); 3] = [
        ("/usr/local/share/ca-certificates", &["update-ca-certificates"]),
        ("/etc/pki/ca-trust/source/anchors", &["update-ca-trust"]),
        ("/etc/ca-certificates/trust-source/anchors", &["trust", "extract-compat"]),
    ];
    let found = stores.into_iter().find(|(folder, _)| Path::new(folder).is_dir());
    found.map(|(folder, command)| (PathBuf::from(folder), command))
}

/// The certificate databases of Chromium and Firefox profiles in the user's home.
fn nss_databases() -> Vec<PathBuf> {
    let Some(home) = std::env::var_os("HOME").map(PathBuf::from) else { return Vec::new() };
    let mut folders = vec![home.join(".pki/nssdb")];
    for profiles in [".mozilla/firefox", "snap/firefox/common/.mozilla/firefox"] {
        let entries = std::fs::read_dir(home.join(profiles)).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path()));
    }
    folders.retain(|folder| folder.join("cert9.db").is_file());
    folders
}

fn run(command: &[&str]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|cause| format!("cannot run {program}: {cause}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

const FILE_NAME: &str = "witgate-local-root.crt";
const NICKNAME: &str = "Witgate local root";
const BY_HAND: &str = "system: no known store of roots on this machine; `witgate trust --print` \
    prints the root for you to import by hand";
