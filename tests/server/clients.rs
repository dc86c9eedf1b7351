//! Clients of other languages, which `scripts/test` runs.

use test_support::say_left_out;

/// Each folder below `tests/clients` is a client, and the script that starts a server for them
/// names it.
#[test]
fn clients_of_other_languages_are_run_by_the_test_script() {
    let script = std::fs::read_to_string("tests/clients/run.sh").unwrap();
    let mut clients: Vec<String> = std::fs::read_dir("tests/clients")
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    clients.sort();
    assert!(!clients.is_empty());
    for client in &clients {
        let named = format!("\"$here/{client}/");
        let folder = format!("\"$here/{client}\"");
        assert!(
            script.contains(&named) || script.contains(&folder),
            "{client} is not run"
        );
    }
    let test_script = std::fs::read_to_string("scripts/test").unwrap();
    assert!(test_script.contains("tests/clients/run.sh"));
    // That script sets this: it runs them after these tests.
    if std::env::var_os("DESKTOP_IMAGES_TEST_SCRIPT").is_none() {
        let names = clients.join(", ");
        say_left_out(&format!("the clients in {names}: scripts/test runs them"));
    }
}
