//! Machines with something missing: a kernel without io_uring, limits, another user, another file system.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Whether this process may mount and change users.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn instruction(code: u32, jump_true: u8, jump_false: u8, k: u32) -> libc::sock_filter {
    let code = code as u16;
    libc::sock_filter {
        code,
        jt: jump_true,
        jf: jump_false,
        k,
    }
}

/// Lets io_uring_setup fail in the child with this error number, as seccomp profiles of containers do.
pub fn without_io_uring(command: &mut Command, errno: i32) {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    // Offset 0 of seccomp_data is the number of the system call.
    let filter = [
        instruction(load, 0, 0, 0),
        instruction(equal, 0, 1, libc::SYS_io_uring_setup as u32),
        instruction(
            answer,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(),
        ),
        instruction(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY:
        // * the first call takes numbers only;
        // * the second reads a program that lives until it returns, of as many instructions as it says.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                ) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls, on values that it owns; it neither allocates nor locks.
    unsafe { command.pre_exec(install) };
}

/// Sets a resource limit in the child.
pub fn with_limit(command: &mut Command, resource: libc::__rlimit_resource_t, bytes: u64) {
    let install = move || {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: bytes,
        };
        // SAFETY: reads a structure that lives until the call returns.
        let failed = unsafe { libc::setrlimit(resource, &raw const limit) != 0 };
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes one system call, on a value that it owns; it neither allocates nor locks.
    unsafe { command.pre_exec(install) };
}

/// The user that owns nothing.
pub const NOBODY: u32 = 65_534;

/// Runs the child as `nobody`, without capabilities. Limits are to be set before.
pub fn as_nobody(command: &mut Command) {
    command.uid(NOBODY).gid(NOBODY);
}

/// A script in a mount namespace of its own, where `directory` is a file system of this type; nothing outside sees it.
pub fn with_file_system(kind: &str, options: &str, directory: &Path, script: &str) -> Command {
    let mut command = Command::new("unshare");
    let mount = format!("mount -t {kind} -o {options} none \"$0\" && {{ {script}\n}}");
    command.args(["--mount", "sh", "-c", &mount]).arg(directory);
    command
}
