//! The command line at servers of each kind: by TLS, over a Unix socket, and with credentials.

use std::path::Path;
use std::sync::Arc;

use desktop_images::app::{
    Authentication, Authenticator, Caller, Certificate, Credentials, Listen, NotAuthenticated,
    TlsSettings,
};
use test_support::{Authority, Disk, Fill, Program, TestServer, within};
use tokio::process::Command;

/// The end of a run.
struct Ended {
    exit_code: Option<i32>,
    output: String,
    errors: String,
}

/// Runs the program with words, variables and a path that stands for `FILE`.
async fn run(words: &str, file: &Path, variables: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(Program::path());
    let words = words.split(' ').map(|word| match word {
        "FILE" => file.to_str().unwrap(),
        word => word,
    });
    command.args(words).kill_on_drop(true);
    for variable in [
        "DESKTOP_IMAGES_ENDPOINT",
        "DESKTOP_IMAGES_TOKEN",
        "DESKTOP_IMAGES_CA_FILE",
    ] {
        command.env_remove(variable);
    }
    command.envs(variables.iter().copied());
    let ended = within("it ends", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        exit_code: ended.status.code(),
        output: text(ended.stdout),
        errors: text(ended.stderr),
    }
}

/// Imports a disk, copies it and downloads the copy by commands that begin with these words.
async fn does_all(options: &str, variables: &[(&str, &str)], folder: &Path) {
    let (disk, file, copy) = (
        Disk::mbr(3, Fill::Random(1)),
        folder.join("disk.img"),
        folder.join("copy.img"),
    );
    std::fs::write(&file, &disk[..]).unwrap();
    let id = async |words: &str, file: &Path| {
        let ended = run(&format!("{words} {options} --format json"), file, variables).await;
        assert_eq!(ended.exit_code, Some(0), "{words}: {}", ended.errors);
        let printed: serde_json::Value = serde_json::from_str(&ended.output).unwrap();
        printed["id"].as_str().unwrap_or_default().to_owned()
    };
    let image = id("compute-image import FILE --folder-id f --name n", &file).await;
    let copied = format!("image copy --compute-image-id {image} --new-image-name c --folder-id f");
    let copied = id(&copied, &file).await;
    let _ = std::fs::remove_file(&copy);
    let download = format!("image download {copied} --output FILE {options}");
    let ended = run(&download, &copy, variables).await;
    assert_eq!(ended.exit_code, Some(0), "{}", ended.errors);
    assert!(std::fs::read(&copy).unwrap() == disk[..]);
}

#[tokio::test]
async fn commands_speak_tls() {
    let server = TestServer::start_with(|config| {
        config.tls = Some(TlsSettings::new(Certificate::SelfSigned));
    })
    .await;
    let (folder, port) = (tempfile::tempdir().unwrap(), server.address.port());
    let ca = server.data().join("tls/ca.pem");
    let ca = ca.to_str().unwrap();
    let options = format!("--endpoint https://localhost:{port} --ca-file {ca}");
    does_all(&options, &[], folder.path()).await;
    let endpoint = format!("https://127.0.0.1:{port}");
    let variables = [
        ("DESKTOP_IMAGES_ENDPOINT", endpoint.as_str()),
        ("DESKTOP_IMAGES_CA_FILE", ca),
    ];
    let list = run("image list --folder-id f", folder.path(), &variables).await;
    assert_eq!(list.exit_code, Some(0), "{}", list.errors);

    let stranger = Authority::new("stranger").file(folder.path());
    let download = "image download x --output -";
    for (words, reason) in [
        (
            format!("image list --folder-id f --endpoint {endpoint}"),
            "--ca-file",
        ),
        (format!("{download} --endpoint {endpoint}"), "--ca-file"),
        (
            format!("image list --folder-id f --endpoint {endpoint} --ca-file FILE"),
            "--ca-file",
        ),
        (
            format!("image list --folder-id f --endpoint http://127.0.0.1:{port}"),
            "TLS",
        ),
    ] {
        let refused = run(&words, &stranger, &[]).await;
        assert_eq!(refused.exit_code, Some(7), "{words}: {}", refused.errors);
        assert!(
            refused.errors.contains(reason),
            "{words}: {}",
            refused.errors
        );
    }
    let plain = TestServer::start().await;
    let words = format!(
        "image list --folder-id f --endpoint https://{} --ca-file {ca}",
        plain.address
    );
    let refused = run(&words, folder.path(), &[]).await;
    assert_eq!(refused.exit_code, Some(7), "{}", refused.errors);
    let words = format!("image list --folder-id f --endpoint {endpoint} --ca-file /none/ca.pem");
    let refused = run(&words, folder.path(), &[]).await;
    assert!(
        refused.errors.contains("/none/ca.pem"),
        "{}",
        refused.errors
    );
}

