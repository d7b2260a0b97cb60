//! What a process has from the one that started it, and what the programs that it starts have from it: dispositions of
//! signals, open descriptors, the controlling terminal, and the variables of a service manager.
//!
//! The one module of the product with unsafe code: sigaction(2), close_range(2), and what runs between fork and exec.
#![allow(unsafe_code)]

use std::{
    io, mem,
    os::{fd::RawFd, unix::process::CommandExt},
    process::Command,
    ptr,
};

use nix::{
    libc,
    sys::signal::{SigSet, Signal},
    unistd::SysconfVar,
};

/// The first descriptor behind the standard streams.
const FIRST_OTHER: RawFd = 3;

/// Where close_range(2) is missing, and no limit is set.
const DESCRIPTORS_MAX: i64 = 1 << 16;

/// Variables by which a service manager speaks with the process that it started, and with no other (systemd.exec(5),
/// sd_notify(3), sd_listen_fds(3)).
const SERVICE_VARIABLES: &[&str] = &[
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "MANAGERPID",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Undoes what would break this process: a parent may have left any signal blocked or ignored, and any file open. A child
/// could not be waited for while `SIGCHLD` is ignored, and the guard of a loader listens to `SIGUSR1` and ends by `SIGUSR2`.
/// The signals that ask a process to stop stay ignored ([`is_ignored`]). Call first in `main`, before any thread.
pub fn put_right() -> nix::Result<()> {
    for signal in [Signal::SIGCHLD, Signal::SIGUSR1, Signal::SIGUSR2] {
        restore_default(signal)?;
    }
    SigSet::empty().thread_set_mask()?;
    close_others_on_exec();
    Ok(())
}

/// Whether this process was started to ignore the signal, as `nohup` and a shell's background jobs are.
pub fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zeros is a valid `sigaction`, and with no new action the call writes to `found` alone.
    let mut found: libc::sigaction = unsafe { mem::zeroed() };
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut found) };
    asked == 0 && found.sa_sigaction == libc::SIG_IGN
}

fn restore_default(signal: Signal) -> nix::Result<()> {
    // SAFETY: all zeros is a valid `sigaction`: SIG_DFL, no flags, an empty mask. No handler is installed.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    let set = unsafe { libc::sigaction(signal as libc::c_int, &raw const default, ptr::null_mut()) };
    nix::errno::Errno::result(set).map(drop)
}

/// What was open when this process was started stays open for it, since a parent may hold a lock by it; and is for no
/// program that it starts.
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

/// For a program that a user named: in a process group of its own, without what is between this process and its service
/// manager, and without a terminal. A program in the background that asks for a password on the terminal would be stopped by
/// the kernel, and what is typed would be shown; without a terminal it finds that it cannot ask, and ends.
pub fn shut_off(command: &mut Command) -> &mut Command {
    for variable in SERVICE_VARIABLES {
        command.env_remove(variable);
    }
    command.process_group(0);
    // SAFETY: what it calls is async-signal-safe (signal-safety(7)), and it allocates nothing.
    unsafe { command.pre_exec(leave_terminal) }
}

/// Gives up the controlling terminal, if there is one, for this process and what it starts; its session goes on with it.
fn leave_terminal() -> io::Result<()> {
    // SAFETY: a descriptor that was opened here is used and closed here.
    unsafe {
        let terminal = libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        if terminal < 0 {
            return Ok(());
        }
        let left = libc::ioctl(terminal, libc::TIOCNOTTY);
        let error = io::Error::last_os_error();
        libc::close(terminal);
        if left == 0 { Ok(()) } else { Err(error) }
    }
}
