//! The real binary makes data files: whole or not at all, and looks at any file without falling over.

#![cfg(feature = "cli")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use storage::layout::{Geometry, Layout, SUPERBLOCK_COPY_DISTANCE};
use viewstone::server::data_file::{DataFileError, open};
use viewstone::storage;
use viewstone::storage::superblock::{Expected, Mismatch, OpenError};

/// An empty directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("format-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("0.viewstone")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the directory is readable");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn viewstone(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viewstone"));
    command.args(arguments);
    command
}

fn format_command(file: &Path, more: &[&str]) -> Command {
    let mut command = viewstone(&["format", "--cluster", "0xc1", "--replica", "1"]);
    command.args(["--replica-count", "3"]).args(more).arg(file);
    command
}

fn output(mut command: Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code().expect("it exits"), text(stdout), text(stderr))
}

fn formatted(directory: &Directory) -> PathBuf {
    let (status, _, error) = output(format_command(&directory.file(), &["--small"]));
    assert_eq!(status, 0, "{error}");
    directory.file()
}

fn inspect(file: &Path) -> serde_json::Value {
    let mut command = viewstone(&["inspect", "--json"]);
    command.arg(file);
    let (status, text, error) = output(command);
    assert_eq!(status, 0, "{error}");
    serde_json::from_str(&text).expect("one JSON object")
}

fn verify(file: &Path) -> i32 {
    let mut command = viewstone(&["verify"]);
    command.arg(file);
    output(command).0
}

#[test]
fn format_makes_a_whole_file_of_mode_0600() {
    let directory = Directory::new();
    let file = formatted(&directory);
    let metadata = fs::metadata(&file).expect("the file is there");
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), Layout::new(Geometry::SMALL).size);
    assert!(
        metadata.blocks() * 512 >= metadata.len(),
        "every block is there"
    );
    assert_eq!(directory.names(), ["0.viewstone"]);
    let found = inspect(&file);
    assert_eq!(found["sound"], true);
    assert_eq!(found["in_use"], false);
    assert_eq!(found["superblock"]["cluster"], format!("{:#034x}", 0xc1));
    assert_eq!(found["superblock"]["replica"], 1);
    assert_eq!(found["superblock"]["replica_count"], 3);
    assert_eq!(found["superblock"]["start"], "blank");
    assert_eq!(verify(&file), 0);
}

#[test]
fn every_file_has_an_id_of_its_own() {
    let ids = [(); 2].map(|()| {
        let directory = Directory::new();
        let id = inspect(&formatted(&directory))["superblock"]["file"].clone();
        u128::from_str_radix(id.as_str().expect("a string"), 16).expect("128 bits")
    });
    assert!(ids[0] != ids[1] && !ids.contains(&0));
}

#[test]
fn an_existing_file_is_refused_and_untouched() {
    let directory = Directory::new();
    fs::write(directory.file(), b"precious").expect("written");
    let (status, _, error) = output(format_command(&directory.file(), &["--small"]));
    assert_eq!(status, 5);
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(fs::read(directory.file()).expect("readable"), b"precious");
    let dangling = directory.0.join("link");
    std::os::unix::fs::symlink("/nowhere", &dangling).expect("a link");
    assert_eq!(output(format_command(&dangling, &["--small"])).0, 5);
}

#[test]
fn impossible_numbers_and_places_are_named() {
    let directory = Directory::new();
    let fails = |command, status, words: &str| {
        let (found, _, error) = output(command);
        assert_eq!(found, status, "{error}");
        assert!(error.contains(words), "{error}");
        assert!(directory.names().is_empty());
    };
    let file = directory.file();
    fails(
        format_command(&file, &["--slots", "1000"]),
        2,
        "journal slots is 1000",
    );
    fails(
        format_command(&file, &["--state-size", "7QiB"]),
        2,
        "KiB, MiB, GiB or TiB",
    );
    fails(
        format_command(&file, &["--small", "--large"]),
        2,
        "cannot be used with",
    );
    fails(
        format_command(&file, &["--state-size", "1MiB"]),
        2,
        "state size",
    );
    let nowhere = directory.0.join("missing/0.viewstone");
    fails(
        format_command(&nowhere, &["--small"]),
        3,
        "does not exist. Make it first",
    );
    let mut three = viewstone(&["format", "--replica", "3", "--replica-count", "3"]);
    three.arg(&file);
    fails(three, 2, "from 0 to 2");
}

#[test]
fn one_and_two_replicas_are_told_what_they_do_not_give() {
    for (count, words) in [("1", "the loss of its disk"), ("2", "both must be up")] {
        let directory = Directory::new();
        let mut command = viewstone(&["format", "--small", "--replica", "0", "--replica-count"]);
        command.arg(count).arg(directory.file());
        let (status, _, error) = output(command);
        assert!(status == 0 && error.contains(words), "{error}");
        let ack = &inspect(&directory.file())["superblock"]["geometry"]["journal_ack"];
        assert!(count == "1" || ack == "both");
    }
}

