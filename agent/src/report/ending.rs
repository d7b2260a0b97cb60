//! The end of a run: its last event, its last words to a person, and its exit code.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use sealift_protocol::{
    close::Code,
    fingerprint::Fingerprint,
    manifest::{Manifest, Proof, SignedReceipt},
    seal::Suite,
};
use serde_json::{Value, json};

use super::{Report, print_failure};
use crate::{
    failure::{Failure, Outcome},
    image,
    process::eprintln_safe,
    progress::Totals,
    telemetry::printable,
    units::{counted, human_bytes, human_duration},
};

impl Report {
    /// The last word: the same verdict on both sides, and the exit code that goes with it.
    pub fn finish(&self, outcome: &Outcome<Finished>) -> ExitCode {
        ExitCode::from(self.end_run("finished", outcome))
    }

    /// The last word of one of several transfers, while the run goes on.
    pub fn end_transfer(&self, outcome: &Outcome<Finished>) {
        self.end_run("ended", outcome);
    }

    /// The last word of a run of any number of transfers.
    pub fn stop(&self, outcome: &Outcome) -> ExitCode {
        let (word, exit_code) = match outcome {
            Ok(()) => ("done", 0),
            Err(failure) => (failure.code.as_str(), failure.code.exit_code()),
        };
        let mut fields = vec![
            ("role", json!(self.role.name())),
            ("outcome", json!(word)),
            ("exit_code", json!(exit_code)),
            ("duration_ms", json!(self.started.elapsed().as_millis() as u64)),
        ];
        if let Err(failure) = outcome {
            fields.push(("what", json!(printable(&failure.what))));
            fields.push(("hint", json!(printable(&failure.hints.to_string()))));
            print_failure(self.role.name(), failure);
        }
        self.event("finished", &fields);
        ExitCode::from(exit_code)
    }

    /// The last event of a run that never began, for programs alone: its message was printed.
    pub fn end_untold(&self, failure: &Failure) {
        self.last_event("finished", Some(failure), of_receipt(None));
    }

    fn end_run(&self, event: &str, outcome: &Outcome<Finished>) -> u8 {
        if let Ok(finished) = outcome {
            self.progress.borrow_mut().totals.complete(&finished.receipt.receipt.manifest.manifest);
        }
        let own = of_receipt(outcome.as_ref().ok());
        let verdict =
            |totals: &Totals, finished: &Finished| self.verdict(totals, &finished.receipt, &finished.receipt_path);
        self.end(event, outcome, own, verdict)
    }

    /// The last word of a command that makes an archive.
    pub fn finish_archive(&self, outcome: &Outcome<Archived>) -> ExitCode {
        if let Ok(archived) = outcome {
            self.progress.borrow_mut().totals.complete(&archived.manifest);
        }
        let fingerprint = outcome.as_ref().map_or(Value::Null, |archived| json!(archived.sender.to_string()));
        ExitCode::from(self.end("finished", outcome, vec![("fingerprint", fingerprint)], |totals, archived| {
            let amount = self.amount(totals);
            let suite = archived.suite.name();
            let asked = "Tell the receiver's operator this fingerprint, by another way than the archive goes:";
            vec![
                format!("{}: sealed: {amount}, sealed with {suite}.", self.role),
                asked.to_owned(),
                format!("  {}", archived.sender),
            ]
        }))
    }

    fn end<T>(
        &self,
        event: &str,
        outcome: &Outcome<T>,
        own: Vec<(&str, Value)>,
        verdict: impl FnOnce(&Totals, &T) -> Vec<String>,
    ) -> u8 {
        self.bar.finish_and_clear();
        let exit_code = self.last_event(event, outcome.as_ref().err(), own);
        match outcome {
            Ok(done) => verdict(&self.progress.borrow().totals, done).iter().for_each(|line| self.say(line)),
            Err(failure) => self.print_failure(failure),
        }
        exit_code
    }

    /// Prints what ended the transfer before the clean-up, which may take long, or add to
    /// what is to be done. Returns it as one that was printed.
    pub fn tell(&self, failure: Failure) -> Failure {
        self.print_failure(&failure);
        Failure { hints_printed: Some(failure.hints.len()), ..failure }
    }

