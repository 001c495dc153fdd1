//! Reading secrets from where the configuration says they are.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::{SecretRef, SecretText};

impl SecretRef {
    /// Reads the secret. Called when a generation is built, never while serving.
    ///
    /// # Errors
    /// Says where the secret should have been and why it is not there; never what it is.
    pub fn read(&self) -> Result<SecretText, String> {
        let text = match self {
            Self::Inline(text) => return Ok(text.clone()),
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => text,
                Err(std::env::VarError::NotPresent) => {
                    return Err(format!("the environment variable {name} is not set"));
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(format!("the environment variable {name} is not UTF-8"));
                }
            },
            Self::File(path) => from_file(path)?,
            Self::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(folder) => from_file(&PathBuf::from(folder).join(name))?,
                None => {
                    return Err(format!(
                        "the credential {name} needs a systemd unit with LoadCredential={name}:… \
                         ($CREDENTIALS_DIRECTORY is not set)"
                    ));
                }
            },
        };
        match text.is_empty() {
            true => Err(format!("{self} is empty")),
            false => Ok(SecretText::new(text)),
        }
    }
}

impl std::fmt::Display for SecretRef {
    /// Where the secret is, never what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Credential(name) => write!(f, "the credential {name}"),
            Self::Inline(_) => f.write_str("the secret written in the file"),
        }
    }
}

fn from_file(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        let path = path.display();
        return Err(format!("{path} is larger than {SECRET_BYTES_MAX} bytes, no secret is"));
    }
    let mut text =
        String::from_utf8(text).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Inclusive.
const SECRET_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_loses_one_newline_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret \n\r\n").unwrap();
        assert_eq!(SecretRef::File(path.clone()).read().unwrap().expose(), "s3cret \n");
        std::fs::write(&path, "\n").unwrap();
        assert!(SecretRef::File(path.clone()).read().unwrap_err().ends_with("token is empty"));
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(SecretRef::File(path).read().unwrap_err().contains("larger"));
        let missing = SecretRef::File(folder.path().join("none")).read().unwrap_err();
        assert!(missing.starts_with("cannot read "), "{missing}");
    }

    #[test]
    fn the_environment_is_read() {
        assert!(SecretRef::Env("PATH".into()).read().is_ok());
        let missing = SecretRef::Env("WITGATE_NO_SUCH_VARIABLE".into()).read().unwrap_err();
        assert_eq!(missing, "the environment variable WITGATE_NO_SUCH_VARIABLE is not set");
    }

    #[test]
    fn nothing_prints_a_secret() {
        let secret = SecretRef::Inline(SecretText::new("hunter2".into()));
        assert!(!format!("{secret:?} {secret}").contains("hunter2"));
    }
}
