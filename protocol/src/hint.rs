//! What to do next, as values. They are rendered where a person or a program reads them; no control
//! flow looks at a text.

use std::{borrow::Cow, fmt};

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing is visible in the target yet.
    NothingVisible,
    /// Start both sides again with the same commands and the same ticket.
    StartAgain(Restart),
    /// End the transfer for good instead.
    OrAbandon,
    /// Advice for one kind of failure. No control flow depends on it.
    Text(Cow<'static, str>),
}

/// What happens to a suspended transfer when both sides are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// It is resumed, unless its source or its target does not allow that.
    Resumes,
    /// It is resumed if the source has not changed meanwhile, and starts over if it has.
    ReadsLater,
    /// It is resumed on the snapshot of its source, which is held for so many seconds; after that,
    /// as of a new moment.
    SnapshotHeld {
        /// Counted from the end of this process.
        seconds: u64,
    },
    /// It starts over, and the program that is its source is run again.
    RunsProgram,
    /// It starts over, and its source has to be given once more.
    NeedsSource,
}

/// The hints about one failure, in reading order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints(Vec<Hint>);

impl Hints {
    /// No advice.
    pub const NONE: Self = Self(Vec::new());

    /// Whether there is no advice.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of hints.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds `hint` before the others.
    pub fn lead_with(&mut self, hint: impl Into<Hint>) {
        self.0.insert(0, hint.into());
    }

    /// Adds `hint` after the others.
    pub fn push(&mut self, hint: impl Into<Hint>) {
        self.0.push(hint.into());
    }

    /// The hints after the first `count`.
    pub fn after(&self, count: usize) -> Self {
        Self(self.0.iter().skip(count).cloned().collect())
    }

    /// Sets what a restart does to the transfer, in every hint that advises one.
    pub fn set_restart(&mut self, restart: Restart) {
        for hint in &mut self.0 {
            if let Hint::StartAgain(known) = hint {
                *known = restart;
            }
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingVisible => f.write_str("Nothing is visible in the target yet."),
            Self::StartAgain(restart) => {
                write!(f, "Start both sides again with the same commands and the same ticket: {restart}")
            }
            Self::OrAbandon => f.write_str("To drop it instead, use `abandon`."),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::SnapshotHeld { seconds } = self {
            let (number, unit) = if *seconds < 120 { (*seconds, "s") } else { (seconds / 60, "min") };
            return write!(
                f,
                "for {number} {unit} from now, a process named snapshot-holder keeps the snapshot of the source, and the \
                 transfer is resumed on it; after that, the source is read as of a new moment. The source cannot vacuum \
                 what is deleted meanwhile: `sealift-sender status` shows the snapshot, and `sealift-sender abandon` \
                 ends transfer and snapshot."
            );
        }
        f.write_str(match self {
            Self::SnapshotHeld { .. } => "",
            Self::Resumes => {
                "the transfer is resumed where it stopped; if its source can be read only once, or its target keeps \
                 nothing, it starts over."
            }
            Self::ReadsLater => {
                "the source is read as of a new moment: the transfer is resumed where the source has not changed since, \
                 and starts over where it has."
            }
            Self::RunsProgram => {
                "the transfer starts over, and the source program is run again, since its output cannot be read twice."
            }
            Self::NeedsSource => {
                "the transfer starts over, and needs all of its source again, since that can be read only once."
            }
        })
    }
}

impl fmt::Display for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, hint) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { " " };
            write!(f, "{separator}{hint}")?;
        }
        Ok(())
    }
}

impl From<&str> for Hint {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned().into())
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Hint> for Hints {
    fn from(hint: Hint) -> Self {
        Self(vec![hint])
    }
}

impl<const N: usize> From<[Hint; N]> for Hints {
    fn from(hints: [Hint; N]) -> Self {
        Self(hints.into())
    }
}

/// An empty text is no hint.
impl From<&str> for Hints {
    fn from(text: &str) -> Self {
        if text.is_empty() { Self::NONE } else { Hint::from(text).into() }
    }
}

/// An empty text is no hint.
impl From<String> for Hints {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 10, item 6.
    #[test]
    fn a_restart_is_described_wherever_it_is_advised() {
        let mut hints = Hints::from([Hint::StartAgain(Restart::Resumes), Hint::OrAbandon]);
        hints.lead_with(Hint::NothingVisible);
        hints.set_restart(Restart::NeedsSource);
        let expected = [Hint::NothingVisible, Hint::StartAgain(Restart::NeedsSource), Hint::OrAbandon];
        assert_eq!(hints, expected.clone().into());
        assert_eq!(hints.to_string(), expected.map(|hint| hint.to_string()).join(" "));
        assert_eq!(hints.after(2), Hint::OrAbandon.into());
    }

    #[test]
    fn an_empty_text_is_no_hint() {
        assert!(Hints::from("").is_empty() && Hints::from(String::new()).is_empty());
        assert_eq!(Hints::from("Look.").to_string(), "Look.");
    }
}
