//! The threads that hash, compress, seal and open.

use std::{io, sync::LazyLock};

use sealift_protocol::close::Code;
use tokio::runtime::{Builder, Runtime};

use crate::{
    failure::{Failure, Outcome},
    threads,
    threads::processors,
};

/// As many as there are processors, whatever waits for them. More would take the processors from
/// each other in the middle of a chunk, and their caches with them, and each would have a
/// compression context of its own.
static WORKERS: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_current_thread()
        .max_blocking_threads(processors())
        .thread_keep_alive(threads::KEPT)
        .thread_stack_size(threads::STACK_BYTES)
        .build()
});

fn workers() -> Outcome<&'static Runtime> {
    WORKERS.as_ref().map_err(|error| Failure::io(Code::Preflight, "no worker can be started", error, ""))
}

/// Starts them before there is anything to do.
pub fn start() -> Outcome {
    threads::start(workers()?, processors());
    Ok(())
}

/// Runs what burns processor time, and waits for nothing, on one of the workers. They serve in the
/// order of the calls. Not cancel-safe: the job runs to its end, and its result is lost.
pub async fn work<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    let done = workers()?.spawn_blocking(job).await;
    done.map_err(|_| Failure::new(Code::Internal, "a worker ended early", ""))
}

/// Chunks that each lane may have at the workers at once, and in line for them. The oldest may have
/// to wait for its turn on the link, and every processor is to have another to continue with
/// meanwhile: with one chunk more than there are processors, two processors did nothing for 8 % of
/// the time.
pub fn chunks_at_work() -> usize {
    (2 * processors() + 2).min(CHUNKS_AT_WORK_MAX)
}

/// Each holds some 2 MiB, as it was and as it will be, which come out of the transfer's
/// [`crate::budget`].
const CHUNKS_AT_WORK_MAX: usize = 8;