    /// Prints a failure, or what was added to one since it was printed.
    fn print_failure(&self, failure: &Failure) {
        let text = match failure.hints_printed {
            None => format!("error: {failure}"),
            Some(printed) => printable(&failure.hints.after(printed).to_string()),
        };
        if text.is_empty() {
            return;
        }
        let line = format!("{}: {text}", self.role);
        match self.among_others {
            true => self.say_lines(&line),
            false => self.bar.suspend(|| eprintln_safe(&line)),
        }
    }

    /// Returns the exit code that goes with it.
    fn last_event(&self, event: &str, failure: Option<&Failure>, own: Vec<(&str, Value)>) -> u8 {
        let code = failure.map_or(Code::Done, |failure| failure.code);
        let word = code.as_str();
        let exit_code = code.exit_code();
        self.progress.borrow().keep();
        let totals = self.progress.borrow().totals;
        let mut fields = vec![
            ("role", json!(self.role.name())),
            ("outcome", json!(word)),
            ("exit_code", json!(exit_code)),
            ("parts", json!(totals.parts)),
            ("chunks", json!(totals.chunks)),
            ("rows", json!(totals.rows)),
            ("plain_bytes", json!(totals.plain_bytes)),
            ("sealed_bytes", json!(totals.sealed_bytes)),
            ("resent_bytes", json!(totals.resent_bytes)),
            ("retries", json!(totals.retries)),
            ("duration_ms", json!(self.started.elapsed().as_millis() as u64)),
            ("resume", self.resume.get().map_or(Value::Null, |resume| json!(resume.as_str()))),
        ];
        fields.extend(own);
        if let Some(failure) = failure {
            fields.push(("part", failure.part.map_or(Value::Null, |part| json!(part.0))));
            fields.push(("chunk", failure.chunk.map_or(Value::Null, |chunk| json!(chunk.0))));
            fields.push(("what", json!(printable(&failure.what))));
            fields.push(("hint", json!(printable(&failure.hints.to_string()))));
        }
        self.event(event, &fields);
        exit_code
    }

    fn verdict(&self, totals: &Totals, receipt: &SignedReceipt, path: &Path) -> Vec<String> {
        let role = self.role;
        let amount = self.amount(totals);
        let suite = receipt.receipt.suite.name();
        // Who used the ticket of a drill on the day has to see it.
        let drill = match receipt.receipt.evidence.proof {
            Proof::Discarded => " Nothing was loaded: the target is discard:.",
            _ => "",
        };
        let verified = format!("{role}: done and verified: {amount}, sealed with {suite}.{drill}");
        let image = receipt.receipt.evidence.image();
        let checked = image.into_iter().flat_map(image::describe).map(|line| format!("image: {line}"));
        let receipt = format!("receipt: {}", path.display());
        [verified].into_iter().chain(checked).chain([receipt]).collect()
    }

    /// What it came to, and how long it took.
    fn amount(&self, totals: &Totals) -> String {
        let rows = match totals.rows {
            0 => String::new(),
            rows => format!("{}, ", counted(rows, "row")),
        };
        let packed = totals.ratio().map_or(String::new(), |ratio| format!(", packed {ratio:.1}x"));
        let bytes = human_bytes(totals.plain_bytes);
        let took = human_duration(self.started.elapsed());
        format!("{}, {rows}{bytes} in {took}{packed}", counted(totals.parts, "part"))
    }
}

fn of_receipt(finished: Option<&Finished>) -> Vec<(&'static str, Value)> {
    let of_finished = |of: fn(&Finished) -> Value| finished.map_or(Value::Null, of);
    vec![
        ("receipt", of_finished(|finished| json!(finished.receipt_path.to_string_lossy()))),
        ("proof", of_finished(|finished| json!(finished.receipt.receipt.evidence.proof.as_str()))),
        ("image", of_finished(image_of)),
    ]
}

/// What was checked of an image.
fn image_of(finished: &Finished) -> Value {
    finished.receipt.receipt.evidence.image().map_or(Value::Null, image::to_json)
}

/// A transfer that ended well.
pub struct Finished {
    pub receipt: SignedReceipt,
    pub receipt_path: PathBuf,
}

/// An archive that was made.
pub struct Archived {
    pub manifest: Manifest,
    pub suite: Suite,
    /// By which the receiver's operator knows who made it.
    pub sender: Fingerprint,
}
