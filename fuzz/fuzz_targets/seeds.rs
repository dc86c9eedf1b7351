//! First inputs, made of the cases of `tests/data/cases`. Each target uses a part.
#![allow(dead_code)]

use std::path::Path;

use serde_norway::Value;

/// One case: what is asked of the server.
pub struct Case {
    /// Method and URI.
    pub request: String,
    pub body: String,
    /// The request message in JSON.
    pub message: String,
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let folder = super::things::root().join("tests/data/cases");
    let mut cases = Vec::new();
    for table in std::fs::read_dir(folder).expect("the folder of the tables") {
        let table = std::fs::read(table.expect("a table").path()).expect("a table");
        let table: Vec<Value> = serde_norway::from_slice(&table).expect("it is YAML");
        let text = |case: &Value, member: &str| case[member].as_str().unwrap_or_default().into();
        cases.extend(table.iter().map(|case| Case {
            request: text(case, "request"),
            body: text(case, "body"),
            message: serde_json::to_string(&case["message"]).unwrap_or_default(),
        }));
    }
    cases
}

/// Puts inputs into the corpus of a target, unless they are there.
pub fn plant(target: &str, inputs: impl IntoIterator<Item = String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folder = folder.join(target);
    std::fs::create_dir_all(&folder).expect("the corpus can be written");
    for (index, input) in inputs.into_iter().enumerate() {
        let seed = folder.join(format!("seed-{index:04}"));
        if !seed.exists() {
            std::fs::write(seed, input).expect("the corpus can be written");
        }
    }
}
