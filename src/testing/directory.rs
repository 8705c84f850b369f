//! A directory that nobody else has, for as long as somebody has it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A new directory. Removed, with all that is in it, when it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes one in `parent`, for this user alone; `random` keeps it apart from one that a killed process with our id left.
    pub fn new(parent: &Path, random: u32) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "viewstone-test-{}-{number}-{random:08x}",
            std::process::id()
        );
        let path = parent.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed stays; a test that passed does not fail for it.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_new_and_goes_with_its_content() {
        let parent = std::env::temp_dir();
        let one = Directory::new(&parent, 7).expect("a new directory");
        let other = Directory::new(&parent, 7).expect("a new directory");
        assert_ne!(one.path(), other.path());
        let path = one.path().to_path_buf();
        std::fs::write(path.join("file"), "content").expect("written");
        drop(one);
        assert!(!path.exists() && other.path().exists());
        assert!(Directory::new(&path, 7).is_err());
    }
}
