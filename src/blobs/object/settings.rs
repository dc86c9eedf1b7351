//! Where an object storage is, and how it is asked.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::super::Error;
use super::credentials::ProfileCredentials;
use super::layout::BlobLayout;
use super::presigned::{Presigner, RedirectSettings};
use super::storage::{Bucket, Storage};

/// The memory for parts of uploads unless told otherwise.
const UPLOAD_MEMORY: u64 = 192 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence of a storage that is to send something.
const SILENCE: Duration = Duration::from_secs(20);
/// The slowest way to a storage that parts get there on in time, in bytes a second, if all memory for parts is under way.
const SLOWEST: u64 = 2 << 20;

/// The place of blobs in an object storage, with what the environment says of it.
#[derive(Clone)]
pub struct ObjectSettings {
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
    pub url: String,
    /// The URL of the service, where the environment does not have it and it is not the usual one.
    pub endpoint: Option<String>,
    /// The bytes of memory for parts of all uploads together; 16 MiB at least.
    pub upload_memory: u64,
    /// The layout of what is written. Blobs of both are read.
    pub layout: BlobLayout,
    /// The address to which readers of whole objects are redirected, if they are.
    pub redirect: Option<RedirectSettings>,
    /// The variables of the environment: credentials, region, endpoint.
    pub environment: Vec<(String, String)>,
}

/// The kinds of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    S3,
    Google,
    Azure,
}

impl ObjectSettings {
    /// A place, as the environment of this process and the defaults have it.
    pub fn new(url: impl Into<String>) -> Self {
        let is_of_storage = |name: &str| {
            name == "HOME"
                || ["AWS_", "GOOGLE_", "AZURE_"]
                    .iter()
                    .any(|it| name.starts_with(it))
        };
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| is_of_storage(name));
        Self {
            url: url.into(),
            endpoint: None,
            upload_memory: UPLOAD_MEMORY,
            layout: BlobLayout::default(),
            redirect: None,
            environment: variables.collect(),
        }
    }

    /// The URL as far as it may be told: what comes before an @ or after a ? may be a secret.
    fn told(&self) -> &str {
        let told = self.url.split('?').next().unwrap_or_default();
        match told.contains('@') {
            true => "the URL of the blobs",
            false => told,
        }
    }

    /// # Errors
    /// [`Error::Refused`] where the settings make no sense.
    pub(super) fn storage(&self) -> Result<Storage, Error> {
        let refused = |reason: String| Error::Refused {
            place: self.told().to_owned(),
            reason,
        };
        let redirect = self.redirect.as_ref();
        let given = [
            Some(&self.url),
            self.endpoint.as_ref(),
            redirect.map(|it| &it.endpoint),
        ];
        if given.into_iter().flatten().any(|it| it.contains('@')) {
            return Err(refused(
                "credentials do not belong there: the environment has them, or a file that it names".to_owned(),
            ));
        }
        let (kind, bucket, prefix) = self.parts().map_err(refused)?;
        let endpoint = self.endpoint.clone().or_else(|| self.endpoint_of(kind));
        let build = |endpoint: Option<&String>, options: ClientOptions| {
            let built = self.bucket(kind, bucket, endpoint, options);
            built.map_err(|error| refused(error.to_string()))
        };
        let options = || ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT);
        // Unless told otherwise the library cuts a request off after 30 s, also while its body moves (object_store 0.14.2,
        // `ClientOptions::default` in <https://docs.rs/object_store/0.14.2/src/object_store/client/mod.rs.html>).
        let whole = options().with_timeout_disabled().with_read_timeout(SILENCE);
        let longest = SILENCE + Duration::from_secs(self.upload_memory / SLOWEST);
        let for_parts = options().with_timeout(longest).with_read_timeout_disabled();
        let presign = |redirect: &RedirectSettings| -> Result<Presigner, Error> {
            Ok(Presigner {
                bucket: build(Some(&redirect.endpoint), options())?,
                lifetime: redirect.lifetime,
                tells_headers: kind != Kind::Azure,
            })
        };
        Ok(Storage::new(
            format!("the object storage {}", self.told()),
            prefix,
            build(endpoint.as_ref(), whole)?,
            build(endpoint.as_ref(), for_parts)?,
            redirect.map(presign).transpose()?,
        ))
    }

    /// Kind, bucket and prefix, or why there are none.
    fn parts(&self) -> Result<(Kind, &str, Path), String> {
        let known = [
            ("s3://", Kind::S3),
            ("gs://", Kind::Google),
            ("az://", Kind::Azure),
        ];
        let found = known
            .into_iter()
            .find_map(|(scheme, kind)| Some((kind, self.url.strip_prefix(scheme)?)));
        let Some((kind, rest)) = found else {
            return Err("must begin with s3://, gs:// or az://".to_owned());
        };
        if rest.contains(['?', '#']) {
            return Err("has more than a bucket and a prefix".to_owned());
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err("names no bucket: the form is s3://BUCKET/PREFIX".to_owned());
        }
        let is_sign = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if !bucket.chars().all(is_sign) {
            return Err("no bucket can have this name".to_owned());
        }
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| error.to_string())?;
        Ok((kind, bucket, prefix))
    }

    fn bucket(
        &self,
        kind: Kind,
        bucket: &str,
        endpoint: Option<&String>,
        options: ClientOptions,
    ) -> object_store::Result<Arc<dyn Bucket>> {
        // Writes are repeated for longer, by `Storage::repeated`.
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 2.0,
            },
            max_retries: 8,
            retry_timeout: Duration::from_secs(30),
        };
        let is_plain = endpoint.is_some_and(|it| it.starts_with("http://"));
        if let Some(endpoint) = endpoint
            && endpoint.parse::<Uri>().map_or(true, |uri| {
                uri.host().is_none() || uri.scheme().is_none() || uri.query().is_some()
            })
        {
            return Err(object_store::Error::Generic {
                store: "endpoint",
                source: "the endpoint is no URL: the form is https://HOST:PORT".into(),
            });
        }
        let options = options.with_allow_http(is_plain);
        let variables = self.environment.iter();
        let variables = variables.map(|(name, value)| (name.to_ascii_lowercase(), value));
        Ok(match kind {
            Kind::S3 => {
                let builder = AmazonS3Builder::new()
                    .with_bucket_name(bucket)
                    .with_client_options(options)
                    .with_retry(retry)
                    // TLS protects the bytes on their way. Without it, the signature has their digest.
                    .with_unsigned_payload(!is_plain)
                    // Not every storage has it.
                    .with_disable_bulk_delete(true);
                let set = |builder: AmazonS3Builder, (name, value): (String, &String)| match name
                    .strip_prefix("aws_")
                    .and_then(|_| name.parse::<AmazonS3ConfigKey>().ok())
                {
                    // The bucket is that of the URL.
                    None | Some(AmazonS3ConfigKey::Bucket | AmazonS3ConfigKey::Endpoint) => builder,
                    Some(key) => builder.with_config(key, value),
                };
                let mut builder = variables.fold(builder, set);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if let Some(profile) = self.profile() {
                    builder = builder.with_credentials(Arc::new(profile));
                }
                Arc::new(builder.build()?)
            }
            Kind::Google => {
                let builder = GoogleCloudStorageBuilder::new()
                    .with_client_options(options)
                    .with_retry(retry);
                let set = |builder: GoogleCloudStorageBuilder, (name, value): (String, &String)| {
                    match name.parse::<GoogleConfigKey>() {
                        Ok(key) if name.starts_with("google_") => builder.with_config(key, value),
                        _ => builder,
                    }
                };
                let mut builder = variables.fold(builder, set).with_bucket_name(bucket);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_base_url(endpoint);
                }
                Arc::new(builder.build()?)
            }
            Kind::Azure => {
                let builder = MicrosoftAzureBuilder::new()
                    .with_client_options(options)
                    .with_retry(retry);
                let set = |builder: MicrosoftAzureBuilder, (name, value): (String, &String)| {
                    match name.parse::<AzureConfigKey>() {
                        Ok(key) if name.starts_with("azure_") => builder.with_config(key, value),
                        _ => builder,
                    }
                };
                let mut builder = variables.fold(builder, set).with_container_name(bucket);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                Arc::new(builder.build()?)
            }
        })
    }

    /// The endpoint that the environment has.
    fn endpoint_of(&self, kind: Kind) -> Option<String> {
        let names: &[&str] = match kind {
            Kind::S3 => &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"],
            Kind::Google => &["GOOGLE_BASE_URL"],
            Kind::Azure => &["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"],
        };
        names.iter().find_map(|name| self.variable(name))
    }

    /// The profile of a file, where the environment has no credentials for S3.
    fn profile(&self) -> Option<ProfileCredentials> {
        const CREDENTIALS: [&str; 6] = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_SKIP_SIGNATURE",
        ];
        if CREDENTIALS.iter().any(|it| self.variable(it).is_some()) {
            return None;
        }
        ProfileCredentials::find(|name| self.variable(name))
    }

    fn variable(&self, name: &str) -> Option<String> {
        let mut found = self.environment.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.clone())
    }
}

