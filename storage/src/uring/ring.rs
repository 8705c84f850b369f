//! The ring itself: how it is built on kernels old and new, the queue in front of it, and the one system call of a turn.

use super::{UringError, Wait};
use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{Builder, CompletionQueue, IoUring, SubmissionQueue, Submitter, opcode, squeue};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// IORING_ENTER_GETEVENTS, which the crate keeps to itself: run deferred work, so that completions appear.
const ENTER_GETEVENTS: u32 = 1;

/// Enters in one turn, beyond which a queue that does not shrink is a broken kernel. A turn needs one for each ring-full
/// of entries.
const ENTERS_MAX: usize = 1024;

/// A completion, as the kernel wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) code: i32,
    pub(super) flags: u32,
}

/// The three parts of a ring, split once and kept: the registered descriptor lives in this very `Submitter`.
///
/// Entries go through `backlog` into the kernel's submission queue. The backlog is bounded by the caller's in-flight
/// tables, so it is never full; the completion queue holds at least as many, so it never overflows.
pub(super) struct Ring {
    submitter: ManuallyDrop<Submitter<'static>>,
    submissions: ManuallyDrop<SubmissionQueue<'static>>,
    completions: ManuallyDrop<CompletionQueue<'static>>,
    owner: NonNull<IoUring>,
    backlog: VecDeque<Entry>,
    backlog_max: usize,
    entries: u32,
    mode: &'static str,
}

impl Ring {
    /// A ring of `entries`, for at most `in_flight_max` operations at once.
    pub(super) fn new(entries: u32, in_flight_max: usize) -> Result<Self, UringError> {
        let (ring, mode) = build(entries, in_flight_max)?;
        if !ring.params().is_feature_ext_arg() {
            return Err(UringError::TooOld {
                feature: "waits with a timeout (IORING_FEAT_EXT_ARG)",
            });
        }
        if !ring.params().is_feature_nodrop() || !ring.params().is_feature_submit_stable() {
            return Err(UringError::TooOld {
                feature: "reliable completions (IORING_FEAT_NODROP)",
            });
        }
        let owner = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY:
        // - `owner` came from a box just leaked, so it is valid until `drop` frees it, after the three parts;
        // - nothing but the parts refers to the ring in between.
        let (submitter, submissions, completions) = unsafe { &mut *owner.as_ptr() }.split();
        let mut ring = Self {
            submitter: ManuallyDrop::new(submitter),
            submissions: ManuallyDrop::new(submissions),
            completions: ManuallyDrop::new(completions),
            owner,
            backlog: VecDeque::with_capacity(in_flight_max),
            backlog_max: in_flight_max,
            entries,
            mode,
        };
        // Saves a look-up in every enter; kernels before 5.18 do without.
        if let Err(error) = ring.submitter.register_ring_fd() {
            log::debug!("the ring's descriptor is not registered: {error}");
        }
        ring.probe()?;
        Ok(ring)
    }

    /// A set-up that succeeds proves nothing: a filter may still forbid the enter.
    fn probe(&mut self) -> Result<(), UringError> {
        self.push(opcode::Nop::new().build());
        for _ in 0..ENTERS_MAX {
            self.enter(Wait::AtMost(std::time::Duration::from_secs(1)))?;
            if let Some(completion) = self.next_completion() {
                return match completion.code {
                    0 => Ok(()),
                    code => Err(UringError::new("a no-op", self.entries, -code)),
                };
            }
        }
        Err(UringError::new("a no-op", self.entries, libc::ETIME))
    }

