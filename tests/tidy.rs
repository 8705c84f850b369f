//! What neither the compiler nor clippy checks: line lengths, banned words, where `unsafe` may be, links in the docs.

use std::fs;
use std::path::{Path, PathBuf};

/// The only files that may contain `unsafe` code.
const UNSAFE_FILES: [&str; 9] = [
    "src/sealed_allocator.rs",
    "src/server/data_file/lock.rs",
    "storage/src/buffer.rs",
    "storage/src/prefetch.rs",
    "storage/src/uring.rs",
    "storage/src/uring/ring.rs",
    "storage/src/uring/socket.rs",
    "tests/process/sandbox.rs",
    "tools/comparisons/src/raw.rs",
];

/// Where the code must be deterministic: no clock, no thread, no map with a random order, no shared ownership.
const PURE: [&str; 4] = [
    "storage/src/",
    "src/replica",
    "src/engine",
    "src/state_machine",
];
const PURE_EXCEPT: [&str; 2] = ["storage/src/uring", "storage/src/buffer.rs"];
const IMPURE_WORDS: [&str; 8] = [
    "HashMap",
    "HashSet",
    "Instant::now",
    "SystemTime",
    "std::thread",
    "Mutex",
    "Rc<",
    "async fn",
];

/// Of comments: rustfmt sees to the code, and long texts in quotes stay whole.
const COLUMNS_MAX: usize = 130;
const LINES_MAX: usize = 1150;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the repository") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

/// Paths below the root, with their texts.
fn files(extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(root(), extension, &mut found);
    assert!(!found.is_empty());
    let read = |path: &PathBuf| {
        let name = path
            .strip_prefix(root())
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        (name, fs::read_to_string(path).expect("UTF-8"))
    };
    found.iter().map(read).collect()
}

/// Code without comments and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn lines_and_files_are_short_enough() {
    for (name, text) in files("rs") {
        assert!(
            text.lines().count() <= LINES_MAX,
            "{name} is too long: find the seam"
        );
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            let short = columns <= COLUMNS_MAX || line.contains('"');
            assert!(short, "{name}:{}: {columns} columns", index + 1);
            assert!(
                !line.contains('\t') && line.trim_end() == line,
                "{name}:{}: blanks",
                index + 1
            );
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    let banned = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimpl", "emented!("),
    ];
    for (name, text) in files("rs") {
        for word in banned {
            assert!(!text.contains(word), "{name} contains {word}");
        }
        if !name.starts_with("tests/") && !name.contains("/tests") {
            assert!(
                !code(&text).contains(".unwrap()"),
                "{name}: say why it holds, with expect"
            );
        }
    }
}

#[test]
fn unsafe_code_is_where_it_is_expected() {
    for (name, text) in files("rs") {
        let uses = code(&text).contains(concat!("uns", "afe {"))
            || code(&text).contains(concat!("uns", "afe impl"));
        let listed = UNSAFE_FILES.contains(&name.as_str());
        assert!(
            listed || !uses || name.starts_with("tests/"),
            "{name} is not listed for unsafe code"
        );
    }
}

#[test]
fn the_pure_parts_are_pure() {
    for (name, text) in files("rs") {
        let pure = PURE.iter().any(|prefix| name.starts_with(prefix));
        if !pure
            || PURE_EXCEPT.iter().any(|prefix| name.starts_with(prefix))
            || name.contains("tests")
        {
            continue;
        }
        for word in IMPURE_WORDS {
            assert!(!code(&text).contains(word), "{name} uses {word}");
        }
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for (name, text) in files("md") {
        let directory = root()
            .join(&name)
            .parent()
            .expect("a directory")
            .to_path_buf();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                assert!(directory.join(path).exists(), "{name} links to {path}");
            }
        }
    }
}
