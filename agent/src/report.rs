//! What a run says while it goes and when it ends: to a person on a terminal, to a program as JSON
//! lines, and to the shell as an exit code. Data goes to standard output and everything for people
//! to standard error.

mod ending;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io::{IsTerminal, Write},
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use sealift_engine_api::{Finding, Severity, SnapshotAge};
use sealift_protocol::{id::TransferId, manifest::Plan};
use serde_json::{Map, Value, json};

pub use self::ending::{Archived, Finished};
use crate::{
    audit::now_text,
    failure::{Failure, io_reason},
    process::eprintln_safe,
    progress::{Progress, Totals},
    role::Role,
    telemetry::printable,
    units::{counted, human_duration},
};

/// How often a terminal is redrawn, and a `progress` event written.
const REDRAW_EVERY: Duration = Duration::from_millis(200);
const PROGRESS_EVENT_EVERY: Duration = Duration::from_secs(1);
/// How often it is kept for `status`.
const KEEP_EVERY: Duration = Duration::from_secs(2);

/// Where nothing is redrawn, as in a log or behind `ssh HOST COMMAND`, a line is printed now and
/// then: the first soon, and no more than 60 an hour.
const FIRST_LINE_AFTER: Duration = Duration::from_secs(10);
const LINE_EVERY: Duration = Duration::from_secs(60);

/// What became of a transfer that was interrupted (design.md, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It went on where it had stopped.
    Resumed,
    /// What was there was dropped, and all of it sent again.
    Restarted,
    /// It could not go on.
    Impossible,
    /// Whether the load is in the target is not known: its operator has to look.
    InDoubt,
}

impl Resume {
    pub fn as_str(self) -> &'static str {
        match self {
            Resume::Resumed => "resumed",
            Resume::Restarted => "restarted",
            Resume::Impossible => "impossible",
            Resume::InDoubt => "in_doubt",
        }
    }
}

/// Reports one run of one agent, or one of several transfers of a run. Used from the async thread
/// alone.
pub struct Report {
    role: Role,
    json: bool,
    bar: ProgressBar,
    started: Instant,
    transfer: Cell<Option<TransferId>>,
    /// Of all transfers of the run.
    seq: Rc<Cell<u64>>,
    /// One of several: what is said to a person says which.
    among_others: bool,
    /// Some event could not be written, and that was said.
    events_lost: Rc<Cell<bool>>,
    progress: RefCell<Progress>,
    resume: Cell<Option<Resume>>,
    drawn: Cell<Option<Instant>>,
    told: Cell<Option<Instant>>,
    printed: Cell<Option<Instant>>,
    kept: Cell<Option<Instant>>,
}

