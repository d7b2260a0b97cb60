//! Threads are started before a transfer: a pool that cannot start its first thread ends the
//! process, and work that waits for one that never comes would wait without a word.

use std::{
    io,
    process::ExitCode,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::unistd::SysconfVar;
use sealift_protocol::close::Code;
use tokio::runtime::Runtime;

use crate::failure::{Failure, Outcome};

/// How long a thread of a pool that has nothing to do is kept: longer than any transfer.
pub const KEPT: Duration = Duration::from_secs(365 * 86_400);

/// The stack of each thread, whatever the environment says (RUST_MIN_STACK): SQLite and the
/// decoders of a debug build stay within half of it.
pub const STACK_BYTES: usize = 2 << 20;

/// That of the thread that runs a program, as large as the usual limit of a main thread.
const PROGRAM_STACK_BYTES: usize = 8 << 20;

/// For all threads of a pool to begin. If one does not, the pool works with fewer.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Processors that this process may use, at least 1.
pub fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    // Asked for with each part; the system reads files for the answer.
    *PROCESSORS.get_or_init(count_processors)
}

fn count_processors() -> usize {
    let online = nix::unistd::sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1);
    std::thread::available_parallelism().map_or(online.max(1) as usize, usize::from)
}

/// Runs a program on a stack that does not depend on the limit of its shell (ulimit -s), which may
/// be too low for it. Where no other thread is allowed, it runs on this one, and says what it
/// lacks.
pub fn run_program(program: fn() -> ExitCode) -> ExitCode {
    let started = thread::Builder::new().name("main".to_owned()).stack_size(PROGRAM_STACK_BYTES).spawn(program);
    match started {
        // A panic has ended the process before it could end the thread.
        Ok(thread) => thread.join().unwrap_or(ExitCode::FAILURE),
        Err(_) => program(),
    }
}

/// Whether this process may have so many threads more at once.
pub fn check(count: usize) -> Outcome {
    let (go_on, waiting) = mpsc::channel::<()>();
    let waiting = Arc::new(Mutex::new(waiting));
    let mut started = Vec::with_capacity(count);
    for _ in 0..count {
        let waiting = Arc::clone(&waiting);
        let wait = move || drop(waiting.lock().map(|waiting| waiting.recv()));
        let Ok(thread) = spawn("check", wait) else { break };
        started.push(thread);
    }
    drop(go_on);
    let possible = started.len();
    for thread in started {
        let _ = thread.join();
    }
    if possible < count {
        let what = format!("this process needs {count} threads and may start only {possible}");
        return Err(Failure::new(Code::Preflight, what, RAISE));
    }
    Ok(())
}

/// What to do where no more threads can be started.
pub const RAISE: &str = "Raise the limit: ulimit -u of this user, --pids-limit of a container, TasksMax= of a service.";

/// Has a pool start so many of its threads. There must be room for them: see [`check`].
pub fn start(pool: &Runtime, count: usize) {
    let begun = Arc::new((Mutex::new(0), Condvar::new()));
    for _ in 0..count {
        let begun = Arc::clone(&begun);
        pool.spawn_blocking(move || {
            let (number, changed) = &*begun;
            let mut number = number.lock().unwrap_or_else(PoisonError::into_inner);
            *number += 1;
            changed.notify_all();
            // One that ended at once would do the work of the next, too.
            drop(changed.wait_timeout_while(number, START_TIMEOUT, |number| *number < count));
        });
    }
}

/// A thread of its own for what takes as long as a transfer.
pub fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_its_threads_before_it_needs_them() {
        check(3).unwrap();
        let pool =
            tokio::runtime::Builder::new_current_thread().thread_name("kept").max_blocking_threads(3).build().unwrap();
        start(&pool, 3);
        // A thread gives itself its name.
        let waiting_since = std::time::Instant::now();
        while named("kept") < 3 {
            assert!(waiting_since.elapsed() < START_TIMEOUT, "{} threads", named("kept"));
            thread::yield_now();
        }
    }

    fn named(name: &str) -> usize {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let is_named = |path: std::path::PathBuf| std::fs::read_to_string(path).is_ok_and(|found| found.trim() == name);
        threads.filter(|thread| is_named(thread.path().join("comm"))).count()
    }
}