    /// Which flags the kernel accepted, for people.
    pub(super) fn mode(&self) -> &'static str {
        self.mode
    }

    pub(super) fn submitter(&self) -> &Submitter<'static> {
        &self.submitter
    }

    /// Queues an entry for the next enter. What it points to stays in place until its completion: the caller's tables
    /// see to that.
    pub(super) fn push(&mut self, entry: Entry) {
        assert!(
            self.backlog.len() < self.backlog_max,
            "more operations queued than the tables hold"
        );
        self.backlog.push_back(entry);
    }

    /// Moves the backlog into the submission queue as far as it fits. A linked pair is never torn: the link would not
    /// reach across two enters.
    fn fill(&mut self) {
        let link = squeue::Flags::IO_LINK.bits();
        self.submissions.sync();
        while let Some(entry) = self.backlog.front() {
            let room = self.submissions.capacity() - self.submissions.len();
            let needed = if flags_of(entry) & link == link { 2 } else { 1 };
            if room < needed {
                break;
            }
            for _ in 0..needed {
                let entry = self.backlog.pop_front().expect("a link has a second half");
                // SAFETY: the caller of `push` keeps the entry's memory in place until its completion.
                unsafe { self.submissions.push(&entry) }.expect("room was checked");
            }
        }
        self.submissions.sync();
    }

    /// Submits everything queued, and waits as told. One system call, unless more is queued than the ring holds.
    pub(super) fn enter(&mut self, wait: Wait) -> Result<(), UringError> {
        for _ in 0..ENTERS_MAX {
            self.fill();
            if !self.backlog.is_empty() {
                self.enter_once(Wait::Poll)?;
                continue;
            }
            return self.enter_once(wait);
        }
        Err(UringError::new("io_uring_enter", self.entries, libc::EBUSY))
    }

    fn enter_once(&mut self, wait: Wait) -> Result<(), UringError> {
        self.completions.sync();
        let wait = if self.completions.is_empty() {
            wait
        } else {
            Wait::Poll
        };
        let result = match wait {
            Wait::Poll => {
                let idle = self.submissions.is_empty()
                    && !self.submissions.taskrun()
                    && !self.submissions.cq_overflow();
                if idle {
                    return Ok(());
                }
                let queued = self.submissions.len() as u32;
                // SAFETY: no argument is passed, so the parameters are the numbers alone, and they are right.
                unsafe {
                    self.submitter
                        .enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None)
                }
            }
            Wait::AtMost(duration) => {
                let timeout = Timespec::from(duration);
                let arguments = SubmitArgs::new().timespec(&timeout);
                self.submitter.submit_with_args(1, &arguments)
            }
        };
        self.submissions.sync();
        match result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)) {
            Ok(_) => Ok(()),
            // Time is up, a signal came, or the kernel is short of memory for the moment: the next turn goes on.
            Err(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
            Err(errno) => Err(UringError::new("io_uring_enter", self.entries, errno)),
        }
    }

    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        let mut entry = self.completions.next();
        if entry.is_none() {
            self.completions.sync();
            entry = self.completions.next();
        }
        entry.map(|entry| Completion {
            user_data: entry.user_data(),
            code: entry.result(),
            flags: entry.flags(),
        })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY:
        // - each part is dropped once, here, and not used afterwards;
        // - the parts, the only borrowers of the ring, are gone before the box is freed.
        unsafe {
            ManuallyDrop::drop(&mut self.submitter);
            ManuallyDrop::drop(&mut self.submissions);
            ManuallyDrop::drop(&mut self.completions);
            drop(Box::from_raw(self.owner.as_ptr()));
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Ring({} entries, {})", self.entries, self.mode)
    }
}

/// An entry's flags. The crate has no getter; its debug form is no substitute.
fn flags_of(entry: &Entry) -> u8 {
    // SAFETY: an entry is `repr(C)` and begins, as the kernel defines it, with its opcode and its flags, a byte each.
    unsafe { *std::ptr::from_ref(entry).cast::<u8>().add(1) }
}

/// The best ring that this kernel builds.
fn build(entries: u32, in_flight_max: usize) -> Result<(IoUring, &'static str), UringError> {
    type Change = fn(&mut Builder<squeue::Entry, io_uring::cqueue::Entry>);
    // Each with the kernel that brought it. EINVAL: the kernel does not know a flag, the next line is tried.
    let modes: [(&'static str, Change); 4] = [
        ("single issuer, deferred work, no index array", |b| {
            b.setup_single_issuer().setup_defer_taskrun(); // 6.0, 6.1
            b.setup_submit_all().setup_taskrun_flag().setup_no_sqarray(); // 5.18, 5.19, 6.6
        }),
        ("single issuer, deferred work", |b| {
            b.setup_single_issuer().setup_defer_taskrun();
            b.setup_submit_all().setup_taskrun_flag();
        }),
        ("cooperative work", |b| {
            b.setup_coop_taskrun().setup_taskrun_flag(); // 5.19
            b.setup_submit_all();
        }),
        ("plain", |_| {}),
    ];
    let completions = (in_flight_max as u32 + 1).max(2 * entries);
    let mut errno = libc::EINVAL;
    for (mode, change) in modes {
        let mut builder = IoUring::builder();
        change(&mut builder);
        builder.setup_cqsize(completions.next_power_of_two());
        match builder.build(entries) {
            Ok(ring) => return Ok((ring, mode)),
            Err(error) => errno = error.raw_os_error().unwrap_or(libc::EIO),
        }
        if errno != libc::EINVAL {
            break;
        }
    }
    Err(UringError::new("io_uring_setup", entries, errno))
}
