//! What a process has from the one that started it: dispositions of signals and open descriptors.
//!
//! The one module of this crate with unsafe code: sigaction(2) and close_range(2).
#![allow(unsafe_code)]

use std::{mem, os::fd::RawFd, ptr};

use nix::{
    libc,
    sys::signal::{SigSet, Signal},
    unistd::SysconfVar,
};

/// The first descriptor behind the standard streams.
const FIRST_OTHER: RawFd = 3;

/// Where close_range(2) is missing, and no limit is set.
const DESCRIPTORS_MAX: i64 = 1 << 16;

/// Undoes what would break this process: a parent may have left any signal blocked or ignored, and
/// any file open. A child could not be waited for while `SIGCHLD` is ignored, and the guard of a
/// loader listens to `SIGUSR1` and ends by `SIGUSR2`. The signals that ask a process to stop stay
/// ignored ([`is_ignored`]). Call first in `main`, before any thread.
pub fn put_right() -> nix::Result<()> {
    for signal in [Signal::SIGCHLD, Signal::SIGUSR1, Signal::SIGUSR2] {
        restore_default(signal)?;
    }
    SigSet::empty().thread_set_mask()?;
    close_others_on_exec();
    Ok(())
}

/// Whether this process was started to ignore the signal, as `nohup` and a shell's background jobs
/// are.
pub fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zeros is a valid `sigaction`, and with no new action the call writes to `found`
    // alone.
    let mut found: libc::sigaction = unsafe { mem::zeroed() };
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut found) };
    asked == 0 && found.sa_sigaction == libc::SIG_IGN
}

fn restore_default(signal: Signal) -> nix::Result<()> {
    // SAFETY: all zeros is a valid `sigaction`: SIG_DFL, no flags, an empty mask. No handler is
    // installed.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    let set = unsafe { libc::sigaction(signal as libc::c_int, &raw const default, ptr::null_mut()) };
    nix::errno::Errno::result(set).map(drop)
}

/// What was open when this process was started stays open for it, since a parent may hold a lock by
/// it; and is for no program that it starts.
fn close_others_on_exec() {
    // SAFETY: sets a flag of descriptors; none is closed.
    let set = unsafe {
        libc::close_range(FIRST_OTHER as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int)
    };
    if set == 0 {
        return;
    }
    let open_max = nix::unistd::sysconf(SysconfVar::OPEN_MAX).ok().flatten().unwrap_or(DESCRIPTORS_MAX);
    for descriptor in FIRST_OTHER..open_max.min(DESCRIPTORS_MAX) as RawFd {
        // SAFETY: sets a flag of a descriptor, or fails where none is open.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