impl Report {
    pub fn new(role: Role, json: bool) -> Self {
        let bar =
            if std::io::stderr().is_terminal() && !json { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self {
            role,
            json,
            bar,
            started: Instant::now(),
            transfer: Cell::new(None),
            seq: Rc::default(),
            among_others: false,
            events_lost: Rc::default(),
            progress: RefCell::default(),
            resume: Cell::new(None),
            drawn: Cell::new(None),
            told: Cell::new(None),
            printed: Cell::new(None),
            kept: Cell::new(None),
        }
    }

    /// The report of one of several transfers of this run. It draws no progress.
    pub fn of_transfer(&self, transfer: TransferId) -> Self {
        Self {
            role: self.role,
            json: self.json,
            bar: ProgressBar::hidden(),
            started: Instant::now(),
            transfer: Cell::new(Some(transfer)),
            seq: Rc::clone(&self.seq),
            among_others: true,
            events_lost: Rc::clone(&self.events_lost),
            progress: RefCell::default(),
            resume: Cell::new(None),
            drawn: Cell::new(None),
            told: Cell::new(None),
            printed: Cell::new(None),
            kept: Cell::new(None),
        }
    }

    pub fn set_transfer(&self, transfer: TransferId) {
        self.transfer.set(Some(transfer));
    }

    /// How an interrupted transfer goes on, and why so: for the person, the program, and the last
    /// word.
    pub fn resume(&self, resume: Resume, reason: &str) {
        self.resume.set(Some(resume));
        self.event("resume", &[("resume", json!(resume.as_str())), ("reason", json!(printable(reason)))]);
        self.say(&format!("{}: {}: {reason}", self.role, resume.as_str().replace('_', " ")));
    }

    /// A line for the person, if no program listens.
    pub fn say(&self, line: &str) {
        if !self.json {
            let of = self.transfer.get().filter(|_| self.among_others);
            let line = of.map_or_else(|| printable(line), |transfer| format!("{transfer}: {}", printable(line)));
            self.bar.suspend(|| eprintln_safe(&line));
        }
    }

    /// What the operator may want to know before it continues.
    pub fn notice(&self, program: &str, what: &str) {
        self.event("notice", &[("what", json!(what))]);
        self.say(&format!("{program}: {what}"));
    }

    /// Who says it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether a program listens.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// What was found, for the program that listens; `target` is one of several.
    pub fn finding_of(&self, finding: &Finding, target: Option<&str>) {
        let Finding { name, severity, what, hint, is_waived } = finding;
        self.event(
            "finding",
            &[
                ("name", json!(name)),
                ("severity", json!(severity.as_str())),
                ("what", json!(what)),
                ("hint", json!(hint)),
                ("waived", json!(is_waived)),
                ("target", json!(target)),
            ],
        );
    }

    /// What was found before anything is sent or loaded.
    pub fn finding(&self, finding: &Finding) {
        self.finding_of(finding, None);
        let Finding { severity, what, hint, is_waived, .. } = finding;
        let text = match severity {
            Severity::Fact | Severity::Note => what.clone(),
            Severity::Error if *is_waived => format!("waived: {what}. {hint}"),
            Severity::Warning | Severity::Error => format!("{}: {what}. {hint}", severity.as_str()),
        };
        self.say(&format!("{}: {}", self.role, text.trim_end()));
    }

    /// How long a transfer has left before it is suspended.
    pub fn time_left(&self, left: Duration) {
        self.event("time_left", &[("seconds", json!(left.as_secs()))]);
        self.say(&format!("{}: {} left to finish; then the transfer is suspended.", self.role, human_duration(left)));
    }

    /// Several lines of ours, names in them made printable.
    pub fn say_lines(&self, text: &str) {
        text.lines().for_each(|line| self.say(line));
    }

    /// An event for the program that listens.
    pub fn event(&self, event: &str, fields: &[(&str, Value)]) {
        if !self.json {
            return;
        }
        let mut object = Map::new();
        object.insert("schema".into(), json!("sealift.event/1"));
        object.insert("seq".into(), json!(self.seq.get()));
        object.insert("ts".into(), json!(now_text()));
        object.insert("event".into(), json!(event));
        object.insert("transfer".into(), self.transfer.get().map_or(Value::Null, |id| json!(id.to_string())));
        fields.iter().for_each(|(name, value)| {
            object.insert((*name).to_owned(), value.clone());
        });
        self.seq.set(self.seq.get() + 1);
        let mut out = std::io::stdout().lock();
        let written = writeln!(out, "{}", Value::Object(object)).and_then(|()| out.flush());
        if let Err(error) = written
            && !self.events_lost.replace(true)
        {
            let reason = io_reason(&error);
            eprintln_safe(&format!(
                "{}: events cannot be written ({reason}); the transfer continues without them.",
                self.role
            ));
        }
    }

    /// What is planned now; nothing of it is there yet.
    pub fn planned(&self, plan: &Plan) {
        self.progress.borrow_mut().handle_planned(plan);
    }

    /// From now on `status` finds in this file how far the transfer is.
    pub fn keep_progress_in(&self, file: &Path) {
        self.progress.borrow_mut().keep_in(file);
    }

    /// The link is down: the time until it is back says nothing about how fast it is.
    pub fn lost(&self) {
        self.progress.borrow_mut().handle_lost(Instant::now());
    }

    /// How old the snapshot is that the source holds, if it holds one. Warns once.
    pub fn snapshot_age(&self, age: Option<SnapshotAge>) {
        let became_old = self.progress.borrow_mut().handle_snapshot(age);
        if let Some(SnapshotAge { age, transactions, .. }) = age.filter(|_| became_old) {
            let seconds = json!(age.as_secs());
            self.event("snapshot_old", &[("age_seconds", seconds), ("transactions_behind", json!(transactions))]);
            let behind = transactions
                .map_or_else(String::new, |count| format!(", {} ago", counted(count.into(), "transaction")));
            self.say(&format!(
                "{}: warning: the snapshot of the source was taken {} ago{behind}; the source can vacuum nothing that was \
                 deleted since.",
                self.role,
                human_duration(age)
            ));
        }
    }

    /// Tries to connect once more.
    pub fn retried(&self) {
        self.progress.borrow_mut().totals.retries += 1;
    }

    /// Counts something, and redraws if it is time to.
    pub fn count(&self, change: impl FnOnce(&mut Totals)) {
        let now = Instant::now();
        let mut progress = self.progress.borrow_mut();
        change(&mut progress.totals);
        progress.handle_counted(now);
        let due = |last: &Cell<Option<Instant>>, every| {
            let due = last.get().is_none_or(|last| now.saturating_duration_since(last) >= every);
            if due {
                last.set(Some(now));
            }
            due
        };
        if !self.bar.is_hidden() && due(&self.drawn, REDRAW_EVERY) {
            self.bar.set_message(progress.line(now));
            self.bar.tick();
        }
        if !self.json && !self.among_others && self.bar.is_hidden() {
            self.print_progress(&progress, now);
        }
        if due(&self.kept, KEEP_EVERY) {
            progress.keep();
        }
        if self.json && due(&self.told, PROGRESS_EVENT_EVERY) {
            self.event("progress", &progress.fields(now));
        }
    }

    /// Redraws and reports while nothing is counted, as when a target takes no more for a while:
    /// with this, progress goes on as long as a connection does. Never returns. Cancel-safe.
    pub async fn keep_reporting(&self) -> Infallible {
        loop {
            self.progress.borrow_mut().handle_flowing(Instant::now());
            self.count(|_| {});
            tokio::time::sleep(PROGRESS_EVENT_EVERY).await;
        }
    }

    fn print_progress(&self, progress: &Progress, now: Instant) {
        let since_printed = self.printed.get().map(|printed| now.saturating_duration_since(printed));
        if let Some(flowing) = progress.flowing(now)
            && is_line_due(flowing, since_printed)
        {
            self.printed.set(Some(now));
            self.say(&format!("{}: {}", self.role, progress.line(now)));
        }
    }
}

/// Whether a log gets a line when data has flowed for so long, and the last line is so old.
fn is_line_due(flowing: Duration, last: Option<Duration>) -> bool {
    last.map_or(flowing >= FIRST_LINE_AFTER, |last| last >= LINE_EVERY)
}

/// An error as every program of Sealift prints it.
pub fn print_failure(program: &str, failure: &Failure) {
    eprintln_safe(&format!("{program}: error: {failure}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, C7: a log shows that data flows, and is not filled by it.
    #[test]
    fn a_log_gets_a_line_now_and_then() {
        let seconds = Duration::from_secs;
        assert!(!is_line_due(seconds(9), None) && is_line_due(seconds(10), None));
        assert!(!is_line_due(seconds(69), Some(seconds(59))) && is_line_due(seconds(70), Some(seconds(60))));
    }
}