impl std::fmt::Debug for ObjectSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment holds secrets.
        formatter
            .debug_struct("ObjectSettings")
            .field("url", &self.told())
            .field("upload_memory", &self.upload_memory)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_place_for_blobs_is_told_and_no_secret_with_it() {
        for (url, endpoint, told) in [
            ("", "", "must begin with s3://"),
            ("http://host/bucket", "", "must begin with s3://"),
            ("s3:///prefix", "", "names no bucket"),
            ("s3://b ucket", "", "no bucket can have this name"),
            ("s3://bucket/a//b", "", "path segment"),
            ("s3://bucket/a?token=hidden", "", "more than a bucket"),
            (
                "s3://key:hidden@bucket",
                "",
                "credentials do not belong there",
            ),
            (
                "s3://bucket",
                "http://key:hidden@host",
                "credentials do not belong there",
            ),
            ("s3://bucket", "localhost:8333", "the endpoint is no URL"),
        ] {
            let settings = ObjectSettings {
                endpoint: Some(endpoint.to_owned()).filter(|it| !it.is_empty()),
                environment: vec![("AWS_SECRET_ACCESS_KEY".to_owned(), "hidden".to_owned())],
                ..ObjectSettings::new(url)
            };
            let error = settings.storage().expect_err(url).to_string();
            assert!(error.contains(told), "{url}: {error}");
            assert!(!error.contains("hidden"), "{error}");
            assert!(!format!("{settings:?}").contains("hidden"));
        }
        for url in ["s3://bucket", "s3://bucket/", "s3://bucket/a/b/"] {
            let settings = ObjectSettings {
                environment: Vec::new(),
                ..ObjectSettings::new(url)
            };
            let storage = settings.storage().expect("a place");
            let prefix = url.trim_start_matches("s3://bucket").trim_matches('/');
            assert_eq!(storage.prefix.as_ref(), prefix);
        }
    }
}