/// A format of 1 GiB, killed while it writes: after its first bytes, and after some of the zeros.
#[test]
fn a_killed_format_leaves_nothing() {
    for written in [1_u64, 64 << 20] {
        let directory = Directory::new();
        let mut child = format_command(&directory.file(), &[])
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let progress = PathBuf::from(format!("/proc/{}/io", child.id()));
        let bytes = || -> u64 {
            let text = fs::read_to_string(&progress).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
            line.map_or(0, |count| count.parse().expect("a number"))
        };
        while bytes() < written {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "it ended before it was killed: {ended:?}");
            std::thread::yield_now();
        }
        child.kill().expect("it runs");
        let status = child.wait().expect("it ends");
        assert!(!status.success());
        assert!(directory.names().is_empty(), "{:?}", directory.names());
    }
}

/// Whether the tests run as root, who may mount; others skip with a reason.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("{test}: skipped, it needs root");
    }
    root
}

/// Runs a script in a mount namespace of its own, with the binary as `$0` and a directory as `$1`. What it mounts
/// vanishes with it.
fn in_namespace(directory: &Directory, script: &str) -> Option<(i32, String, String)> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script]);
    command
        .arg(env!("CARGO_BIN_EXE_viewstone"))
        .arg(&directory.0);
    let (status, out, error) = output(command);
    if error.contains("unshare") || error.contains("mount:") {
        eprintln!("skipped, no mount namespace here: {error}");
        return None;
    }
    Some((status, out, error))
}

#[test]
fn a_full_disk_is_told_and_left_as_it_was() {
    if !is_root("a_full_disk_is_told_and_left_as_it_was") {
        return;
    }
    let directory = Directory::new();
    let script = r#"
        mount -t tmpfs -o size=8m none "$1"
        code=0
        "$0" format --small --replica 0 --replica-count 1 "$1/file" || code=$?
        ls -A "$1"
        exit $code"#;
    let Some((status, out, error)) = in_namespace(&directory, script) else {
        return;
    };
    assert_eq!((status, out.as_str()), (7, ""), "{error}");
    assert!(
        error.contains("no space for") && error.contains("8 MiB are free"),
        "{error}"
    );
}

#[test]
fn a_directory_without_permission_is_told() {
    if !is_root("a_directory_without_permission_is_told") {
        return;
    }
    let directory = Directory::new();
    let script = r#"
        mount -t tmpfs -o ro none "$1"
        exec "$0" format --small --replica 0 --replica-count 1 "$1/file""#;
    let Some((status, _, error)) = in_namespace(&directory, script) else {
        return;
    };
    assert_eq!(status, 6, "{error}");
    assert!(
        error.contains("no permission to create a file in"),
        "{error}"
    );
}

/// Set to a directory on ramfs in the run of the test that is inside the namespace.
const RAMFS: &str = "VIEWSTONE_TEST_RAMFS";

#[test]
fn a_file_system_without_direct_access_is_refused_unless_for_development() {
    let name = "a_file_system_without_direct_access_is_refused_unless_for_development";
    if let Some(directory) = std::env::var_os(RAMFS) {
        let file = Path::new(&directory).join("file");
        let any = Expected::default();
        assert!(matches!(
            open(&file, &any, false),
            Err(DataFileError::NoDirect(_))
        ));
        assert!(!open(&file, &any, true).expect("for development").direct);
        return;
    }
    if !is_root(name) {
        return;
    }
    let directory = Directory::new();
    let this = std::env::current_exe().expect("a test is a program");
    let script = format!(
        r#"
        mount -t ramfs none "$1"
        "$0" format --small --replica 0 --replica-count 1 "$1/file"
        "$0" verify "$1/file"
        {RAMFS}="$1" exec {} --exact {name}"#,
        this.display()
    );
    let Some((status, out, error)) = in_namespace(&directory, &script) else {
        return;
    };
    assert_eq!(status, 0, "{out}{error}");
    assert!(
        out.contains("sound (file, superblock, journal, checkpoint, pages)")
            && out.contains("1 passed"),
        "{out}"
    );
}

#[test]
fn a_block_device_is_formatted_in_place_once() {
    if !is_root("a_block_device_is_formatted_in_place_once") {
        return;
    }
    let directory = Directory::new();
    let image = directory.0.join("image");
    let size = Layout::new(Geometry::SMALL).size;
    let make = fs::File::create(&image).and_then(|file| file.set_len(size));
    make.expect("a sparse file");
    let losetup = Command::new("losetup")
        .args(["--show", "-f"])
        .arg(&image)
        .output();
    let Some(losetup) = losetup.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped, no loop devices here");
        return;
    };
    let device = String::from_utf8(losetup.stdout).expect("a path");
    let device = Path::new(device.trim());
    let first = output(format_command(device, &["--small"]));
    let again = output(format_command(device, &["--small"]));
    let large = output(format_command(device, &[]));
    let verified = verify(device);
    let detached = Command::new("losetup").arg("-d").arg(device).status();
    assert!(detached.expect("losetup runs").success());
    assert_eq!((first.0, verified), (0, 0), "{}", first.2);
    assert!(
        again.0 == 5 && again.2.contains("is not zeros"),
        "{}",
        again.2
    );
    assert!(
        large.0 == 7 && large.2.contains("Choose a smaller geometry"),
        "{}",
        large.2
    );
}

