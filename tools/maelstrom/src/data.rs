//! The data file of a node: real, of a small geometry, formatted when Maelstrom says who the node is.
//!
//! Without a directory it has no name once it is open, and is gone with the process, however that ends. With one, a node
//! that is started again there goes on with what its file holds.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use storage::checksum;
use storage::format::Format;
use storage::layout::{Geometry, REPLICAS_MAX};
use storage::superblock::FileId;
use viewstone::server::data_file;
use viewstone::server::{Identity, hosting};

/// Of every data file: some tens of MiB on disk. More sessions than the nodes open, and those that they leave behind where
/// they are killed and started again.
const GEOMETRY: Geometry = Geometry {
    state_size: 12 << 20,
    sessions_max: 256,
    ..Geometry::SMALL
};

/// Who a node is, by its name and the names of all.
///
/// # Errors
/// They are no cluster.
pub fn identity(name: &str, names: &[String]) -> Result<Identity, String> {
    if names.len() > REPLICAS_MAX {
        return Err(format!(
            "a cluster has at most {REPLICAS_MAX} replicas, and these are {}",
            names.len()
        ));
    }
    let index = names.iter().position(|it| it == name);
    let index = index.ok_or_else(|| format!("{name} is not among the nodes"))?;
    if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
        return Err("a node is named twice".to_owned());
    }
    Ok(Identity {
        // All nodes must come to the same id by themselves.
        cluster: checksum::identity(names.join("\n").as_bytes()),
        replica: index as u8,
        replica_count: names.len() as u8,
        geometry: GEOMETRY,
    })
}

/// Opens the node's data file, after making it if there is none. Its identity, as the file has it.
///
/// # Errors
/// What is wrong with the place or the file.
pub fn open(
    identity: &Identity,
    directory: Option<&Path>,
) -> Result<(OwnedFd, Identity), Box<dyn Error>> {
    let Some(directory) = directory else {
        let directory = TemporaryDirectory::new()?;
        return open_in(identity, &directory.0);
    };
    fs::create_dir_all(directory)?;
    open_in(identity, directory)
}

fn open_in(identity: &Identity, directory: &Path) -> Result<(OwnedFd, Identity), Box<dyn Error>> {
    let path = directory.join(format!("{}.viewstone", identity.replica));
    if !path.exists() {
        format(identity, directory, &path)?;
    }
    // What Maelstrom tests is the protocol: a file system without direct access will do.
    let file = hosting::open(&path, true)?;
    let state = &file.superblock.state;
    let found = Identity {
        cluster: state.cluster,
        replica: state.replica,
        replica_count: state.replica_count,
        geometry: state.geometry,
    };
    let geometry = Geometry {
        journal_ack: found.geometry.journal_ack,
        ..identity.geometry
    };
    if found
        != (Identity {
            geometry,
            ..*identity
        })
    {
        return Err(format!("{} is another cluster's", path.display()).into());
    }
    Ok((file.fd, found))
}

fn format(identity: &Identity, directory: &Path, path: &Path) -> Result<(), Box<dyn Error>> {
    let device = data_file::probe(directory)?;
    let geometry = Geometry {
        journal_ack: device.journal_ack(identity.replica_count) as u8,
        ..identity.geometry
    };
    let file = FileId::of_random(u128::from_le_bytes(random()?));
    let format = Format::new(
        identity.cluster,
        file,
        identity.replica,
        identity.replica_count,
        geometry,
    )?;
    data_file::create(path, &format, |_, _| {})?;
    Ok(())
}

/// Random bytes of the kernel's.
///
/// # Errors
/// It gives none.
pub fn random<const SIZE: usize>() -> io::Result<[u8; SIZE]> {
    let mut bytes = [0; SIZE];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A directory that is removed with all that is in it.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new() -> io::Result<Self> {
        let name = format!("maelstrom-node-{:032x}", u128::from_le_bytes(random()?));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_agree_on_their_cluster_and_are_replicas_in_order() {
        let names = |count: usize| -> Vec<String> {
            (1..=count).map(|number| format!("n{number}")).collect()
        };
        let first = identity("n1", &names(3)).expect("a cluster");
        let third = identity("n3", &names(3)).expect("a cluster");
        assert_eq!((first.replica, third.replica), (0, 2));
        assert_eq!(first.cluster, third.cluster);
        assert!(first.is_consistent());
        assert_ne!(
            identity("n1", &names(5)).expect("a cluster").cluster,
            first.cluster
        );
        assert!(identity("n4", &names(3)).is_err());
        assert!(identity("n1", &names(REPLICAS_MAX + 1)).is_err());
        assert!(identity("n1", &["n1".to_owned(), "n1".to_owned()]).is_err());
        assert!(identity("n1", &[]).is_err());
    }
}
