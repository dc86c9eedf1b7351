//! Holds the module table of `ARCHITECTURE.md`: a module of the product uses only the modules that its row
//! names, and only the crates under `crates/`. That those use nothing of the product, the compiler holds.

#![allow(
    clippy::expect_used,
    reason = "a test that fails may panic where it stands"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Table = BTreeMap<String, BTreeSet<String>>;

/// The rows of the table: `| `src/module/` | its job | `other`, `another` |`, or `all`. The first path of a row names
/// the module; a folder of the same module may follow a file.
fn table() -> Table {
    let text = fs::read_to_string("ARCHITECTURE.md").expect("ARCHITECTURE.md");
    let mut table = Table::new();
    for line in text.lines().filter(|line| line.starts_with("| `src/")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let first = cells[1].split('`').nth(1).unwrap_or_default();
        let module = first
            .trim_start_matches("src/")
            .trim_end_matches('/')
            .trim_end_matches(".rs")
            .to_owned();
        let uses = cells[3].split('`').skip(1).step_by(2);
        let uses = uses.map(|used| used.replace('-', "_"));
        let all = (cells[3] == "all").then(|| "all".to_owned());
        table.insert(module, uses.chain(all).collect());
    }
    table
}

/// The crates that exist, by the names that they have in paths.
fn crates() -> Vec<String> {
    let folders = fs::read_dir("crates").expect("a folder");
    folders
        .map(|folder| folder.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().replace('-', "_"))
        .collect()
}

/// The modules that exist, with their files.
fn modules() -> BTreeMap<String, Vec<PathBuf>> {
    let mut modules = BTreeMap::<String, Vec<PathBuf>>::new();
    for file in rust_files(Path::new("src")) {
        let below = file.strip_prefix("src").expect("below src");
        let first = below.components().next().expect("not src itself");
        let module = first.as_os_str().to_string_lossy();
        let module = module.trim_end_matches(".rs").to_owned();
        if module != "lib" {
            modules.entry(module).or_default().push(file);
        }
    }
    modules
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules named by `crate::module` or `crate::{module, other::…}` in a text, with their lines.
fn uses(text: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices(root) {
        let line = text[..start].matches('\n').count() + 1;
        let rest = &text[start + root.len()..];
        let names: Vec<String> = match rest.strip_prefix('{') {
            None => vec![leading_name(rest)],
            Some(group) => top_level_items(group),
        };
        found.extend(
            names
                .into_iter()
                .filter(|name| !name.is_empty())
                .map(|name| (line, name)),
        );
    }
    found
}

/// The lines that name a crate, as `name::` or `use name;`.
fn lines_with_crate(text: &str, name: &str) -> Vec<usize> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    text.match_indices(name)
        .filter(|(start, _)| !text[..*start].ends_with(is_of_name))
        .filter(|(start, _)| {
            let rest = &text[start + name.len()..];
            rest.starts_with("::") || rest.starts_with(';') && text[..*start].ends_with("use ")
        })
        .map(|(start, _)| text[..start].matches('\n').count() + 1)
        .collect()
}

fn leading_name(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The first names of the items of a `use` group, whose opening brace has been read.
fn top_level_items(group: &str) -> Vec<String> {
    let (mut depth, mut item, mut items) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => {}
        }
        if depth == 0 && c != ',' {
            item.push(c);
        }
    }
    items.push(item);
    items
        .iter()
        .map(|item| leading_name(item.trim_start()))
        .collect()
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let (table, modules, crates) = (table(), modules(), crates());
    let mut wrong = Vec::new();
    for (module, files) in &modules {
        let Some(allowed) = table.get(module) else {
            wrong.push(format!("src/{module} has no row in the table"));
            continue;
        };
        let root = if module == "main" {
            "desktop_images::"
        } else {
            "crate::"
        };
        for file in files {
            let text = fs::read_to_string(file).expect("a source file");
            for (line, used) in uses(&text, root) {
                let known = modules.contains_key(&used);
                if known && used != *module && !allowed.contains(&used) && !allowed.contains("all")
                {
                    wrong.push(format!("{}:{line}: {module} uses {used}", file.display()));
                }
            }
            let forbidden = |used: &&String| !allowed.contains(*used) && !allowed.contains("all");
            for used in crates.iter().filter(forbidden) {
                for line in lines_with_crate(&text, used) {
                    wrong.push(format!("{}:{line}: {module} uses {used}", file.display()));
                }
            }
        }
    }
    for module in table.keys().filter(|module| !modules.contains_key(*module)) {
        wrong.push(format!(
            "the table has a row for src/{module}, which is not there"
        ));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_opens_with_what_it_knows_and_what_it_never_mentions() {
    for module in modules().keys() {
        let Ok(text) = fs::read_to_string(format!("src/{module}/mod.rs")) else {
            continue;
        };
        let opening: String = text
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ");
        for words in ["Knows ", "Never mentions "] {
            assert!(
                opening.contains(words),
                "src/{module}/mod.rs does not say: {words}…"
            );
        }
    }
}

#[test]
fn uses_are_found_in_groups_and_paths() {
    let text = "use crate::images::Images;\nuse crate::{\n    rpc::{a, b},\n    http,\n};\ncrate::auth::x();";
    let found: Vec<String> = uses(text, "crate::")
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(found, ["images", "rpc", "http", "auth"]);
    let text = "use a_crate;\nuse a_crate::{X};\na_crate::x();\nlet a_crate = other::a_crate::y();";
    assert_eq!(lines_with_crate(text, "a_crate"), [1, 2, 3]);
}
