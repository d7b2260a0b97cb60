//! Lanes on random schedules, each with a seed that replays it.

use std::{cell::Cell, rc::Rc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use proptest::prelude::*;
use sealift_protocol::limits::LANES_MAX;
use tokio::{sync::watch, task::yield_now};

use super::*;

/// A lane's chunks are at work side by side and leave in order, and those of a lane leave only when
/// all lanes before it have ended: so slow is a target with one writer.
async fn run_lane(budget: Budget, place: usize, chunks: Vec<(usize, u8)>, turn: Rc<watch::Sender<usize>>, most: Most) {
    let lane = budget.open_lane().await.unwrap();
    let work = stream::iter(chunks).then(|(bytes, steps)| {
        let (lane, most) = (&lane, most.clone());
        async move { (most.take(lane, bytes).await, steps) }
    });
    let at_work = work.map(|(mut held, steps)| async move {
        for _ in 0..steps {
            yield_now().await;
        }
        held.held.shrink(1 << 20);
        held
    });
    let mut leaving = Box::pin(at_work.buffered(8));
    while let Some(held) = leaving.next().await {
        let _ = turn.subscribe().wait_for(|turn| *turn >= place).await;
        drop(held);
    }
    turn.send_modify(|turn| *turn += 1);
}

/// What all lanes hold together.
#[derive(Clone, Default)]
struct Most(Rc<Cell<usize>>, Rc<Cell<usize>>);

struct Counted {
    held: Room,
    bytes: usize,
    now: Rc<Cell<usize>>,
}

impl Most {
    async fn take(&self, lane: &LaneBudget, bytes: usize) -> Counted {
        let held = lane.take(bytes).await.unwrap();
        // Shrinking gives back at once; what is counted is the least that remains.
        let bytes = bytes.min(1 << 20);
        self.0.set(self.0.get() + bytes);
        self.1.set(self.1.get().max(self.0.get()));
        Counted { held, bytes, now: Rc::clone(&self.0) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.now.set(self.now.get() - self.bytes);
    }
}

fn any_chunks() -> impl Strategy<Value = Vec<Vec<(usize, u8)>>> {
    let chunk = (1..=FRAME_BYTES_MAX + CHUNK_PLAIN_BYTES_MAX, 0..6u8);
    prop::collection::vec(prop::collection::vec(chunk, 0..40), 1..=usize::from(LANES_MAX))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Issue 10, item 3: whatever the budget, the number of lanes and their chunks, all lanes end,
    /// nothing is held that is not there, and everything is given back.
    #[test]
    fn lanes_never_wait_for_each_other(lanes in any_chunks(), spare in 0..(256usize << 20)) {
        let memory = (2 * LANE_BYTES + spare) as u64;
        let budget = Budget::new(memory);
        let all = budget.pool.available_permits();
        let most = Most::default();
        let turn = Rc::new(watch::channel(0).0);
        let running = lanes.into_iter().enumerate().map(|(place, chunks)| {
            run_lane(budget.clone(), place, chunks, Rc::clone(&turn), most.clone())
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ended = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), futures_util::future::join_all(running)).await
        });
        prop_assert!(ended.is_ok(), "lanes wait for each other");
        prop_assert!(most.1.get() <= all);
        prop_assert_eq!(budget.pool.available_permits(), all);
    }
}

/// Issue 10, item 3: with the smallest budget, what fills a spool and what reads it have a half
/// each, and wait each for its own.
#[tokio::test]
async fn the_halves_of_a_lane_do_not_wait_for_each_other() {
    let budget = Budget::new(2 * LANE_BYTES as u64);
    let (one, other) = budget.open_lane().await.unwrap().halves();
    let held = one.take(LANE_BYTES).await.unwrap();
    assert!(one.take(1).now_or_never().is_none());
    let frame = other.take(FRAME_BYTES_MAX).now_or_never().unwrap().unwrap();
    assert!(other.take(1).now_or_never().is_none());
    drop(held);
    assert!(one.take(3 * CHUNK_PLAIN_BYTES).now_or_never().is_some());
    drop((one, other));
    assert_eq!(budget.pool.available_permits(), 0, "a frame is held");
    drop(frame);
    assert_eq!(budget.pool.available_permits(), LANE_BYTES);
}

/// A lane that has more than its reserve keeps no other from opening once that is given back, and
/// takes none of what the other waits for.
#[tokio::test]
async fn a_lane_waits_for_its_reserve_and_gets_it() {
    let budget = Budget::new(4 * LANE_BYTES as u64);
    let first = budget.open_lane().await.unwrap();
    let own = first.take(LANE_BYTES).await.unwrap();
    let more = first.take(LANE_BYTES).await.unwrap();
    let opening = budget.open_lane();
    tokio::pin!(opening);
    assert!((&mut opening).now_or_never().is_none());
    drop(more);
    assert!(first.take(LANE_BYTES).now_or_never().is_none());
    let second = opening.await.unwrap();
    drop((first, second));
    assert_eq!(budget.pool.available_permits(), LANE_BYTES);
    drop(own);
    assert_eq!(budget.pool.available_permits(), 2 * LANE_BYTES);
}