#[test]
fn files_that_cannot_be_opened_each_have_their_own_error() {
    let directory = Directory::new();
    let path = directory.0.join("other");
    let opening = |path: &Path, expected: &Expected| open(path, expected, false);
    let any = Expected::default();
    let superblock = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        match opening(&path, &any) {
            Err(DataFileError::Superblock { error, .. }) => error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(superblock(&vec![0; 2 << 20]), OpenError::NotFormatted);
    let noise: Vec<u8> = (0..2_u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    assert_eq!(superblock(&noise), OpenError::NotADataFile);
    assert_eq!(superblock(b"short"), OpenError::NotADataFile);
    assert_eq!(verify(&path), 3);
    fs::write(&path, b"").expect("written");
    assert!(matches!(opening(&path, &any), Err(DataFileError::Empty(_))));
    assert!(matches!(
        opening(&directory.0, &any),
        Err(DataFileError::NotAFile(_))
    ));
    fs::remove_file(&path).expect("removed");
    assert!(matches!(
        opening(&path, &any),
        Err(DataFileError::Missing(_))
    ));

    let file = formatted(&directory);
    let foreign = Expected {
        cluster: Some(0xc2),
        ..any
    };
    let error = opening(&file, &foreign).expect_err("another cluster's");
    assert!(matches!(
        error,
        DataFileError::Mismatch {
            error: Mismatch::Cluster { .. },
            ..
        }
    ));
    let wrong = Expected {
        replica: Some(0),
        ..any
    };
    let error = opening(&file, &wrong).expect_err("another replica's");
    assert!(error.to_string().contains("replica 1, not to replica 0"));
}

#[test]
fn an_open_file_is_locked_also_within_one_process_and_can_be_inspected() {
    let directory = Directory::new();
    let file = formatted(&directory);
    let any = Expected::default();
    let opened = open(&file, &any, true).expect("the file opens");
    assert_eq!(opened.superblock.state.sequence, 1);
    assert!(matches!(
        open(&file, &any, true),
        Err(DataFileError::InUse(_))
    ));
    assert_eq!(inspect(&file)["in_use"], true);
    drop(opened);
    // A child that another test is just starting has our descriptors until it executes its program.
    let free = (0..1000).any(|_| inspect(&file)["in_use"] == false);
    assert!(free, "the lock is gone");
    let opened = (0..1000).find_map(|_| open(&file, &any, true).ok());
    opened.expect("the lock is gone");
}

#[test]
fn a_truncated_or_damaged_file_is_inspected_and_told() {
    let directory = Directory::new();
    let file = formatted(&directory);
    let handle = fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .expect("writable");
    let size = Layout::new(Geometry::SMALL).size;
    handle.set_len(size - 1).expect("truncated");
    let error = open(&file, &Expected::default(), true)
        .expect_err("truncated")
        .to_string();
    assert!(error.contains(&format!("{} bytes", size - 1)), "{error}");
    assert!(error.contains(&size.to_string()), "{error}");
    assert_eq!(verify(&file), 1);
    handle.set_len(size).expect("extended");
    assert_eq!(verify(&file), 0);

    for copy in 0..4 {
        assert_eq!(inspect(&file)["superblock"]["sequence"], 1);
        let at = (copy * SUPERBLOCK_COPY_DISTANCE) as u64 + 200;
        handle.write_all_at(b"decay", at).expect("written");
        assert_eq!(verify(&file), 1);
    }
    let found = inspect(&file);
    let error = found["superblock"]["error"]
        .as_str()
        .expect("no copy is left");
    assert!(error.contains("recover"), "{error}");
}

#[test]
fn help_teaches_with_examples_and_version_names_the_formats() {
    let (status, text, _) = output(viewstone(&["format", "--help"]));
    assert!(
        status == 0 && text.contains("--cluster 0x5eed --replica 2"),
        "{text}"
    );
    let (status, text, _) = output(viewstone(&["--help"]));
    assert!(status == 0 && text.contains("Exit status:"), "{text}");
    let mut child = viewstone(&["version", "--verbose"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    let mut first = String::new();
    reader.read_line(&mut first).expect("a line");
    assert!(
        first.starts_with("viewstone ") && first.contains("protocol 1"),
        "{first}"
    );
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("text");
    assert!(rest.contains("header size"), "{rest}");
    assert!(child.wait().expect("it ends").success());
}