#[tokio::test]
async fn commands_speak_to_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("server.sock");
    let _server =
        TestServer::start_with(|config| config.listen = vec![Listen::Unix(socket.clone())]).await;
    let options = format!("--endpoint unix:{}", socket.display());
    does_all(&options, &[], folder.path()).await;
    let gone = format!(
        "image list --folder-id f --endpoint unix:{}",
        folder.path().join("gone").display()
    );
    assert_eq!(run(&gone, folder.path(), &[]).await.exit_code, Some(7));
}

/// Knows those who send a token, and a header beside it.
#[derive(Debug)]
struct Tokens;

const TOKEN: &str = "dit_one.secret";

impl Authenticator for Tokens {
    fn authenticate(&self, credentials: &Credentials<'_>) -> Authentication {
        let headers = credentials.headers;
        let is =
            |name: &str, expected: &str| headers.get(name).is_some_and(|value| value == expected);
        Authentication::Known(
            match is("authorization", &format!("Bearer {TOKEN}")) && is("x-route", "a") {
                true => Ok(Caller::of("token:one")),
                false => Err(NotAuthenticated::Unauthenticated(
                    "Token is invalid or has expired.".to_owned(),
                )),
            },
        )
    }
}

#[tokio::test]
async fn a_token_and_headers_go_with_each_request() {
    let server =
        TestServer::start_with(|config| config.authenticator = Some(Arc::new(Tokens))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let options = format!("--endpoint http://{} --header X-Route:a", server.address);
    does_all(&options, &[("DESKTOP_IMAGES_TOKEN", TOKEN)], folder.path()).await;
    let list = format!("image list --folder-id f {options}");
    for words in [
        format!("{list} --token-file FILE"),
        format!("{list} --token {TOKEN}"),
    ] {
        let ended = run(&words, &file, &[("DESKTOP_IMAGES_TOKEN", "another")]).await;
        assert_eq!(ended.exit_code, Some(0), "{words}: {}", ended.errors);
    }
    for words in [
        format!("{list} --token wrong"),
        list.clone(),
        format!(
            "image list --folder-id f --endpoint http://{} --token-file FILE",
            server.address
        ),
    ] {
        let ended = run(&words, &file, &[]).await;
        assert_eq!(ended.exit_code, Some(6), "{words}: {}", ended.errors);
        assert!(
            ended.errors.contains("Token is invalid"),
            "{}",
            ended.errors
        );
    }
}

#[tokio::test]
async fn a_token_is_not_sent_unencrypted_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let list = "image list --folder-id f --endpoint http://192.0.2.1:1";
    for (words, variable) in [
        (format!("{list} --token {TOKEN}"), ""),
        (format!("{list} --token-file FILE"), ""),
        (format!("{list} --header Authorization:{TOKEN}"), ""),
        (list.to_owned(), TOKEN),
        (format!("{list} --token {TOKEN}\u{e9}"), ""),
        (format!("{list} --token {TOKEN} --no-such-option"), ""),
        (format!("{list} --token {TOKEN} --header x"), ""),
    ] {
        let ended = run(&words, &file, &[("DESKTOP_IMAGES_TOKEN", variable)]).await;
        assert_eq!(ended.exit_code, Some(2), "{words}: {}", ended.errors);
        assert!(
            !ended.errors.contains("secret"),
            "{words}: {}",
            ended.errors
        );
    }
    let ended = run(list, &file, &[("DESKTOP_IMAGES_TOKEN", TOKEN)]).await;
    assert!(
        ended.errors.contains("--insecure-plaintext"),
        "{}",
        ended.errors
    );
}
