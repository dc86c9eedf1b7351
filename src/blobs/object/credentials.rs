//! Credentials for S3 from the file that other tools keep them in, `~/.aws/credentials`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Result};

/// The time after which the file is read again: another program may renew the credentials in it.
const FRESH: Duration = Duration::from_secs(60);

/// A profile of a file of credentials.
#[derive(Debug)]
pub(super) struct ProfileCredentials {
    file: PathBuf,
    profile: String,
    read: Mutex<Option<(Instant, Arc<AwsCredential>)>>,
}

impl ProfileCredentials {
    /// The profile that `AWS_PROFILE` names in the file that `AWS_SHARED_CREDENTIALS_FILE` names, or the usual ones. None
    /// where the file has no such profile.
    pub(super) fn find(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let file = match variable("AWS_SHARED_CREDENTIALS_FILE") {
            Some(file) => PathBuf::from(file),
            None => Path::new(&variable("HOME")?).join(".aws/credentials"),
        };
        let text = std::fs::read_to_string(&file).ok()?;
        parse(&text, &profile)?;
        Some(Self {
            file,
            profile,
            read: Mutex::default(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Arc<AwsCredential>)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        if let Some((at, read)) = &*self.lock()
            && at.elapsed() < FRESH
        {
            return Ok(read.clone());
        }
        let text = tokio::fs::read_to_string(&self.file).await;
        let found = text.ok().and_then(|text| parse(&text, &self.profile));
        let mut kept = self.lock();
        match (found, &*kept) {
            (Some(found), _) => {
                let found = Arc::new(found);
                *kept = Some((Instant::now(), found.clone()));
                Ok(found)
            }
            // The file is being written. The storage says whether the credentials before are still good.
            (None, Some((_, before))) => Ok(before.clone()),
            (None, None) => Err(object_store::Error::Generic {
                store: "S3",
                source: format!(
                    "{} has no profile {:?} with an access key",
                    self.file.display(),
                    self.profile
                )
                .into(),
            }),
        }
    }
}

/// The credentials of a profile.
fn parse(text: &str, profile: &str) -> Option<AwsCredential> {
    let header = format!("[{profile}]");
    let lines = text.lines().map(str::trim);
    let section = lines
        .skip_while(|line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let (mut key_id, mut secret_key, mut token) = (None, None, None);
    for (name, value) in section.filter_map(|line| line.split_once('=')) {
        let value = Some(value.trim().to_owned());
        match name.trim() {
            "aws_access_key_id" => key_id = value,
            "aws_secret_access_key" => secret_key = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    Some(AwsCredential {
        key_id: key_id?,
        secret_key: secret_key?,
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_among_others() {
        let text = "[default]\naws_access_key_id = one\naws_secret_access_key=two\n# a comment\n\n\
                    [other]\nregion = x\n aws_access_key_id=three \naws_secret_access_key= four\n\
                    aws_session_token = five=\n[broken]\naws_access_key_id = six\n";
        let found = |profile| {
            let found = parse(text, profile)?;
            Some((found.key_id, found.secret_key, found.token))
        };
        let some = |key: &str, secret: &str, token: Option<&str>| {
            Some((key.to_owned(), secret.to_owned(), token.map(str::to_owned)))
        };
        assert_eq!(found("default"), some("one", "two", None));
        assert_eq!(found("other"), some("three", "four", Some("five=")));
        assert_eq!(found("broken"), None);
        assert_eq!(found("none"), None);
    }
}
