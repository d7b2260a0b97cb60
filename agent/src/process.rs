//! What a process does to itself before it touches data, so that nothing it holds ends up in a
//! file.

use nix::sys::{
    prctl,
    resource::{Resource, getrlimit, rlim_t, setrlimit},
    signal::{SigSet, Signal},
    stat::{Mode, umask},
};
use sealift_protocol::close::Code;

use crate::{
    failure::{Failure, Outcome},
    inherited,
    threads::{self, processors},
    units::human_bytes,
    workers,
};

/// Nothing that was inherited is in the way, no core dump, no other process of this user may read
/// its memory, new files are the owner's alone, and a panic says where it happened, nothing else,
/// and is the end. Call first in `main`, before any thread.
pub fn harden() -> Outcome {
    let refused = |what: &str| Failure::new(Code::Preflight, format!("this process cannot be protected: {what}"), "");
    inherited::put_right().map_err(|_| refused("signals"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|_| refused("core dumps stay on"))?;
    prctl::set_dumpable(false).map_err(|_| refused("its memory stays readable"))?;
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    // A file-size limit must be an error of write(2), not the end of the process.
    let mut file_size = SigSet::empty();
    file_size.add(Signal::SIGXFSZ);
    file_size.thread_block().map_err(|_| refused("signals"))?;
    report_panics();
    Ok(())
}

/// A panic says where it happened, nothing else, and is the end.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // The payload may hold anything; the place cannot.
        let place = panic.location().map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
        eprintln_safe(&format!("sealift: internal error{place}; the process stops."));
        // In every build, and before anything unwinds through work that is half done.
        std::process::abort();
    }));
}

/// Writes a line to standard error, whether or not it is still read.
pub fn eprintln_safe(line: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Whether this processor accelerates AES-GCM: what `--suite auto` goes by.
pub fn aes_accelerated() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// One thread for the link, since a current-thread runtime moves a fifth more than a pool; and a
/// bounded pool for what blocks. What burns processor time is for the [`crate::workers`].
pub fn runtime() -> Outcome<tokio::runtime::Runtime> {
    runtime_for(1)
}

/// As `runtime`, for so many transfers at once: none may wait for a thread that another one holds.
/// Fails if there cannot be so many threads; those of one transfer are started now and kept.
pub fn runtime_for(transfers: usize) -> Outcome<tokio::runtime::Runtime> {
    let threads_needed = transfers * BLOCKING_THREADS + processors() + OTHER_THREADS;
    allow_address_space(address_space_of(threads_needed) as rlim_t)?;
    keep_freed_buffers();
    allow_files((transfers * FILES_OF_TRANSFER + OTHER_FILES) as rlim_t)?;
    threads::check(threads_needed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(transfers * BLOCKING_THREADS)
        .thread_keep_alive(threads::KEPT)
        .thread_stack_size(threads::STACK_BYTES)
        .build()
        .map_err(|error| {
            let next = "Raise this process's limit of open files (ulimit -n).";
            Failure::io(Code::Preflight, "the runtime cannot be started", &error, next)
        })?;
    threads::start(&runtime, BLOCKING_THREADS);
    workers::start()?;
    Ok(runtime)
}

/// Files that are open at once must not be too few: a library that cannot open one ends the
/// process. The limit is raised as far as this process may; where that is not enough, it fails.
fn allow_files(needed: rlim_t) -> Outcome {
    let refused = |error: nix::errno::Errno| {
        Failure::io(Code::Preflight, "the limit of open files cannot be used", &error.into(), "")
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused)?;
    if hard < needed {
        let what = format!("this process needs {needed} open files and may have only {hard}");
        let next = "Raise the limit: ulimit -n, --ulimit nofile= of a container, LimitNOFILE= of a service.";
        return Err(Failure::new(Code::Preflight, what, next));
    }
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(refused)?;
    }
    Ok(())
}

/// An allocation that fails ends the process, in the middle of a transfer and without a word. So
/// the limit of its addresses is raised as far as this process may; where that is not enough, it
/// fails. It is no limit of memory: most of these addresses are never touched.
fn allow_address_space(needed: rlim_t) -> Outcome {
    let refused = |error: nix::errno::Errno| {
        Failure::io(Code::Preflight, "the limit of the address space cannot be used", &error.into(), "")
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).map_err(refused)?;
    if hard < needed {
        let needed = human_bytes(needed);
        let allowed = human_bytes(hard);
        let what = format!("this process needs {needed} of address space and may have only {allowed}");
        let next = "Raise the limit: ulimit -v of the shell, LimitAS= of a service. To bound memory, use --memory, or a cgroup.";
        return Err(Failure::new(Code::Preflight, what, next));
    }
    if soft < needed {
        setrlimit(Resource::RLIMIT_AS, needed, hard).map_err(refused)?;
    }
    Ok(())
}

/// Addresses of a process with so many threads: their stacks, what glibc sets aside for those that
/// allocate, and the rest.
fn address_space_of(threads: usize) -> usize {
    threads * threads::STACK_BYTES + threads.min(ARENAS_OF_PROCESSOR * processors()) * ARENA_BYTES + OTHER_ADDRESSES
}

/// glibc's bound of its arenas, and the addresses of each (mallopt(3), M_ARENA_MAX).
const ARENAS_OF_PROCESSOR: usize = 8;
const ARENA_BYTES: usize = 64 << 20;

/// The program, its libraries, and what is in flight by default.
const OTHER_ADDRESSES: usize = 512 << 20;

/// Those of the source or target, its journal or spool, record and lock, and pipes to a program.
const FILES_OF_TRANSFER: usize = 16;

/// Those of the runtime, the sockets, the audit log; and as many again that a parent may have left
/// open.
const OTHER_FILES: usize = 48;

/// A transfer frees and allocates buffers of a megabyte all the time. glibc gives such memory back
/// to the system at once, and every page of it is faulted in and zeroed again, a tenth of all
/// processor time; but it keeps up to twice the largest mapped block that was ever freed
/// (mallopt(3), M_MMAP_THRESHOLD). So one is freed here. Other allocators make nothing of it, and a
/// page that was never touched costs nothing.
fn keep_freed_buffers() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES / 2)));
}

/// Freed memory that each of glibc's arenas may keep: what a lane has in flight.
const KEPT_BYTES: usize = 32 << 20;

/// Threads of each transfer that wait rather than work: a writer for each lane, its journal, name
/// resolution, clean-up.
const BLOCKING_THREADS: usize = 2 * sealift_protocol::limits::LANES_MAX as usize + 4;

/// The source's, and those that read what a program prints.
const OTHER_THREADS: usize = 4;
