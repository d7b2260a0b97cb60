//! Steps that do not depend on each other, each in a session of the staged database.

use std::{
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use sealift_protocol::failure::{Failure, Outcome};

use super::{session::Session, shared::SharedLoad};

/// Calls `step` for each of `items`, in their order, on up to `workers` threads with a session
/// each. After a failure none is begun any more, and the first failure is returned.
pub fn for_each<T: Sync>(
    shared: &SharedLoad,
    workers: NonZero<usize>,
    items: &[T],
    step: impl Fn(&mut Session, &T) -> Outcome + Sync,
) -> Outcome {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let has_failed = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    let work = || -> Outcome {
        let mut session = shared.session()?;
        while !has_failed()
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            shared.check_stop()?;
            step(&mut session, item)?;
        }
        shared.give_back(session);
        Ok(())
    };
    thread::scope(|scope| {
        for _ in 0..workers.get().min(items.len()) {
            scope.spawn(|| {
                if let Err(failure) = work() {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}
