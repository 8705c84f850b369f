//! Why there is no ring, in words that tell the operator what to do.

/// What the kernel calls the switch.
const DISABLED_SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

/// The ring cannot be built or used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UringError {
    /// ENOSYS: the kernel was built without io_uring, is older than it, or a sandbox hides it.
    #[error(
        "this kernel offers no io_uring ({step}: ENOSYS). Viewstone needs Linux 5.11 or later (6.6 or later is best), \
         built with CONFIG_IO_URING; a sandbox that answers ENOSYS (gVisor, some seccomp profiles) must allow \
         io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Missing {
        /// The system call that was refused.
        step: &'static str,
    },
    /// EPERM, and the sysctl says why.
    #[error(
        "io_uring is switched off on this machine ({step}: EPERM, kernel.io_uring_disabled = {value}). Run `sysctl -w \
         kernel.io_uring_disabled=0`, or with the value 1 add the user to the group of kernel.io_uring_group"
    )]
    Disabled {
        /// The system call that was refused.
        step: &'static str,
        /// The sysctl's value.
        value: u8,
    },
    /// EPERM, and the sysctl is not the reason: a filter on system calls is.
    #[error(
        "io_uring is forbidden here by a system call filter ({step}: EPERM, while kernel.io_uring_disabled allows it). \
         In a container allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile (docker, \
         podman: --security-opt seccomp=PROFILE.json); under systemd add @io-uring to SystemCallFilter"
    )]
    Filtered {
        /// The system call that was refused.
        step: &'static str,
    },
    /// The kernel's io_uring lacks something we cannot do without.
    #[error(
        "this kernel's io_uring is too old: it lacks {feature}. Viewstone needs Linux 5.11 or later"
    )]
    TooOld {
        /// What is lacking.
        feature: &'static str,
    },
    /// ENOMEM or EMFILE.
    #[error(
        "no room for an io_uring of {entries} entries ({step}: errno {errno}). Raise the limits of locked memory \
         (`ulimit -l`, LimitMEMLOCK=) and open files (`ulimit -n`, LimitNOFILE=), or give the machine more memory"
    )]
    NoRoom {
        /// The system call that failed.
        step: &'static str,
        /// Size of the ring.
        entries: u32,
        /// The operating system's error number.
        errno: i32,
    },
    /// Anything else.
    #[error("io_uring failed ({step}: errno {errno})")]
    Other {
        /// The system call that failed.
        step: &'static str,
        /// The operating system's error number.
        errno: i32,
    },
}

impl UringError {
    /// Names the reason for `errno` at `step`.
    pub(super) fn new(step: &'static str, entries: u32, errno: i32) -> Self {
        match errno {
            libc::ENOSYS => Self::Missing { step },
            libc::EPERM | libc::EACCES => Self::forbidden(step, disabled_sysctl()),
            libc::ENOMEM | libc::EMFILE | libc::ENFILE => Self::NoRoom {
                step,
                entries,
                errno,
            },
            _ => Self::Other { step, errno },
        }
    }

    fn forbidden(step: &'static str, sysctl: u8) -> Self {
        match sysctl {
            0 => Self::Filtered { step },
            value => Self::Disabled { step, value },
        }
    }
}

/// The sysctl's value; kernels before 6.6 have none and allow everybody.
fn disabled_sysctl() -> u8 {
    let text = std::fs::read_to_string(DISABLED_SYSCTL).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_says_what_to_do() {
        let text = |error: UringError| error.to_string();
        let missing = text(UringError::new("io_uring_setup", 8, libc::ENOSYS));
        assert!(missing.contains("ENOSYS") && missing.contains("5.11"));
        let disabled = text(UringError::forbidden("io_uring_setup", 2));
        assert!(disabled.contains("sysctl -w kernel.io_uring_disabled=0"));
        let filtered = text(UringError::forbidden("io_uring_setup", 0));
        assert!(filtered.contains("seccomp") && filtered.contains("EPERM"));
        let no_room = text(UringError::new("io_uring_setup", 8, libc::ENOMEM));
        assert!(no_room.contains("ulimit -l"));
    }
}
