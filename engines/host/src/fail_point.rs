//! Places at which a test has an agent die, as a power cut or `kill -9` would have it die there.
//!
//! `SEALIFT_FAIL_POINT=NAME` kills the process when it comes to the point for the first time,
//! `NAME:3` for the third. `SEALIFT_PANIC_POINT` is the same with a panic, as a bug would have it.
//! Only builds with `debug_assertions` look at it: in a release build [`hit`] is nothing. Which
//! points there are is said by those who come to them.

pub use sealift_engine_api::FailPoint;

/// What the panic of a point holds, as if it were of a row: it is to be seen nowhere.
pub const PANIC_PAYLOAD: &str = "fail-point-payload-93b1";

/// Dies here, if that was asked for.
#[inline]
pub fn hit(point: FailPoint) {
    #[cfg(debug_assertions)]
    armed::hit(point.name);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::getpid,
    };

    use super::PANIC_PAYLOAD;

    /// The variable, and whether it asks for a kill.
    const VARIABLES: [(&str, bool); 2] = [("SEALIFT_FAIL_POINT", true), ("SEALIFT_PANIC_POINT", false)];

    struct Armed {
        name: String,
        /// Times it is still passed by.
        left: AtomicU32,
        kills: bool,
    }

    pub fn hit(name: &str) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let arm = |(variable, kills)| {
            let text = std::env::var(variable).ok()?;
            let (name, times) = parse(&text)?;
            Some(Armed { name: name.to_owned(), left: AtomicU32::new(times), kills })
        };
        let armed = ARMED.get_or_init(|| VARIABLES.into_iter().find_map(arm));
        let Some(armed) = armed else { return };
        if armed.name == name && armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            if !armed.kills {
                panic!("{PANIC_PAYLOAD}");
            }
            // No destructor runs and nothing is flushed, as when the machine goes.
            let _ = kill(getpid(), Signal::SIGKILL);
            std::process::abort();
        }
    }

    /// `NAME` or `NAME:TIMES`.
    pub fn parse(text: &str) -> Option<(&str, u32)> {
        match text.split_once(':') {
            Some((name, times)) => Some((name, times.parse().ok().filter(|&times| times > 0)?)),
            None => Some((text, 1)),
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::armed::parse;

    #[test]
    fn a_point_is_named_with_or_without_a_number() {
        assert_eq!(parse("load-ending"), Some(("load-ending", 1)));
        assert_eq!(parse("load-ending:7"), Some(("load-ending", 7)));
        for text in ["load-ending:", "load-ending:0", "load-ending:x"] {
            assert_eq!(parse(text), None);
        }
    }
}
